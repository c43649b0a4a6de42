"""The number of sequences per update, which is the same for every number of processes."""

from __future__ import annotations

from typing import Any


def sequences_per_update(arguments: Any) -> int:
    """The sequences per update of transformers' training arguments, over all processes."""
    return (
        arguments.per_device_train_batch_size
        * arguments.gradient_accumulation_steps
        * arguments.world_size
    )


def set_accumulation(arguments: Any, global_batch_size: int | None) -> None:
    """Set the accumulation steps so that an update takes `global_batch_size` sequences. None
    changes nothing.

    Raises ValueError if processes x per_device_train_batch_size does not divide it, and if
    gradient_accumulation_steps has another value.
    """
    if global_batch_size is None:
        return
    at_once = arguments.per_device_train_batch_size * arguments.world_size
    steps, rest = divmod(global_batch_size, at_once)
    if rest or not steps:
        raise ValueError(
            f"global_batch_size is {global_batch_size}; it must be a multiple of {at_once}: "
            f"{arguments.world_size} processes x per_device_train_batch_size "
            f"{arguments.per_device_train_batch_size}"
        )
    if arguments.gradient_accumulation_steps not in (1, steps):
        raise ValueError(
            f"gradient_accumulation_steps is {arguments.gradient_accumulation_steps}, but a "
            f"global_batch_size of {global_batch_size} needs {steps} on {arguments.world_size} "
            "processes: leave gradient_accumulation_steps out"
        )
    arguments.gradient_accumulation_steps = steps
