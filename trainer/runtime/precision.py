"""In which precision this machine can compute."""

from __future__ import annotations

from typing import Any

from trainer.runtime.processes import is_main_process, told_to_use_the_cpu

EMULATED = (
    "bf16 is true, but this CPU has neither AVX-512 BF16 nor AMX, without which bf16 takes tens of "
    "times as long: this training computes in fp32"
)


def computes_in_bf16() -> bool:
    """Whether this CPU has instructions for matrix products in bf16 (AVX-512 BF16 or AMX)."""
    import torch

    cpu: Any = torch.cpu
    return bool(cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())


def emulates_bf16() -> bool:
    """Whether training here would run on a CPU that has no bf16 instructions."""
    import torch

    on_the_cpu = told_to_use_the_cpu() or not torch.accelerator.is_available()
    return on_the_cpu and not computes_in_bf16()


def without_emulated_bf16(words: list[str], asked: Any) -> list[str]:
    """The options of a training, with bf16 off where it would be emulated. `asked` is the value of
    `bf16` in the recipe; None: not given, which TRL takes for true. Says so if it was asked for."""
    wanted = str(asked).lower() in ("true", "1", "yes")
    if not (wanted or asked is None) or not emulates_bf16():
        return words
    if wanted and is_main_process():
        print(EMULATED, flush=True)
    return [*words, "--bf16", "false"]
