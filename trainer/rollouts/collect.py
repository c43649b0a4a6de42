"""Collects on-policy rollouts. The search engine samples them; verifier and reward model judge
them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data.progress import reported
from data.tasks.countdown_lines import false_steps
from data.types import ModelUsage, Problem, StopReason, Usage
from rewards.shaping import SHAPES, step_rewards
from rewards.text_rewards import check_length, length_factor
from search.base import Engine, SampleRequest
from trainer.rollouts.judging import OUTCOME_REWARDS, Judges, SampledSolution


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """The rewards of a solution's steps."""

    outcome: str = "verifier"
    """Reward of the last step: verifier (1 if correct); for controls format or random."""
    truncated_reward: float = 0.0
    """Outcome of a truncated solution, which no verifier judges."""
    shape: str = "outcome"
    """How process scores become rewards: a name in SHAPES of rewards/shaping.py."""
    process_weight: float = 1.0
    """Factor on the process rewards."""
    step_discount: float = 1.0
    """Discount (gamma) from one step to the next, in [0, 1]."""
    false_line_penalty: float = 0.0
    """Reward lost per line of a Countdown thought that replaying finds to be false."""
    length_target: int = 0
    """Tokens at which a correct solution earns half, as in L1-Max; 0: length does not count."""
    length_penalty: float = 0.005
    """Change of the outcome per token below or above length_target."""

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("outcome", self.outcome, OUTCOME_REWARDS),
            ("shape", self.shape, tuple(SHAPES)),
        ):
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}; allowed: {', '.join(allowed)}")
        if not 0 < self.step_discount <= 1:
            raise ValueError(f"step_discount is {self.step_discount}; it must be in (0, 1]")
        check_length(self.length_target, self.length_penalty)
        if not self.false_line_penalty >= 0:
            raise ValueError(
                f"false_line_penalty is {self.false_line_penalty}; it must not be negative"
            )
        if self.shape == "min_form" and self.step_discount != 1:
            raise ValueError("shape min_form needs a step_discount of 1")


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """One sampled solution with S steps. `step_ends` are the offsets of the steps' last tokens in
    `response_ids`. `scores` are the reward model's P(correct) there (empty without a reward model).
    `rewards` are the rewards of the steps, without the KL penalty. `engine_logprobs` has one value
    per response token, as `logprobs` of `Completion`."""

    problem_id: str
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    text: str
    step_ends: tuple[int, ...]
    scores: tuple[float, ...]
    outcome: float
    correct: bool
    truncated: bool
    rewards: tuple[float, ...]
    engine_logprobs: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    samples_per_problem: int
    max_new_tokens: int
    temperature: float


@dataclass(frozen=True, kw_only=True)
class Completion:
    """The tokens of one sampled solution. If another engine than the trained model sampled them,
    `logprobs` holds that engine's log-probability of each token, in nats, at the sampling
    temperature. Otherwise `logprobs` is empty."""

    token_ids: tuple[int, ...]
    stop_reason: StopReason
    logprobs: tuple[float, ...] = ()


# (problems, their prompts, sampling settings, cycle) -> (the completions of each problem, the
# cost).
Sampler = Callable[
    [Sequence[Problem], Sequence[tuple[int, ...]], SamplingConfig, int],
    tuple[list[list[Completion]], ModelUsage],
]


def sampler_of(engine: Engine) -> Sampler:
    """The search engine as a sampler. The random numbers depend on (seed, problem, cycle, sample),
    but not on the batch or the number of processes."""

    def sample(
        problems: Sequence[Problem],
        prompts: Sequence[tuple[int, ...]],
        sampling: SamplingConfig,
        cycle: int,
    ) -> tuple[list[list[Completion]], ModelUsage]:
        results = engine.sample_batch(
            [
                (
                    problem.id,
                    SampleRequest(
                        node=cycle,
                        prefix=prompt,
                        n=sampling.samples_per_problem,
                        stop_at_step=False,
                        max_new_tokens=sampling.max_new_tokens,
                        temperature=sampling.temperature,
                    ),
                )
                for problem, prompt in zip(problems, prompts, strict=True)
            ]
        )
        completions = [
            [Completion(token_ids=s.token_ids, stop_reason=s.stop_reason) for s in result.samples]
            for result in results
        ]
        return completions, sum((result.usage for result in results), ModelUsage())

    return sample


@dataclass(frozen=True, kw_only=True)
class RolloutRequest:
    """Asks for the rollouts of one cycle: their problems, their sampling, and their rewards."""

    problems: Sequence[Problem]
    sampling: SamplingConfig
    rewards: RewardConfig
    cycle: int


