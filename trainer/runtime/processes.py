"""The processes of one launch: which one writes, how they talk, and the seed they share."""

from __future__ import annotations

import os
import random
import sys
from typing import Any


def is_main_process() -> bool:
    """Rank 0, with or without torch.distributed initialised."""
    torch = sys.modules.get("torch")
    distributed = torch.distributed if torch is not None else None
    if distributed and distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank() == 0
    return int(os.environ.get("RANK", "0")) == 0


def cpu_processes() -> bool:
    """Whether this is one of several plain processes on a machine without an accelerator.
    accelerate and transformers must be told: else each process believes that it is alone."""
    import torch

    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return several and not deepspeed_launched() and not torch.accelerator.is_available()


def deepspeed_launched() -> bool:
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true"


def process_backend() -> str | None:
    """What processes that DeepSpeed runs without an accelerator talk over. accelerate, which knows
    no such processes, must be told; elsewhere (None) it chooses well."""
    import torch

    alone = not deepspeed_launched() or torch.accelerator.is_available()
    return None if alone else "gloo"


def process_state() -> Any:
    """accelerate's `PartialState`. Raises RuntimeError when the launcher started more processes
    than joined: they would overwrite each other's files."""
    from accelerate import PartialState

    state = PartialState(cpu=cpu_processes(), backend=process_backend())
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if state.num_processes != launched:
        raise RuntimeError(
            f"{launched} processes were launched, but only {state.num_processes} joined: check "
            "distributed_type and use_cpu in the accelerate config"
        )
    return state


def set_seed(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices), the same on every process."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)
