"""The settings that every stage's recipe has: folder, seed, W&B, hang detection."""

from __future__ import annotations

from dataclasses import dataclass

FROM_SCRATCH = "from_scratch"  # in place of a model's name: it is built, with random weights


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """Options that every stage has."""

    output_dir: str
    """Folder that the stage writes."""
    seed: int = 17
    """Seed of all random numbers, in [0, 2**32)."""
    run_name: str | None = None
    """Name of the stage's run in W&B; null: W&B's choice."""
    run_group: str | None = None
    """Name of the group in W&B that joins the stages of one recipe."""
    wandb: bool = True
    """Record the stage in W&B, if W&B is installed and not disabled."""
    hang_seconds: float = 600.0
    """Seconds without progress after which the log gets the stacks of all threads; 0: never."""

    def __post_init__(self) -> None:
        if not self.output_dir:
            raise ValueError("output_dir must name a folder, got ''")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be in [0, 2**32), got {self.seed}")
        if not self.hang_seconds >= 0:
            raise ValueError(f"hang_seconds is {self.hang_seconds}; it must be at least 0")
