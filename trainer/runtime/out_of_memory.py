"""Adds advice to an out-of-memory error: the settings that lower memory, and their present
values."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from trainer.runtime.command_line import recipe_mapping

# The advice per setting. It is given only if the setting can still be lowered or switched on.
LOWER = {
    "per_device_train_batch_size": "lower it; gradient_accumulation_steps x 2 for half of it keeps "
    "the update as it is",
    "micro_batch_size": "lower it; the updates stay as they are",
    "max_length": "lower it; longer rows are cut or left out",
    "max_new_tokens": "lower it; longer solutions are cut off",
    "num_generations": "lower it",
}
SWITCH = {
    "gradient_checkpointing": "set true: activations are computed again, for a third more time",
    "bf16": "set true, on a GPU: activations take half the memory",
    "lora_rank": "set about 64: only adapters have gradients and Adam states",
}
# accelerate's settings, as its launcher passes them on in the environment.
ZERO_STAGE = "ACCELERATE_DEEPSPEED_ZERO_STAGE"
OFFLOAD = "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE"
OUT_OF_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory")


@contextmanager
def explaining_out_of_memory(configs: Sequence[Any]) -> Iterator[None]:
    """Inside this context, an out-of-memory error gets the advice as a note under its traceback."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            error.add_note(advice(recipe_mapping(*configs), os.environ))
        raise


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error comes from CUDA, from the CPU allocator (a plain RuntimeError) or from
    Python."""
    return isinstance(error, MemoryError) or any(word in str(error) for word in OUT_OF_MEMORY_WORDS)


def advice(settings: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    lines = ["This stage ran out of memory. These settings lower it (with their present values):"]
    for name, how in LOWER.items():
        value = settings.get(name)
        if isinstance(value, int) and value > 1:
            lines.append(f"  {name} is {value}: {how}")
    for name, how in SWITCH.items():
        if name in settings and not settings[name]:
            lines.append(f"  {name} is {str(settings[name]).lower()}: {how}")
    stage = environment.get(ZERO_STAGE, "none")
    if stage != "3":
        lines.append(f"  DeepSpeed ZeRO stage is {stage}: 3 shares weights out between processes")
    offload = environment.get(OFFLOAD, "none")
    if offload == "none":
        lines.append(
            "  offload_optimizer_device is none: cpu keeps Adam's states there (DeepSpeed)"
        )
    lines.append("docs/scaling.md explains the memory model; run_recipe.py --dry-run applies it.")
    return "\n".join(lines)
