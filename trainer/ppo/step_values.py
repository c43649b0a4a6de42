"""Values of steps from rollouts instead of a critic (VinePPO 2410.01679, section 4).

The value of a state is the mean return of K rollouts from it. A state is a prompt, or a prompt with
whole steps. The advantage of a step is r + V(state after it) - V(state before it), and all of the
step's tokens have it. No token learns from a step after its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from data.types import ModelUsage, Problem, StopReason, Usage
from search.base import ROLLOUT_INDEX, SampleRequest
from trainer.rollouts.collect import Rollout, RolloutRequest
from trainer.rollouts.judging import Judges


@dataclass(frozen=True, kw_only=True)
class StepValueMetrics:
    """Counts over all processes: the different states, the tokens of the rollouts from them, and
    the states' mean value."""

    value_states: int
    value_tokens: int
    mean_step_value: float


@dataclass(frozen=True, kw_only=True)
class StepValues:
    """`values[i]` has one value per step of rollout i: that of the state before the step. `usage`
    is the cost of all rollouts from states. `states` and `total` are the number of different states
    and the sum of their values."""

    values: list[tuple[float, ...]]
    usage: Usage
    states: int
    total: float


def sample_step_values(
    judges: Judges, rollouts: Sequence[Rollout], request: RolloutRequest, samples: int
) -> StepValues:
    """Values of all steps of `rollouts`, from `samples` rollouts per state.

    `request` holds the problems of the rollouts, the sampling settings and the outcome rewards.
    Equal states of a problem share their rollouts. A rollout may be as long as the tokens that the
    state leaves of the limit. The noise of a state is keyed by its rank among the problem's states,
    so it does not depend on other problems or on the number of processes.
    """
    problems = {problem.id: problem for problem in request.problems}
    ranks: dict[str, dict[tuple[int, ...], int]] = {}  # problem -> sampled tokens -> rank
    for rollout in rollouts:
        known = ranks.setdefault(rollout.problem_id, {})
        for start in _starts(rollout):
            known.setdefault(rollout.response_ids[:start], len(known))
    prompts = {rollout.problem_id: rollout.prompt_ids for rollout in rollouts}
    states = [(id, tokens, rank) for id, known in ranks.items() for tokens, rank in known.items()]
    results = judges.engine.sample_batch(
        [
            (
                id,
                SampleRequest(
                    node=request.cycle,
                    prefix=prompts[id] + tokens,
                    n=samples,
                    first_index=ROLLOUT_INDEX + rank * samples,
                    stop_at_step=False,
                    max_new_tokens=request.sampling.max_new_tokens - len(tokens),
                    temperature=request.sampling.temperature,
                ),
            )
            for id, tokens, rank in states
        ]
    )
    found: dict[tuple[str, tuple[int, ...]], float] = {}
    for (id, tokens, _), result in zip(states, results, strict=True):
        returns = [
            _return(judges, problems[id], prompts[id], tokens + s.token_ids, s.stop_reason, request)
            for s in result.samples
        ]
        found[id, tokens] = sum(returns) / samples
    return StepValues(
        values=[
            tuple(found[r.problem_id, r.response_ids[:start]] for start in _starts(r))
            for r in rollouts
        ],
        usage=Usage(policy=sum((result.usage for result in results), ModelUsage())),
        states=len(states),
        total=sum(found.values()),
    )


def with_step_advantages(
    rollouts: Sequence[Rollout], values: Sequence[tuple[float, ...]]
) -> list[Rollout]:
    """The rollouts with the advantages of their steps in the place of the rewards. The value after
    the last step is 0."""
    return [
        replace(
            rollout,
            rewards=tuple(
                reward + after - before
                for reward, before, after in zip(rollout.rewards, own, (*own[1:], 0.0), strict=True)
            ),
        )
        for rollout, own in zip(rollouts, values, strict=True)
    ]


def _return(
    judges: Judges,
    problem: Problem,
    prompt: tuple[int, ...],
    tokens: tuple[int, ...],
    stop_reason: StopReason,
    request: RolloutRequest,
) -> float:
    """The outcome reward of a whole solution."""
    solution = judges.solution(problem, prompt, tokens, finished=stop_reason.finished)
    coin = f"{judges.engine.seed} {problem.id} {request.cycle} {tokens}"
    rewards = request.rewards
    return judges.outcome(
        rewards.outcome, solution, coin, truncated_reward=rewards.truncated_reward
    )[0]


def _starts(rollout: Rollout) -> list[int]:
    """The offsets of the first tokens of the steps."""
    return [0, *(end + 1 for end in rollout.step_ends[:-1])]
