"""The resources that a stage used: time, speed, memory, and FLOPs relative to the devices' peak."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trainer.runtime.ledger import LedgerEntry

# Dense bf16 FLOPs per second from the data sheets, by a part of the device's name.
PEAK_FLOPS = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
    "A10": 125e12,
}
MATRIX_WIDTH = 768  # width of the matrix product that measures a CPU's speed
REPEATS = 3


@dataclass(frozen=True, kw_only=True)
class Resources:
    """The resources of one stage. `positions` are the token positions of all processes that ran
    through a model, forward or forward and backward. Rates divide by the whole wall time of the
    stage, including loading; they are None if an earlier attempt did a part of the work.
    `peak_flops_per_second` is the sum over all devices (for a CPU: the threads of this process,
    measured in fp32), and None for an unknown device. Memory is the peak of rank 0, in bytes."""

    device: str
    processes: int
    seconds: float
    positions: int
    flops: float
    positions_per_second: float | None
    flops_per_second: float | None
    peak_flops_per_second: float | None
    flops_utilisation: float | None
    peak_resident_bytes: int
    peak_device_bytes: int | None


def measure(
    ledger: Sequence[LedgerEntry], seconds: float, processes: int, *, resumed: bool
) -> Resources:
    """The resources for the work in a manifest's `ledger`, which took `seconds`."""
    flops = float(sum(entry.flops for entry in ledger))
    positions = sum(entry.positions for entry in ledger)
    on_device = torch.cuda.is_available()
    name = torch.cuda.get_device_name() if on_device else "cpu"
    # Without a rate the peak has no use, so it is not measured.
    one = peak_flops(name) if flops else None
    peak = one * processes if one else None
    speed = None if resumed else flops / seconds
    return Resources(
        device=name,
        processes=processes,
        seconds=seconds,
        positions=positions,
        flops=flops,
        positions_per_second=None if resumed else positions / seconds,
        flops_per_second=speed,
        peak_flops_per_second=peak,
        flops_utilisation=speed / peak if speed is not None and peak else None,
        peak_resident_bytes=1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        peak_device_bytes=torch.cuda.max_memory_allocated() if on_device else None,
    )


def peak_flops(device: str) -> float | None:
    """Peak FLOPs per second of a device, by its name; None for an unknown device."""
    if device == "cpu":
        return _cpu_flops()
    return next((peak for name, peak in PEAK_FLOPS.items() if name in device), None)


def _cpu_flops() -> float:
    """FLOPs per second: the best of a few fp32 matrix products, which take hundredths of a
    second."""
    factor = torch.ones(MATRIX_WIDTH, MATRIX_WIDTH)
    best = float("inf")
    for _ in range(REPEATS):
        started = time.perf_counter()
        torch.mm(factor, factor)
        best = min(best, time.perf_counter() - started)
    return 2.0 * MATRIX_WIDTH**3 / best
