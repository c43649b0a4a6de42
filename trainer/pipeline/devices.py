"""The devices that a stage runs on, for estimates: their speeds, and how a stage is launched on
them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MIXED = ("bf16", "fp16")


@dataclass(frozen=True, kw_only=True)
class Device:
    """The device of one process: its peak FLOPs and bytes per second, the share of the FLOPs that
    training reaches, and the least seconds per sampled token and layer."""

    name: str
    flops: float
    bandwidth: float
    training_share: float
    layer_seconds: float


# A100 and H100: dense bf16 FLOPs and memory bandwidth from the data sheets (SXM, 80 GB). The shares
# are assumptions. The FLOPs of a CPU core were measured (2 cores with AVX-512, fp32).
DEVICES = {
    "cpu": Device(
        name="one CPU core", flops=80e9, bandwidth=1e10, training_share=0.6, layer_seconds=3e-4
    ),
    "a100": Device(
        name="an A100", flops=312e12, bandwidth=2.0e12, training_share=0.4, layer_seconds=8e-4
    ),
    "h100": Device(
        name="an H100", flops=989e12, bandwidth=3.35e12, training_share=0.35, layer_seconds=8e-4
    ),
}


@dataclass(frozen=True, kw_only=True)
class Launch:
    """The settings of a stage's accelerate config, and its kind of device (a name in `DEVICES`)."""

    device: str = "cpu"
    processes: int = 1
    zero_stage: int = 0
    offload_optimizer: bool = False
    offload_weights: bool = False
    mixed: bool = False


def launch_of(values: Mapping[str, Any], device: str | None) -> Launch:
    """`values` come from an accelerate config; `device` comes from the user."""
    zero: Mapping[str, Any] = values.get("deepspeed_config") or {}
    return Launch(
        device=device or ("cpu" if values.get("use_cpu", True) else "h100"),
        processes=int(values.get("num_processes") or 1),
        zero_stage=int(zero.get("zero_stage") or 0),
        offload_optimizer=zero.get("offload_optimizer_device") not in (None, "none"),
        offload_weights=zero.get("offload_param_device") not in (None, "none"),
        mixed=values.get("mixed_precision") in MIXED,
    )
