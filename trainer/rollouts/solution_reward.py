"""The reward of a sampled solution in GRPO and RLOO: its outcome and its process rewards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from data.slices import Choice, check_file_or_slice
from data.types import ModelUsage, Problem, Usage
from rewards.aggregate import AGGREGATES
from rewards.text_rewards import check_length, length_factor
from rewards.verifiers.by_name import check_verifier
from search.engines.transformers_engine import TransformersEngine
from trainer.rollouts.judging import OUTCOME_REWARDS, Judges, SampledSolution
from trainer.runtime.manifests import write_json
from trainer.runtime.row_files import usage_numbers, usage_of


@dataclass(frozen=True, kw_only=True)
class GroupRLConfig:
    """The training problems of GRPO and RLOO, and the reward of a solution."""

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
    verifier: str
    """Verifier that judges solutions: math, countdown, code, reasoning_gym, ..."""
    outcome: str = "verifier"
    """Outcome of a finished solution: verifier (1 if correct); for controls format or random."""
    process_weight: float = 0.0
    """Factor on the aggregated process rewards; 0 needs no reward model."""
    aggregate: str = "min"
    """How process rewards become one: last, min, product or mean."""
    length_target: int = 0
    """Tokens at which a correct solution earns half, as in L1-Max; 0: length does not count."""
    length_penalty: float = 0.005
    """Change of the outcome per token below or above length_target."""
    filter_rounds: int = 0
    """Times per batch that problems whose samples earn the same are replaced; 0: never."""

    def __post_init__(self) -> None:
        check_verifier(self.verifier)
        if self.outcome not in OUTCOME_REWARDS:
            raise ValueError(f"outcome is {self.outcome!r}; allowed: {', '.join(OUTCOME_REWARDS)}")
        if self.aggregate not in AGGREGATES:
            raise ValueError(f"aggregate is {self.aggregate!r}; allowed: {', '.join(AGGREGATES)}")
        if self.process_weight and self.reward_model is None:
            raise ValueError("process_weight is not 0, but no reward_model is given")
        if self.filter_rounds < 0:
            raise ValueError(f"filter_rounds is {self.filter_rounds}; it must not be negative")
        check_length(self.length_target, self.length_penalty)
        check_file_or_slice(self.problems, self.slice)

    def chosen_problems(self) -> list[Problem]:
        """The problems to train on, in order."""
        size = self.num_problems or None
        choice = Choice(split=self.split, skip=self.skip, size=size, name=self.slice)
        return choice.read_file(self.problems) if self.problems else choice.read(self.data)


@dataclass(slots=True, kw_only=True)
class SolutionReward:
    """A reward function that TRL calls with the sampled token ids. `usage` counts the sampling and
    the scoring of this process. `positions` and `flops` count one forward pass over all samples;
    the cost of training is computed from them. `unlearnt_positions` and `unlearnt_flops` are the
    part of these that belongs to samples that filtering left out."""

    engine: TransformersEngine  # used only for its tokenizer, its steps and its counts
    judges: Judges
    config: GroupRLConfig
    problems: dict[str, Problem]
    usage: Usage = field(default_factory=Usage)
    positions: int = 0
    flops: float = 0.0
    unlearnt_positions: int = 0
    unlearnt_flops: float = 0.0
    __name__: str = "reward"

    def counts(self) -> list[float]:
        """All counts of this process, in the order of `restore`."""
        passes = [self.positions, self.flops, self.unlearnt_positions, self.unlearnt_flops]
        return [*usage_numbers(self.usage), *map(float, passes)]

    def restore(self, counts: Sequence[float]) -> None:
        *numbers, positions, self.flops, unlearnt, self.unlearnt_flops = counts
        self.usage = usage_of(numbers)
        self.positions, self.unlearnt_positions = round(positions), round(unlearnt)

    def __call__(
        self, *, completion_ids: Sequence[Sequence[int]], problem_id: Sequence[str], **_: Any
    ) -> list[float]:
        solutions = [
            self._solution(self.problems[id], tuple(ids))
            for id, ids in zip(problem_id, completion_ids, strict=True)
        ]
        rewards = [self._outcome(solution) for solution in solutions]
        for solution in solutions:
            prompt, sampled = len(solution.prompt_ids), len(solution.token_ids)
            self.usage += Usage(policy=self.engine.sample_usage(prompt, [sampled]))
            self.positions += prompt + sampled
            self.flops += self.engine.flops.forward(0, prompt + sampled)
        if self.config.process_weight:
            aggregate = AGGREGATES[self.config.aggregate]
            scored = self.judges.score(solutions, node=0)
            self.usage += Usage(reward=sum((s.usage for s in scored), ModelUsage()))
            rewards = [
                # The scores of a truncated solution would pay for never ending.
                reward + self.config.process_weight * aggregate(s.scores) * solution.finished
                for reward, s, solution in zip(rewards, scored, solutions, strict=True)
            ]
        return rewards

    def _solution(self, problem: Problem, ids: tuple[int, ...]) -> SampledSolution:
        finished = bool(ids) and ids[-1] in self.engine.end_token_ids
        return self.judges.solution(
            problem, self.engine.encode_prompt(problem.prompt), ids, finished=finished
        )

    def _outcome(self, solution: SampledSolution) -> float:
        coin = f"{self.engine.seed} {solution.problem.id} {solution.token_ids}"
        outcome = self.judges.outcome(self.config.outcome, solution, coin)[0]
        target, tokens = self.config.length_target, len(solution.token_ids)
        if target and solution.finished:
            outcome *= length_factor(tokens, target, self.config.length_penalty)
        return outcome


class KeepsCounts(TrainerCallback):
    """Writes the counts of spent tokens and FLOPs to each checkpoint, so that a resumed run
    includes them."""

    def __init__(self, reward: SolutionReward, rank: int) -> None:
        self.reward = reward
        self.name = f"spent.rank{rank}.json"

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        write_json(folder / self.name, self.reward.counts())

    def restore(self, checkpoint: Path) -> None:
        """Read the counts from a checkpoint. Raises ValueError if fewer processes wrote it."""
        if not (checkpoint / self.name).exists():
            raise ValueError(
                f"{checkpoint} was written by fewer processes than this run has: start the run "
                "with the same number of processes as before"
            )
        self.reward.restore(json.loads((checkpoint / self.name).read_text()))
