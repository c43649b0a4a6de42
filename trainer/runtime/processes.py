"""The processes of one launch: which one writes, how they communicate, and their common seed."""

from __future__ import annotations

import os
import random
import sys
from typing import Any


def is_main_process() -> bool:
    """Whether this process is rank 0. Works with and without an initialised torch.distributed."""
    torch = sys.modules.get("torch")
    distributed = torch.distributed if torch is not None else None
    if distributed and distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank() == 0
    return int(os.environ.get("RANK", "0")) == 0


def cpu_processes() -> bool:
    """Whether this is one of several plain processes on a machine without an accelerator. The
    caller must tell accelerate and transformers; otherwise each process behaves as if it were
    alone."""
    import torch

    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return several and not deepspeed_launched() and not torch.accelerator.is_available()


def told_to_use_the_cpu() -> bool:
    """Whether the accelerate config says `use_cpu`, without DeepSpeed. transformers takes the CPU
    then, but it refuses `bf16` unless its own argument `use_cpu` says so too."""
    told = os.environ.get("ACCELERATE_USE_CPU", "false").lower() == "true"
    return told and not deepspeed_launched()


def deepspeed_launched() -> bool:
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true"


def process_backend() -> str | None:
    """The communication backend of processes that DeepSpeed runs without an accelerator. accelerate
    does not know this case and must be told. Otherwise None: accelerate chooses well."""
    import torch

    alone = not deepspeed_launched() or torch.accelerator.is_available()
    return None if alone else "gloo"


def process_state() -> Any:
    """accelerate's `PartialState`. Raises RuntimeError if fewer processes joined than the launcher
    started, because the others would overwrite the same files."""
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
