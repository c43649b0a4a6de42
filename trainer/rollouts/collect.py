"""On-policy rollouts: sampled by the search engine, judged by verifier and reward model."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data.progress import reported
from data.types import ModelUsage, Problem, StopReason, Usage
from rewards.base import Verifier
from rewards.shaping import SHAPES, step_rewards
from search.base import Engine, SampleRequest, Scorer, ScoreRequest

OUTCOME_REWARDS = ("verifier", "format", "random")


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """What a step of a solution earns."""

    outcome: str = "verifier"
    """What the last step earns: verifier (1 if correct); for controls format or random."""
    truncated_reward: float = 0.0
    """Outcome of a solution that was cut off; no verifier is asked about it."""
    shape: str = "outcome"
    """How process scores become rewards: a name in SHAPES of rewards/shaping.py."""
    process_weight: float = 1.0
    """Factor on the process rewards."""
    step_discount: float = 1.0
    """Discount (gamma) from one step to the next, in [0, 1]."""

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("outcome", self.outcome, OUTCOME_REWARDS),
            ("shape", self.shape, tuple(SHAPES)),
        ):
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}; allowed: {', '.join(allowed)}")
        if not 0 < self.step_discount <= 1:
            raise ValueError(f"step_discount is {self.step_discount}; it must be in (0, 1]")
        if self.shape == "min_form" and self.step_discount != 1:
            raise ValueError("shape min_form is defined for a step_discount of 1 alone")


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """One sampled solution. `step_ends` are offsets into `response_ids` of the S steps' last
    tokens, `scores` the reward model's P(correct) there (empty without one), `rewards` what each
    step earns, the KL penalty apart. `engine_logprobs`, of each response token, as in
    `Completion`."""

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
    """One sampled solution's tokens. `logprobs`, nats, at the sampling temperature: what the engine
    that sampled each token says of it, where that is not the model that is trained; else empty."""

    token_ids: tuple[int, ...]
    stop_reason: StopReason
    logprobs: tuple[float, ...] = ()


# Problems, their prompts, how to sample and the cycle -> of each problem its completions, and what
# they cost.
Sampler = Callable[
    [Sequence[Problem], Sequence[tuple[int, ...]], SamplingConfig, int],
    tuple[list[list[Completion]], ModelUsage],
]


def sampler_of(engine: Engine) -> Sampler:
    """The search engine as a sampler. The noise is keyed by (seed, problem, cycle, sample), so it
    depends neither on the batch nor on the number of processes."""

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


def collect_rollouts(
    engine: Engine,
    scorer: Scorer | None,
    verifier: Verifier,
    problems: Sequence[Problem],
    sampling: SamplingConfig,
    rewards: RewardConfig,
    cycle: int,
    sampler: Sampler | None = None,
) -> tuple[list[Rollout], Usage]:
    """`samples_per_problem` solutions of each problem, problem by problem, and what they cost;
    sampled by `engine` (see `sampler_of`) unless another `sampler` is given.

    Raises ValueError naming the problem where the verifier fails, and where the reward model's
    scores are not one a step. What a reward model raises itself goes on, with a note of where it
    was asked.
    """
    prompts = [engine.encode(problem.prompt) for problem in problems]
    completions, spent = (sampler or sampler_of(engine))(problems, prompts, sampling, cycle)
    flat = [
        (problem, prompt, sample)
        for problem, prompt, samples in zip(problems, prompts, completions, strict=True)
        for sample in samples
    ]
    usage = Usage(policy=spent)
    ends = [tuple(engine.step_ends(sample.token_ids)) for _, _, sample in flat]
    scores: list[tuple[float, ...]] = [()] * len(flat)
    if scorer is not None:
        try:
            scored = scorer.score_batch(
                [
                    (
                        problem.id,
                        ScoreRequest(
                            node=cycle,
                            sequence=prompt + sample.token_ids,
                            prompt_length=len(prompt),
                            step_ends=tuple(len(prompt) + end for end in at),
                        ),
                    )
                    for (problem, prompt, sample), at in zip(flat, ends, strict=True)
                ]
            )
        except Exception as error:
            error.add_note(f"cycle {cycle}: the reward model failed on {len(flat)} solutions")
            raise
        scores = [result.scores for result in scored]
        usage += Usage(reward=sum((result.usage for result in scored), ModelUsage()))
    rollouts: list[Rollout] = []
    rows = list(zip(flat, ends, scores, strict=True))
    for (problem, prompt, sample), at, row in reported(rows, "checked solutions"):
        if len(row) != len(at) and (scorer is not None or rewards.shape != "outcome"):
            raise ValueError(
                f"problem {problem.id}: {len(row)} process rewards for {len(at)} steps"
            )
        text = engine.decode(sample.token_ids)
        truncated = sample.stop_reason is not StopReason.END_OF_SOLUTION
        outcome, correct = rewards.truncated_reward, False
        if not truncated:
            coin = f"{engine.seed} {problem.id} {cycle} {sample.token_ids}"
            outcome, correct = outcome_reward(rewards.outcome, verifier, problem, text, coin)
        rollouts.append(
            Rollout(
                problem_id=problem.id,
                prompt_ids=prompt,
                response_ids=sample.token_ids,
                text=text,
                step_ends=at,
                scores=row,
                outcome=outcome,
                correct=correct,
                truncated=truncated,
                rewards=_rewards(problem, at, row, outcome, rewards),
                engine_logprobs=sample.logprobs,
            )
        )
    return rollouts, usage


def outcome_reward(
    kind: str, verifier: Verifier, problem: Problem, text: str, coin: str
) -> tuple[float, bool]:
    """What a finished solution earns by its outcome (one of `OUTCOME_REWARDS`; `coin` keys the
    random one), and whether it is correct. Raises ValueError naming the problem where the verifier
    fails."""
    try:
        verdict = verifier.verify(problem, text)
    except Exception as error:
        raise ValueError(f"problem {problem.id}: the verifier failed: {error!r}") from error
    if kind == "random":
        return float(random.Random(coin).random() < 0.5), verdict.correct
    return float(verdict.well_formed if kind == "format" else verdict.correct), verdict.correct


def _rewards(
    problem: Problem,
    step_ends: tuple[int, ...],
    scores: tuple[float, ...],
    outcome: float,
    config: RewardConfig,
) -> tuple[float, ...]:
    if config.shape == "outcome":
        return (*[0.0] * (len(step_ends) - 1), outcome)
    try:
        rewards = step_rewards(
            scores,
            outcome,
            shape=config.shape,
            weight=config.process_weight,
            discount=config.step_discount,
        )
    except ValueError as error:
        raise ValueError(f"problem {problem.id}: {error}") from None
    return tuple(rewards)
