"""The inputs of a PPO run without its models: problems, trajectories to imitate, recorded
rollouts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from data.problems import read_problems
from data.types import Problem, TokenRow
from trainer.ppo.config import PPOConfig
from trainer.rollouts.collect import Rollout
from trainer.rollouts.files import read_rollouts
from trainer.searching.trajectories import read_trajectories


@dataclass(frozen=True, kw_only=True)
class PPOInputs:
    """PPO trains on `problems`, and `held_out` problems measure the greedy policy. `imitation`
    holds verified trajectories. `recorded` holds the rollouts of each cycle if they are replayed
    instead of sampled, else None."""

    problems: list[Problem]
    held_out: list[Problem]
    imitation: list[TokenRow]
    recorded: dict[int, list[Rollout]] | None


def read_inputs(config: PPOConfig) -> PPOInputs:
    path = Path(config.problems or Path(config.data) / f"{config.split}.jsonl")
    problems = read_problems(path)[config.skip :]
    validation = read_problems(Path(config.data) / "validation.jsonl")
    return PPOInputs(
        problems=problems[: config.num_problems] if config.num_problems else problems,
        held_out=validation[config.evaluation_skip :][: config.evaluation_problems],
        imitation=[
            row
            for folder in config.trajectories
            for row in read_trajectories(Path(folder) / "trajectories.jsonl")
        ],
        recorded=read_rollouts(config.replay) if config.replay else None,
    )
