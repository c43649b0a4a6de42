"""An out-of-memory error says which settings lower memory, and what they are now."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from trainer.runtime.command_line import as_mapping

# What to do, by setting, as far as there is something to do: a number above 1, or a switch.
LOWER = {
    "per_device_train_batch_size": "lower it; gradient_accumulation_steps x 2 for half of it keeps "
    "the update as it is",
    "micro_batch_size": "lower it; the updates stay as they are",
    "max_length": "lower it; longer rows are cut or left out",
    "max_new_tokens": "lower it; longer solutions are cut off",
    "num_generations": "lower it",
}
SWITCH = {
    "gradient_checkpointing": "true: activations are worked out again, a third more time",
    "bf16": "true, on a GPU: activations take half",
    "lora_rank": "64 or so: only adapters have gradients and Adam states",
}
# accelerate's own, as its launcher hands them on.
ZERO_STAGE = "ACCELERATE_DEEPSPEED_ZERO_STAGE"
OFFLOAD = "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE"
WORDS = ("out of memory", "can't allocate memory", "not enough memory")


@contextmanager
def explaining_out_of_memory(configs: Sequence[Any]) -> Iterator[None]:
    """Whatever runs out of memory inside carries the advice as a note, under its traceback."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            error.add_note(advice(as_mapping(*configs), os.environ))
        raise


def is_out_of_memory(error: BaseException) -> bool:
    """CUDA's, the CPU allocator's (a plain RuntimeError) and Python's own."""
    return isinstance(error, MemoryError) or any(word in str(error) for word in WORDS)


def advice(settings: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    lines = ["This stage ran out of memory. What lowers it, with its present value:"]
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
    lines.append("docs/scaling.md has the memory model; run_recipe.py --dry-run works it out.")
    return "\n".join(lines)
