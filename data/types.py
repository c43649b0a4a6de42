"""What flows between the parts of thinktree. No torch here: plain, frozen, keyword-only records."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class StopReason(StrEnum):
    """Why one sample, or one path of a search, ended. Only `END_OF_SOLUTION` is a finished
    solution; what follows it names why a path has no answer."""

    STEP_END = "step_end"  # a token whose text contains the step delimiter
    END_OF_SOLUTION = "end_of_solution"  # the end-of-sequence token
    LENGTH = "length"  # the token limit of a step or a solution: it is truncated
    CONTEXT = "context"  # the policy's context is full
    DEPTH = "depth"  # the limit on the number of steps
    BAD_SCORE = "bad_score"  # an open path whose guidance gave no number in [0, 1]

    @property
    def finished(self) -> bool:
        """The solution is whole; after every other reason it was cut off, or is still open."""
        return self is StopReason.END_OF_SOLUTION


class Outcome(StrEnum):
    """What a verifier says of a solution."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNVERIFIABLE = "unverifiable"  # malformed, truncated: no answer can be read


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A verifier's judgement; `reason` says in plain words why it is not correct."""

    outcome: Outcome
    reason: str = ""

    @property
    def correct(self) -> bool:
        return self.outcome is Outcome.CORRECT

    @property
    def well_formed(self) -> bool:
        return self.outcome is not Outcome.UNVERIFIABLE


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One problem. `prompt` is the exact text the policy continues; `answer` is the gold answer.

    `group` is the key by which splits are kept disjoint (Countdown: the multiset of numbers).
    """

    id: str
    prompt: str
    answer: str
    group: str = ""
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """A problem with one worked solution, the text that follows the prompt (no end token)."""

    problem: Problem
    solution: str


@dataclass(frozen=True, kw_only=True)
class ModelUsage:
    """What one model spent. Counts are tokens; padding is never counted here.

    `prompt_tokens`: prefix tokens run through the model; `cached_tokens`: prefix tokens that a
    further sample of the same prefix took from the cache instead; `generated_tokens`: tokens
    sampled; `positions`: token positions run through the model (the last token of a sample is
    never fed back); `sequences`: samples or scored sequences; `flops`: floating point operations
    for `positions` (2 x active parameters each, plus attention).
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    positions: int = 0
    sequences: int = 0
    flops: float = 0.0

    def __add__(self, other: ModelUsage) -> ModelUsage:
        return ModelUsage(
            **{
                f.name: getattr(self, f.name) + getattr(other, f.name)
                for f in dataclasses.fields(self)
            }
        )

    def __sub__(self, other: ModelUsage) -> ModelUsage:
        return ModelUsage(
            **{
                f.name: getattr(self, f.name) - getattr(other, f.name)
                for f in dataclasses.fields(self)
            }
        )


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What policy and reward model spent, apart."""

    policy: ModelUsage = field(default_factory=ModelUsage)
    reward: ModelUsage = field(default_factory=ModelUsage)

    def __add__(self, other: Usage) -> Usage:
        return Usage(policy=self.policy + other.policy, reward=self.reward + other.reward)

    def __sub__(self, other: Usage) -> Usage:
        return Usage(policy=self.policy - other.policy, reward=self.reward - other.reward)

    @property
    def flops(self) -> float:
        return self.policy.flops + self.reward.flops


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One continuation of a prefix, as generated (ids are never re-encoded).

    `step_logprobs` holds the log-probability of each of its steps and `step_entropies` the entropy
    of the distributions its tokens were drawn from, both in nats, summed over the step's tokens,
    from the unnoised logits at temperature 1.
    """

    token_ids: tuple[int, ...]
    step_logprobs: tuple[float, ...]
    step_entropies: tuple[float, ...]
    stop_reason: StopReason

    @property
    def logprob(self) -> float:
        """Nats, summed over all tokens."""
        return math.fsum(self.step_logprobs)


@dataclass(frozen=True, kw_only=True)
class StepLabels:
    """A solution with a label at every step: TRL's stepwise-supervision row, plus ids.

    `labels[i]` is the estimated probability in [0, 1] that a completion of steps 0..i is correct
    (soft), or 0 or 1 (hard); `counts[i]` is the number of rollouts behind it, `standard_errors[i]`
    its standard error. `completion_ids` holds the token ids of every step. Where steps have no
    label, one completion is several of them, labelled at its end. The last label of a finished
    solution is the verifier's word.
    """

    problem_id: str
    prompt: str
    prompt_ids: tuple[int, ...]
    completions: tuple[str, ...]
    completion_ids: tuple[tuple[int, ...], ...]
    labels: tuple[float, ...]
    counts: tuple[int, ...]
    standard_errors: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class SteppedSolution:
    """A problem's text and a solution cut into steps: what reward models with a tokenizer and a
    convention of their own are asked about. `steps` are as written, each with its delimiter."""

    prompt: str
    steps: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LabelledSolution:
    """A solution whose steps have labels from elsewhere: people, published files, other policies.

    `labels[i]` is in [0, 1], None where the step has none; `counts[i]` is the number of rollouts
    behind it, 0 where it does not come from rollouts. `answer` is the gold answer, if known.
    `finished` says that the solution is known to end with its last step.
    """

    problem_id: str
    solution: SteppedSolution
    labels: tuple[float | None, ...]
    counts: tuple[int, ...]
    answer: str = ""
    finished: bool = False


@dataclass(frozen=True, kw_only=True)
class StepPair:
    """Two continuations of the same prefix, `prompt`: a step each, or whole solutions, read at
    their last token; the first is better. A finished one's ids end with the end token.

    The values are the evidence, in [0, 1]: mean values of the steps, of a solution's steps on
    average. `weight` is its share of the loss. The ids are not named as TRL's tokenised columns
    are, which hold prompts too: to TRL a row is its text.
    """

    problem_id: str
    prompt: str
    chosen: str
    rejected: str
    prompt_token_ids: tuple[int, ...]
    chosen_token_ids: tuple[int, ...]
    rejected_token_ids: tuple[int, ...]
    chosen_value: float
    rejected_value: float
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, kw_only=True)
class Preference:
    """Two whole texts or two whole conversations, what was asked included; the first is preferred,
    by at least `margin` in score where that is given."""

    chosen: str | tuple[Message, ...]
    rejected: str | tuple[Message, ...]
    margin: float | None = None


def usage_from_json(row: dict[str, Any]) -> Usage:
    return Usage(
        policy=ModelUsage(**row.get("policy", {})), reward=ModelUsage(**row.get("reward", {}))
    )


@dataclass(frozen=True, kw_only=True)
class TokenRow:
    """One training row. `completion_ids` ends with the end token and is never re-encoded."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
