"""The progress of a PPO run, and its checkpoints."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data.types import Usage, usage_from_json
from rewards.verifiers.tally import TALLY
from trainer.ppo.advantages import KLController
from trainer.ppo.guards import Evaluation
from trainer.runtime.verdict_counts import verdicts_of_all_ranks
from trainer.training.checkpoints import (
    check_resumable,
    latest_checkpoint,
    mark_whole,
    remove_partial_checkpoints,
)


@dataclass(slots=True, kw_only=True)
class PPOProgress:
    """The state that a resumed run needs in addition to weights and optimizer."""

    kl: KLController
    cycle: int = 0
    evaluations: list[Evaluation] = field(default_factory=list[Evaluation])
    usage: Usage = field(default_factory=Usage)
    trained_tokens: int = 0
    trained_flops: float = 0.0
    stopped: str = ""  # the reason why training ended early

    def state_dict(self) -> dict[str, Any]:
        """The state as JSON text, because checkpoints are loaded with `weights_only`."""
        return {"json": json.dumps(asdict(self))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        values = json.loads(state["json"])
        self.kl = KLController(**values.pop("kl"))
        self.usage = usage_from_json(values.pop("usage"))
        self.evaluations = [
            Evaluation(cycle=row["cycle"], correct=tuple(row["correct"]), proxy=row["proxy"])
            for row in values.pop("evaluations")
        ]
        for name, value in values.items():
            setattr(self, name, value)


def save_checkpoint(folder: Path, accelerator: Any, progress: PPOProgress, kept: int) -> None:
    """Save weights, optimizer and all registered objects. Only the newest `kept` checkpoints
    stay."""
    checkpoint = folder / f"checkpoint-{progress.cycle}"
    accelerator.save_state(str(checkpoint), safe_serialization=False)
    accelerator.wait_for_everyone()
    verdicts = verdicts_of_all_ranks()
    if accelerator.is_main_process:
        mark_whole(checkpoint, progress.cycle, accelerator.num_processes, verdicts=verdicts)
        cycles = sorted(int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*"))
        for cycle in cycles[:-kept]:
            shutil.rmtree(folder / f"checkpoint-{cycle}")
    accelerator.wait_for_everyone()


def load_checkpoint(folder: Path, accelerator: Any, progress: PPOProgress) -> None:
    """Restore the newest complete checkpoint, including the registered `progress`. Without a
    checkpoint nothing changes. Raises ValueError for a checkpoint from which this run cannot
    continue (`trainer.training.checkpoints.check_resumable`)."""
    if accelerator.is_main_process:
        remove_partial_checkpoints(folder)
    accelerator.wait_for_everyone()
    checkpoint = latest_checkpoint(folder)
    if checkpoint is None:
        return
    made = check_resumable(checkpoint, accelerator.num_processes)
    accelerator.load_state(str(checkpoint))
    if accelerator.is_main_process:
        TALLY.add(made.get("verdicts", {}))
        what = "weights, optimizer, progress"
        print(f"resumed before cycle {progress.cycle}: {what}", flush=True)
