"""Reward models behind the interface that search uses: they turn score requests into results."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data.types import ModelUsage, SteppedSolution
from rewards.base import RewardModel, SolutionTooLong, TextRewardModel
from rewards.models.prefix_reader import shared_beginnings
from rewards.models.prm import ProcessRewardModel
from search.base import Policy, ScoreRequest, ScoreResult


class RewardScorer:
    """Implements `search.base.Scorer` with a reward model that shares the policy's vocabulary, and
    perhaps its trunk."""

    def __init__(self, reward_model: RewardModel, *, shares_trunk: bool = False) -> None:
        self.reward_model = reward_model
        self.shares_trunk = shares_trunk

    def prefix_flops(self, length: int) -> float:
        return self.reward_model.prefix_flops(length)

    def score_batch(self, items: Sequence[tuple[str, ScoreRequest]]) -> list[ScoreResult]:
        if not items:
            return []
        if isinstance(self.reward_model, ProcessRewardModel) and self.reward_model.keeps_prefixes:
            # Read once what the requests of a problem have in common.
            shared = shared_beginnings([(name, request.sequence) for name, request in items])
            if shared:
                self.reward_model.read(shared, [_ends_within(s, items) for s in shared])
        scores, usage = self.reward_model.score(
            [request.sequence for _, request in items],
            [request.step_ends for _, request in items],
        )
        return [
            ScoreResult(scores=tuple(row), usage=spent)
            for row, spent in zip(scores, usage, strict=True)
        ]


def _ends_within(beginning: Sequence[int], items: Sequence[tuple[str, ScoreRequest]]) -> list[int]:
    """The step ends in `beginning` that the requests which begin with it ask for."""
    length, same = len(beginning), tuple(beginning)
    asked = [request for _, request in items if request.sequence[:length] == same]
    return sorted({end for request in asked for end in request.step_ends if end < length})


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """A request as text. `steps[i]` is the index of the step whose score answers `step_ends[i]`."""

    solution: SteppedSolution
    steps: tuple[int, ...]


class TextScorer:
    """Implements `search.base.Scorer` with a reward model that reads text and may have another
    tokenizer than the policy. `question` turns the token ids of a prompt into the problem's text.

    A request is always cut into the policy's steps, even when it has only one position. A step
    without text (the end token alone) gets the score of the step before it. A solution that is too
    long for the reward model gets NaN as its scores. NaN ends the path, and the path counts as
    `StopReason.BAD_SCORE`.
    """

    shares_trunk = False

    def __init__(
        self,
        reward_model: TextRewardModel,
        engine: Policy,
        question: Callable[[Sequence[int]], str],
    ) -> None:
        self.reward_model = reward_model
        self.engine = engine
        self.question = question
        self._questions: dict[tuple[int, ...], str] = {}

    def prefix_flops(self, length: int) -> float:
        return 0.0

    def score_batch(self, items: Sequence[tuple[str, ScoreRequest]]) -> list[ScoreResult]:
        """Raises ValueError for a request without a valid `prompt_length`."""
        asked = [self._as_text(problem_id, request) for problem_id, request in items]
        left = list(range(len(asked)))
        results: dict[int, ScoreResult] = {}
        while left:
            try:
                scores, usage = self.reward_model.score_solutions([asked[i].solution for i in left])
            except SolutionTooLong as error:
                for i in [left[index] for index in error.indices]:
                    unknown = (math.nan,) * len(asked[i].steps)
                    results[i] = ScoreResult(scores=unknown, usage=ModelUsage())
                left = [i for i in left if i not in results]
                continue
            for i, row, spent in zip(left, scores, usage, strict=True):
                chosen = tuple(row[step] for step in asked[i].steps)
                results[i] = ScoreResult(scores=chosen, usage=spent)
            break
        return [results[i] for i in range(len(items))]

    def _as_text(self, problem_id: str, request: ScoreRequest) -> _Asked:
        start = request.prompt_length
        if start == len(request.sequence):
            raise ValueError(
                f"problem {problem_id}: a reward model that reads text has no value of a prompt "
                "alone: set prompt_value of the look to false"
            )
        if not 1 <= start < len(request.sequence):
            raise ValueError(
                f"problem {problem_id}: prompt_length is {start}; it must be 1 or more and leave "
                f"a step in a sequence of {len(request.sequence)} tokens"
            )
        prompt = request.sequence[:start]
        if prompt not in self._questions:
            self._questions[prompt] = self.question(prompt)
        own_ends = self.engine.step_ends(request.sequence[start:])
        ends = sorted({start + end for end in own_ends} | set(request.step_ends))
        steps: list[str] = []
        step_of: dict[int, int] = {}
        begin = start
        for end in ends:
            text = self.engine.decode(request.sequence[begin : end + 1])
            begin = end + 1
            if text.strip() or not steps:
                steps.append(text)
            step_of[end] = len(steps) - 1
        return _Asked(
            solution=SteppedSolution(prompt=self._questions[prompt], steps=tuple(steps)),
            steps=tuple(step_of[end] for end in request.step_ends),
        )
