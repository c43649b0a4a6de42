"""Which of transformers' training arguments decide what a training ends in.

A run that was cut off continues only with the same ones. The others say where things are written,
how often they are saved and logged, and how the work is laid on devices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

# A name belongs here by its beginning, unless it stands among the exceptions.
BEGINNINGS = (
    "activation_", "dataloader_", "ddp_", "eval_", "fsdp", "gradient_checkpointing", "hub_",
    "log_", "logging_", "push_to_hub", "save_", "torch_compile", "trackio_", "vllm_",
)  # fmt: skip
EXCEPTIONS = ("dataloader_drop_last",)
# The product of the two batch keys and the processes is checked with the checkpoint.
NAMES = {
    "per_device_train_batch_size", "gradient_accumulation_steps", "per_device_eval_batch_size",
    "output_dir", "run_name", "project", "report_to", "disable_tqdm", "debug", "local_rank",
    "deepspeed", "parallelism_config", "accelerator_config", "use_cpu", "resume_from_checkpoint",
    "restore_callback_states_from_checkpoint", "enable_jit_checkpoint", "skip_memory_metrics",
    "include_num_input_tokens_seen", "include_for_metrics", "dataset_num_proc", "do_eval",
    "do_predict", "do_train", "num_completions_to_print",
}  # fmt: skip


def training_settings(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The part of `TrainingArguments.to_dict()` that decides the result."""
    return {
        name: value
        for name, value in arguments.items()
        if name in EXCEPTIONS or not (name in NAMES or name.startswith(BEGINNINGS))
    }


# The least value of each key, and whether the key may have it.
LEAST: dict[str, tuple[float, bool]] = {
    "per_device_train_batch_size": (1, True),
    "gradient_accumulation_steps": (1, True),
    "global_batch_size": (1, True),
    "learning_rate": (0, True),
    "weight_decay": (0, True),
    "max_grad_norm": (0, True),
    "warmup_steps": (0, True),
    "num_train_epochs": (0, False),
    "save_steps": (0, False),
    "logging_steps": (0, False),
}


def check_training_ranges(values: Mapping[str, Any]) -> None:
    """Raises ValueError for a training argument that no training can have: transformers lets a
    batch of 0 sequences pass. Keys that are absent or null are not checked."""
    for name, (least, allowed) in LEAST.items():
        value = values.get(name)
        if value is None:
            continue
        number = float(value)
        if not math.isfinite(number) or number < least or (number == least and not allowed):
            bound = f"at least {least}" if allowed else f"above {least}"
            raise ValueError(f"{name} is {value}; it must be {bound}")
    steps = values.get("max_steps")
    if steps is not None and int(steps) == 0:
        raise ValueError("max_steps is 0; it must be at least 1, or -1 to train for whole epochs")
