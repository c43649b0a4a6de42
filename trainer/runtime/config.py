"""What every stage's recipe says beside its own settings: folder, seed, W&B, hang detection."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """Options every stage has. `run_name` is the stage's and `run_group` the whole run's name in
    W&B; `wandb: false` records nothing there. After `hang_seconds` without progress all stacks go
    to the log (0: never)."""

    output_dir: str
    seed: int = 17
    run_name: str | None = None
    run_group: str | None = None
    wandb: bool = True
    hang_seconds: float = 600.0

    def __post_init__(self) -> None:
        if not self.output_dir:
            raise ValueError("output_dir must name a folder, got ''")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be in [0, 2**32), got {self.seed}")
        if not self.hang_seconds >= 0:
            raise ValueError(f"hang_seconds is {self.hang_seconds}; it must be at least 0")
