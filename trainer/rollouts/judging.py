"""Judges solutions that were sampled during training. A verifier judges a whole solution, and a
reward model judges its steps."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from data.types import Problem
from rewards.base import Verifier, verdict_of
from search.base import Engine, Scorer, ScoreRequest, ScoreResult

OUTCOME_REWARDS = ("verifier", "format", "random")


@dataclass(frozen=True, kw_only=True)
class SampledSolution:
    """A solution to judge. `token_ids` follow the prompt. `step_ends` are the offsets of the steps'
    last tokens in `token_ids`. `finished` is true if the solution ends with the end token, and
    false if it was truncated."""

    problem: Problem
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    step_ends: tuple[int, ...]
    finished: bool


@dataclass(frozen=True, kw_only=True)
class Judges:
    """The judges of a policy's solutions. `engine` knows the tokenizer and the steps. Without a
    `scorer` no step gets a score."""

    engine: Engine
    verifier: Verifier
    scorer: Scorer | None = None

    def solution(
        self,
        problem: Problem,
        prompt_ids: tuple[int, ...],
        token_ids: tuple[int, ...],
        *,
        finished: bool,
    ) -> SampledSolution:
        return SampledSolution(
            problem=problem,
            prompt_ids=prompt_ids,
            token_ids=token_ids,
            step_ends=tuple(self.engine.step_ends(token_ids)),
            finished=finished,
        )

    def score(self, solutions: Sequence[SampledSolution], *, node: int) -> list[ScoreResult]:
        """The reward model's scores of the steps, with one result per solution. `node` is the key
        of the requests."""
        assert self.scorer is not None
        return self.scorer.score_batch(
            [
                (
                    solution.problem.id,
                    ScoreRequest(
                        node=node,
                        sequence=solution.prompt_ids + solution.token_ids,
                        prompt_length=len(solution.prompt_ids),
                        step_ends=tuple(
                            len(solution.prompt_ids) + end for end in solution.step_ends
                        ),
                    ),
                )
                for solution in solutions
            ]
        )

    def outcome(
        self, kind: str, solution: SampledSolution, coin: str, *, truncated_reward: float = 0.0
    ) -> tuple[float, bool]:
        """The outcome reward of a solution, and whether the solution is correct. `kind` is one of
        `OUTCOME_REWARDS`, and `coin` is the key of the random outcome. A truncated solution gets
        `truncated_reward`. Raises ValueError with the problem's name if the verifier fails."""
        problem = solution.problem
        try:
            verdict = verdict_of(
                partial(self.verifier.verify, problem),
                self.engine.decode(solution.token_ids),
                finished=solution.finished,
            )
        except Exception as error:
            raise ValueError(f"problem {problem.id}: the verifier failed: {error!r}") from error
        if not solution.finished:
            return truncated_reward, False
        if kind == "random":
            return float(random.Random(coin).random() < 0.5), verdict.correct
        return float(verdict.well_formed if kind == "format" else verdict.correct), verdict.correct
