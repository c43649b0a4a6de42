"""The inputs of a PPO run without its models: problems, trajectories to imitate, recorded
rollouts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
    return PPOInputs(
        problems=config.chosen_problems(),
        held_out=config.held_out_problems(),
        imitation=[
            row
            for folder in config.trajectories
            for row in read_trajectories(Path(folder) / "trajectories.jsonl")
        ],
        recorded=read_rollouts(config.replay) if config.replay else None,
    )
