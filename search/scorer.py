"""A reward model as search sees it: score requests in, score results out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from data.types import ModelUsage
from rewards.prm import ProcessRewardModel
from search.base import ScoreRequest, ScoreResult
from search.flops import flop_model


def process_reward_model(model: Any, pad_token_id: int) -> ProcessRewardModel:
    """Wrap a token-classification model, counting its FLOPs from its own sizes."""
    return ProcessRewardModel(model, pad_token_id, flop_model(model).forward)


class RewardScorer:
    """Implements `search.base.Scorer` over a reward model."""

    def __init__(self, reward_model: ProcessRewardModel) -> None:
        self.reward_model = reward_model

    def score_batch(self, items: Sequence[tuple[str, ScoreRequest]]) -> list[ScoreResult]:
        if not items:
            return []
        scores: list[list[float]]
        usage: list[ModelUsage]
        scores, usage = self.reward_model.score(
            [request.sequence for _, request in items],
            [request.step_ends for _, request in items],
        )
        return [
            ScoreResult(scores=tuple(row), usage=spent)
            for row, spent in zip(scores, usage, strict=True)
        ]
