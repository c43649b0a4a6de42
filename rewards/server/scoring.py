"""A served reward model's answers to a batch of requests: scores, or the reason for having none."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from data.types import ModelUsage, SteppedSolution
from rewards.base import RewardModel, SolutionTooLong, TextRewardModel
from rewards.server.client import Refused, Scored, ServedDescription

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TokenSequence:
    """A prompt and a solution as token ids, and the positions to score."""

    token_ids: tuple[int, ...]
    step_ends: tuple[int, ...]


Question = SteppedSolution | TokenSequence
Reply = Scored | Refused
Score = Callable[[Sequence[Any]], tuple[list[list[float]], list[ModelUsage]]]


def size_of(question: Question) -> int:
    """The size of a question in tokens. The number of tokens of a text is not known yet, so its
    number of bytes is used, which is rarely smaller."""
    if isinstance(question, TokenSequence):
        return len(question.token_ids)
    return sum(len(text.encode()) for text in (question.prompt, *question.steps))


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A loaded reward model of one or both protocols, and its description for clients."""

    description: ServedDescription
    token_model: RewardModel | None = None
    text_model: TextRewardModel | None = None

    def answers(self, questions: Sequence[Question]) -> list[Reply]:
        """One answer per question, in input order. This never raises. A question that cannot be
        scored is refused with a reason, and the other questions are scored."""
        found: dict[int, Reply] = {}
        for i, question in enumerate(questions):
            refused = self._unfit(question)
            if refused is not None:
                found[i] = refused
        for in_ids, score in ((False, self._score_texts), (True, self._score_ids)):
            kind = [i for i, q in enumerate(questions) if isinstance(q, TokenSequence) == in_ids]
            asked = [i for i in kind if i not in found]
            if asked:
                found |= zip(asked, _attempt(score, [questions[i] for i in asked]), strict=True)
        return [found[i] for i in range(len(questions))]

    def _unfit(self, question: Question) -> Refused | None:
        """The refusal of a question that this model cannot answer, or None. For example, a token id
        outside the vocabulary would crash a GPU process."""
        in_ids = isinstance(question, TokenSequence)
        if (self.token_model if in_ids else self.text_model) is None:
            return Refused(
                status=422,
                reason=f"this reward model ({self.description.convention}) is asked in "
                + " or ".join(self.description.asked_in),
            )
        if not in_ids:
            return None
        length, limit = len(question.token_ids), self.description.max_tokens
        if 0 < limit < length:
            return _too_long(length, limit)
        largest, size = max(question.token_ids), self.description.vocab_size
        if largest >= size:
            return Refused(
                status=422,
                reason=f"token_ids holds {largest}; the reward model's vocabulary has {size} ids",
            )
        return None

    def _score_texts(
        self, solutions: Sequence[SteppedSolution]
    ) -> tuple[list[list[float]], list[ModelUsage]]:
        assert self.text_model is not None
        return self.text_model.score_solutions(solutions)

    def _score_ids(
        self, sequences: Sequence[TokenSequence]
    ) -> tuple[list[list[float]], list[ModelUsage]]:
        assert self.token_model is not None
        return self.token_model.score(
            [sequence.token_ids for sequence in sequences],
            [sequence.step_ends for sequence in sequences],
        )


def _attempt(score: Score, questions: Sequence[Question]) -> list[Reply]:
    try:
        scores, usage = score(questions)
    except SolutionTooLong as error:
        refused = dict(zip(error.indices, error.lengths, strict=True))
        left = [question for i, question in enumerate(questions) if i not in refused]
        others = iter(_attempt(score, left) if left else [])
        return [
            _too_long(refused[i], error.limit) if i in refused else next(others)
            for i in range(len(questions))
        ]
    except ValueError as error:
        # One question caused the error. The other questions may come from other clients, so each
        # question is now scored alone.
        if len(questions) > 1:
            return [answer for question in questions for answer in _attempt(score, [question])]
        return [_failed(error)]
    except Exception as error:
        return [_failed(error)] * len(questions)
    return [
        Scored(scores=tuple(row), usage=spent) for row, spent in zip(scores, usage, strict=True)
    ]


def _too_long(length: int, limit: int) -> Refused:
    return Refused(
        status=413,
        reason=f"the request has {length} tokens, more than the reward model's {limit}",
        length=length,
        limit=limit,
    )


def _failed(error: Exception) -> Refused:
    LOG.error("scoring failed", exc_info=error)
    return Refused(status=500, reason=f"{type(error).__name__}: {error}")
