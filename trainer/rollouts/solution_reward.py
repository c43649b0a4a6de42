"""The reward that GRPO and RLOO give a sampled solution: its outcome and its process rewards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from data.problems import read_problems
from data.slices import Choice
from data.types import ModelUsage, Problem, Usage
from rewards.aggregate import AGGREGATES
from rewards.verifiers.by_name import check_verifier
from search.base import ScoreRequest
from search.engines.transformers_engine import TransformersEngine
from trainer.rollouts.collect import OUTCOMES, outcome_reward
from trainer.runtime.manifests import write_json
from trainer.runtime.row_files import usage_numbers, usage_of


@dataclass(frozen=True, kw_only=True)
class GroupRLConfig:
    """What GRPO and RLOO train on, and what a solution earns."""

    policy: str
    """Folder or hub id of the policy."""
    data: str
    """Folder of the data stage, with one JSONL file per split."""
    reward_model: str | None = None
    """Folder, hub id, http address or YAML description of the reward model; null: none."""
    problems: str | None = None
    """File of problems to train on; null: those of the split."""
    split: str = "train"
    """Split whose problems are used: train, validation or test."""
    skip: int = 0
    """Problems left out at the start of the split."""
    slice: str | None = None
    """Named slice of the data stage's problems, in place of split and skip; null: none."""
    num_problems: int = 0
    """Problems trained on; 0: all."""
    verifier: str = "countdown"
    """Verifier that judges solutions: math, countdown, code, reasoning_gym, ..."""
    outcome: str = "verifier"
    """What a finished solution earns: verifier (1 if correct); for controls format or random."""
    process_weight: float = 0.0
    """Factor on the aggregated process rewards; 0 needs no reward model."""
    aggregate: str = "min"
    """How process rewards become one: last, min, product or mean."""

    def __post_init__(self) -> None:
        check_verifier(self.verifier)
        if self.outcome not in OUTCOMES:
            raise ValueError(f"outcome is {self.outcome!r}; allowed: {', '.join(OUTCOMES)}")
        if self.aggregate not in AGGREGATES:
            raise ValueError(f"aggregate is {self.aggregate!r}; allowed: {', '.join(AGGREGATES)}")
        if self.process_weight and self.reward_model is None:
            raise ValueError("process_weight is not 0, but no reward_model is given")
        if self.slice and self.problems:
            raise ValueError(
                f"slice {self.slice!r} and problems {self.problems!r} are given; give one"
            )

    def chosen_problems(self) -> list[Problem]:
        """The problems to train on, in order."""
        size = self.num_problems or None
        if self.problems:
            return read_problems(Path(self.problems))[self.skip :][:size]
        choice = Choice(split=self.split, skip=self.skip, size=size, name=self.slice)
        return choice.read(self.data)


@dataclass(slots=True, kw_only=True)
class SolutionReward:
    """A reward function as TRL calls it, on token ids as they were sampled. `usage` counts the
    sampling and the scoring of this process, `positions` and `flops` one forward pass over all that
    was sampled, for what training costs."""

    engine: TransformersEngine  # for its tokenizer, its steps and its counting alone
    scorer: Any
    config: GroupRLConfig
    problems: dict[str, Problem]
    verifier: Any
    usage: Usage = field(default_factory=Usage)
    positions: int = 0
    flops: float = 0.0
    __name__: str = "reward"

    def __call__(
        self, *, completion_ids: Sequence[Sequence[int]], problem_id: Sequence[str], **_: Any
    ) -> list[float]:
        rewards = [
            self._outcome(self.problems[id], tuple(ids))
            for id, ids in zip(problem_id, completion_ids, strict=True)
        ]
        prompts = [self.engine.encode(self.problems[id].prompt) for id in problem_id]
        for prompt, ids in zip(prompts, completion_ids, strict=True):
            self.usage += Usage(policy=self.engine.sample_usage(len(prompt), [len(ids)]))
            self.positions += len(prompt) + len(ids)
            self.flops += self.engine.flops.forward(0, len(prompt) + len(ids))
        if self.config.process_weight:
            aggregate = AGGREGATES[self.config.aggregate]
            scored = self.scorer.score_batch(
                [
                    (
                        id,
                        ScoreRequest(
                            node=0,
                            sequence=prompt + tuple(ids),
                            prompt_length=len(prompt),
                            step_ends=tuple(
                                len(prompt) + end for end in self.engine.step_ends(ids)
                            ),
                        ),
                    )
                    for id, prompt, ids in zip(problem_id, prompts, completion_ids, strict=True)
                ]
            )
            self.usage += Usage(reward=sum((s.usage for s in scored), ModelUsage()))
            rewards = [
                reward + self.config.process_weight * aggregate(s.scores)
                for reward, s in zip(rewards, scored, strict=True)
            ]
        return rewards

    def _outcome(self, problem: Problem, ids: tuple[int, ...]) -> float:
        if not ids or ids[-1] != self.engine.end_token_id:
            return 0.0  # truncated: no verifier is asked
        text = self.engine.decode(ids)
        coin = f"{self.engine.seed} {problem.id} {ids}"
        return outcome_reward(self.config.outcome, self.verifier, problem, text, coin)[0]


class KeepsCounts(TrainerCallback):
    """Puts what was spent into each checkpoint, so that a resumed run counts all of it."""

    def __init__(self, reward: SolutionReward, rank: int) -> None:
        self.reward = reward
        self.name = f"spent.rank{rank}.json"

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        spent = [*usage_numbers(self.reward.usage), self.reward.positions, self.reward.flops]
        write_json(folder / self.name, spent)

    def restore(self, checkpoint: Path) -> None:
        """Raises ValueError where the run had fewer processes."""
        if not (checkpoint / self.name).exists():
            raise ValueError(
                f"{checkpoint} was written by fewer processes than this run has: start it with as "
                "many as before"
            )
        *numbers, positions, flops = json.loads((checkpoint / self.name).read_text())
        self.reward.usage = usage_of(numbers)
        self.reward.positions, self.reward.flops = int(positions), flops
