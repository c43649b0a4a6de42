"""Measures greedy accuracy on validation problems while one of TRL's trainers trains."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import TrainerCallback

from data.slices import validation_problems
from data.types import Problem, Usage, usage_from_json
from rewards.base import Verifier
from search.base import Engine
from trainer.rollouts.collect import (
    RewardConfig,
    RolloutRequest,
    SamplingConfig,
    collect_rollouts,
)
from trainer.rollouts.judging import Judges
from trainer.runtime.row_files import EVALUATIONS, append_rows, keep_before, usage_numbers, usage_of


@dataclass(frozen=True, kw_only=True)
class HeldOutConfig:
    """How often, and on which problems, the greedy policy is measured during training."""

    evaluate_every: int = 50
    """Optimizer steps between two evaluations."""
    evaluation_problems: int = 0
    """Validation problems per evaluation; 0: no evaluation."""
    evaluation_skip: int = 0
    """Validation problems left out at the start."""
    evaluation_slice: str | None = None
    """Named slice of validation that evaluations use, in place of evaluation_skip; null: none."""
    max_new_tokens: int
    """Limit of one solution, in tokens after the prompt; GRPO and RLOO sample with it too."""

    def __post_init__(self) -> None:
        for name, least in (
            ("evaluate_every", 1),
            ("evaluation_problems", 0),
            ("evaluation_skip", 0),
            ("max_new_tokens", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")

    def problems(self, data: str) -> list[Problem]:
        """The evaluation problems from the data stage's folder. Nothing is read if
        `evaluation_problems` is 0."""
        if not self.evaluation_problems:
            return []
        return validation_problems(
            data, self.evaluation_skip, self.evaluation_problems, self.evaluation_slice
        )


class HeldOut(TrainerCallback):
    """Appends a row to `<folder>/evaluations.jsonl` before the first step, after every
    `evaluate_every` steps and after the last step. A row holds the accuracy, the problems, `cycle`
    (optimizer steps so far), `sampled_tokens` and the cost of the evaluation. `sampled` returns the
    sampled tokens that this process has learned from; the row has the sum over processes. Decoding
    is greedy, so the evaluation does not use the random generators of the training."""

    def __init__(
        self,
        config: HeldOutConfig,
        engine: Engine,
        verifier: Verifier,
        *,
        data: str,
        folder: Path,
        sampled: Callable[[], int],
    ) -> None:
        self.config, self.judges = config, Judges(engine=engine, verifier=verifier)
        self.problems = config.problems(data)
        self.path, self.sampled = folder / EVALUATIONS, sampled
        self.last = -1

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remove the rows after the checkpoint if the run is resumed. An evaluation before the
        first step or after the last one may have come after the checkpoint. It is made again."""
        step, every = state.global_step, self.config.evaluate_every
        before_checkpoint = step > 0 and step % every == 0
        if state.is_world_process_zero:
            keep_before(self.path, step + 1 if before_checkpoint else step)
        PartialState().wait_for_everyone()
        rows = self.rows()
        self.last = rows[-1]["cycle"] if rows else -1
        if state.global_step == 0:
            self._evaluate(state, kwargs["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.config.evaluate_every == 0:
            self._evaluate(state, kwargs["model"])

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._evaluate(state, kwargs["model"])

    def rows(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]

    def usage(self) -> Usage:
        """The cost of all evaluations on all processes."""
        return sum((usage_from_json(row["usage"]) for row in self.rows()), Usage())

    def _evaluate(self, state: Any, model: Any) -> None:
        if not self.problems or self.last == state.global_step:
            return
        self.last = state.global_step
        processes = PartialState()
        was_training = model.training
        model.eval()
        rollouts, usage = collect_rollouts(
            self.judges,
            RolloutRequest(
                problems=self.problems[processes.process_index :: processes.num_processes],
                sampling=SamplingConfig(
                    samples_per_problem=1,
                    max_new_tokens=self.config.max_new_tokens,
                    temperature=0.0,
                ),
                rewards=RewardConfig(),
                cycle=state.global_step,
            ),
        )
        model.train(was_training)
        correct = sum(r.correct for r in rollouts)
        own = [float(correct), float(self.sampled()), *usage_numbers(usage)]
        found: list[list[float]] = gather_object([own])
        solved, sampled, *spent = torch.tensor(found, dtype=torch.float64).sum(0).tolist()
        accuracy = solved / len(self.problems)
        if state.is_world_process_zero:
            row = {
                "cycle": state.global_step,
                "accuracy": accuracy,
                "problems": len(self.problems),
                "sampled_tokens": round(sampled),
                "usage": asdict(usage_of(spent)),
            }
            append_rows(self.path, [row])
            print(f"after step {state.global_step}: held-out accuracy {accuracy:.3f}", flush=True)
        processes.wait_for_everyone()