def collect_rollouts(
    judges: Judges, request: RolloutRequest, sampler: Sampler | None = None
) -> tuple[list[Rollout], Usage]:
    """`samples_per_problem` solutions of each problem, problem by problem, and their cost. The
    judges' engine samples (see `sampler_of`), unless another `sampler` is given.

    Raises ValueError with the name of the problem if the verifier fails, and if the number of
    scores differs from the number of steps. An error of the reward model keeps its type, and gets a
    note that names the cycle.
    """
    prompts = [judges.engine.encode_prompt(problem.prompt) for problem in request.problems]
    sample = sampler or sampler_of(judges.engine)
    groups, spent = sample(request.problems, prompts, request.sampling, request.cycle)
    completions = [completion for group in groups for completion in group]
    solutions = [
        judges.solution(
            problem,
            prompt,
            completion.token_ids,
            finished=completion.stop_reason.finished,
        )
        for problem, prompt, group in zip(request.problems, prompts, groups, strict=True)
        for completion in group
    ]
    scores, scoring = _scores(judges, solutions, request.cycle)
    rows = list(zip(solutions, completions, scores, strict=True))
    rollouts = [
        _rollout(judges, request, solution, row, completion.logprobs)
        for solution, completion, row in reported(rows, "checked solutions")
    ]
    return rollouts, Usage(policy=spent, reward=scoring)


def _scores(
    judges: Judges, solutions: Sequence[SampledSolution], cycle: int
) -> tuple[list[tuple[float, ...]], ModelUsage]:
    """The scores of each solution's steps (none without a reward model), and their cost."""
    if judges.scorer is None:
        return [()] * len(solutions), ModelUsage()
    try:
        scored = judges.score(solutions, node=cycle)
    except Exception as error:
        error.add_note(f"cycle {cycle}: the reward model failed on {len(solutions)} solutions")
        raise
    return [result.scores for result in scored], sum((s.usage for s in scored), ModelUsage())


def _rollout(
    judges: Judges,
    request: RolloutRequest,
    solution: SampledSolution,
    scores: tuple[float, ...],
    engine_logprobs: tuple[float, ...],
) -> Rollout:
    """The solution with its rewards."""
    problem, config, steps = solution.problem, request.rewards, len(solution.step_ends)
    if len(scores) != steps and (judges.scorer is not None or config.shape != "outcome"):
        raise ValueError(f"problem {problem.id}: {len(scores)} process rewards for {steps} steps")
    coin = f"{judges.engine.seed} {problem.id} {request.cycle} {solution.token_ids}"
    outcome, correct = judges.outcome(
        config.outcome, solution, coin, truncated_reward=config.truncated_reward
    )
    if config.length_target and solution.finished:
        tokens = len(solution.token_ids)
        outcome *= length_factor(tokens, config.length_target, config.length_penalty)
    rewards = _rewards(solution, scores, outcome, config)
    return Rollout(
        problem_id=problem.id,
        prompt_ids=solution.prompt_ids,
        response_ids=solution.token_ids,
        text=judges.engine.decode(solution.token_ids),
        step_ends=solution.step_ends,
        scores=scores,
        outcome=outcome,
        correct=correct,
        truncated=not solution.finished,
        rewards=_without_false_lines(judges, solution, rewards, config.false_line_penalty),
        engine_logprobs=engine_logprobs,
    )


def _without_false_lines(
    judges: Judges, solution: SampledSolution, rewards: tuple[float, ...], penalty: float
) -> tuple[float, ...]:
    """The rewards less the penalty at each false line. A line that the limit cut off has none."""
    if not penalty:
        return rewards
    steps = [
        judges.engine.decode(solution.token_ids[before + 1 : end + 1])
        for before, end in itertools.pairwise((-1, *solution.step_ends))
    ]
    false = false_steps(solution.problem, steps)
    if not solution.finished:
        false[-1] = False
    return tuple(r - penalty * wrong for r, wrong in zip(rewards, false, strict=True))


def _rewards(
    solution: SampledSolution, scores: tuple[float, ...], outcome: float, config: RewardConfig
) -> tuple[float, ...]:
    if config.shape == "outcome":
        return (*[0.0] * (len(solution.step_ends) - 1), outcome)
    try:
        rewards = step_rewards(
            scores,
            outcome,
            shape=config.shape,
            weight=config.process_weight,
            finished=solution.finished,
            discount=config.step_discount,
        )
    except ValueError as error:
        raise ValueError(f"problem {solution.problem.id}: {error}") from None
    return tuple(rewards)
