"""Stops a supervised training when the validation accuracy rises no more or is high enough, and
keeps its best weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback

from rewards.verifiers.by_name import check_verifier
from trainer.rollouts.held_out import HeldOut, HeldOutConfig
from trainer.runtime.solution_defaults import solution_defaults

# A stage removes `checkpoint-*` once its manifest is written, and never lists it as an output.
BEST = "checkpoint-best-"


@dataclass(frozen=True, kw_only=True)
class EarlyStoppingConfig:
    """When a training on demonstrations ends, and which of its weights are kept.

    The greedy accuracy on validation problems is measured every `evaluate_every` updates. The
    weights of the best evaluation are kept, and the training ends after `patience` evaluations
    without a better one. Without evaluations the last weights are kept. With `target_accuracy` the
    training also ends at the first evaluation, after an update, that reaches it: search and RL then
    have something left to learn.
    """

    evaluation_problems: int = 0
    """Validation problems per evaluation; 0: no evaluation, the last weights are kept."""
    evaluation_skip: int = 0
    """Validation problems left out at the start."""
    evaluation_slice: str | None = None
    """Named slice of validation that evaluations use, in place of evaluation_skip; null: none."""
    evaluate_every: int = 100
    """Optimizer steps between two evaluations."""
    patience: int = 0
    """Evaluations without a better accuracy after which the training ends; 0: it never does."""
    target_accuracy: float = 0.0
    """Accuracy of an evaluation at which the training ends, in [0, 1]; 0: there is none."""
    evaluation_verifier: str | None = None
    """Verifier that judges solutions; null: the one of the data folder's task."""
    evaluation_max_new_tokens: int | None = None
    """Limit of one solution, in tokens after the prompt; null: that of the data folder's task."""

    def __post_init__(self) -> None:
        if self.evaluation_verifier is not None:
            check_verifier(self.evaluation_verifier)
        for name in ("evaluation_problems", "evaluation_skip", "patience"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")
        if not 0 <= self.target_accuracy <= 1:
            raise ValueError(f"target_accuracy is {self.target_accuracy}; it must be in [0, 1]")
        for name in ("patience", "target_accuracy"):
            if getattr(self, name) and not self.evaluation_problems:
                raise ValueError(
                    f"{name} is {getattr(self, name)}, but evaluation_problems is 0: nothing is "
                    "evaluated"
                )

    def resolved(self, data: str) -> tuple[HeldOutConfig, str]:
        """The evaluations and their verifier. Raises ValueError where neither the config nor the
        data folder says how solutions are judged."""
        known = solution_defaults(Path(data))
        verifier = self.evaluation_verifier or known.get("verifier")
        limit = self.evaluation_max_new_tokens or known.get("max_new_tokens")
        for key, value in (("verifier", verifier), ("max_new_tokens", limit)):
            if value is None:
                raise ValueError(
                    f"evaluation_{key} is not given, and {data!r} does not record it: "
                    f"set evaluation_{key}"
                )
        held_out = HeldOutConfig(
            evaluate_every=self.evaluate_every,
            evaluation_problems=self.evaluation_problems,
            evaluation_skip=self.evaluation_skip,
            evaluation_slice=self.evaluation_slice,
            max_new_tokens=int(str(limit)),
        )
        return held_out, str(verifier)


class KeepBest(TrainerCallback):
    """Keeps the weights of the best evaluation of `held_out` in `<folder>/checkpoint-best-<step>`,
    and ends the training after `patience` evaluations without a better one, or at an accuracy of
    `target` (0: at none). The first of equal evaluations is the best. `save` writes the present
    weights to a folder; every process calls it.

    The evaluations of a resumed run are those of its checkpoint and of the steps after it. The best
    weights of every checkpoint stay until the checkpoint is removed, so a resumed run keeps the
    same ones. This callback comes after `held_out`.
    """

    def __init__(
        self,
        held_out: HeldOut,
        *,
        patience: int,
        target: float,
        folder: Path,
        save: Callable[[Path], None],
    ) -> None:
        self.held_out, self.folder, self.save = held_out, folder, save
        self.patience, self.target = patience, target
        self.stopped = False  # whether the training ended for want of a better evaluation
        self.reached = False  # whether it ended at the target

    def best(self) -> dict[str, Any]:
        """The row of the best evaluation: the first of equal ones. While nothing is solved, it is
        the last one, so that patience begins with the first solved problem."""

        def rank(row: dict[str, Any]) -> tuple[float, int]:
            return row["accuracy"], -row["cycle"] if row["accuracy"] else row["cycle"]

        return max(self.held_out.rows(), key=rank)

    def best_folder(self) -> Path:
        return self.folder / f"{BEST}{self.best()['cycle']}"

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            for step, path in self._kept().items():
                if step > state.global_step:
                    shutil.rmtree(path)
        PartialState().wait_for_everyone()
        self._look(state, control)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._look(state, control)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._look(state, control)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remove weights that are the best of no checkpoint that a run can resume from."""
        if not state.is_world_process_zero:
            return
        steps = [path.name.removeprefix("checkpoint-") for path in self.folder.glob("checkpoint-*")]
        oldest = min(int(step) for step in steps if step.isdigit())
        before = sorted(step for step in self._kept() if step <= oldest)
        for step in before[:-1]:
            shutil.rmtree(self.folder / f"{BEST}{step}")

    def _look(self, state: Any, control: Any) -> None:
        rows, best = self.held_out.rows(), self.best()["cycle"]
        if rows[-1]["cycle"] != state.global_step:
            return
        target = self.best_folder()
        since = len([row for row in rows if row["cycle"] > best])
        if self.patience and since >= self.patience:
            self.stopped = control.should_training_stop = True
        if self.target and state.global_step and rows[-1]["accuracy"] >= self.target:
            self.reached = control.should_training_stop = True
        if since == 0 and not target.exists():
            partial = target.with_name(f"{target.name}.partial")
            self.save(partial)
            PartialState().wait_for_everyone()
            if state.is_world_process_zero:
                partial.rename(target)
            PartialState().wait_for_everyone()

    def _kept(self) -> dict[int, Path]:
        found = {path.name.removeprefix(BEST): path for path in self.folder.glob(f"{BEST}*")}
        return {int(step): path for step, path in found.items() if step.isdigit()}
