"""The records that the parts of thinktree pass to each other: frozen, keyword-only dataclasses.

This file does not import torch.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class StopReason(StrEnum):
    """Why one sample, or one path of a search, ended. Only `END_OF_SOLUTION` means a finished
    solution. The reasons after it are the reasons why a path has no answer."""

    STEP_END = "step_end"  # a token contains the step delimiter in its text
    END_OF_SOLUTION = "end_of_solution"  # the policy sampled the end-of-sequence token
    LENGTH = "length"  # the sample reached the token limit of a step or a solution
    CONTEXT = "context"  # the policy's context is full
    DEPTH = "depth"  # the path reached the limit on the number of steps
    BAD_SCORE = "bad_score"  # the guidance of an open path gave no number in [0, 1]

    @property
    def finished(self) -> bool:
        """The solution is whole; after every other reason it was cut off, or is still open."""
        return self is StopReason.END_OF_SOLUTION


class Outcome(StrEnum):
    """A verifier's verdict on a solution."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNVERIFIABLE = "unverifiable"  # the solution is malformed or truncated and has no answer


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A verifier's verdict. `reason` says in plain words why the solution is not correct."""

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
    """One problem. `prompt` is the exact text that the policy continues. `answer` is the gold
    answer.

    Problems with the same `group` may not be in both test (or validation) and another split. In
    Countdown, the group is the multiset of numbers.
    """

    id: str
    prompt: str
    answer: str
    group: str = ""
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """A problem with one worked solution: the text after the prompt, without the end token."""

    problem: Problem
    solution: str


@dataclass(frozen=True, kw_only=True)
class ModelUsage:
    """The cost of one model. Counts never include padding.

    - `prompt_tokens`: prefix tokens that went through the model.
    - `cached_tokens`: prefix tokens that further samples of a prefix took from the cache instead.
    - `generated_tokens`: sampled tokens.
    - `positions`: token positions that went through the model. The last token of a sample is never
      fed back, so it is not one of them.
    - `sequences`: samples, or scored sequences.
    - `flops`: floating point operations of `positions`: 2 x active parameters per position, plus
      attention.
    - `repeated_positions`: those of `positions` at the start of a sequence that an earlier request
      of the same search had sent through the model already. An engine that keeps the keys and
      values of prefixes does not compute them again.
    - `repeated_flops`: those of `flops` that belong to `repeated_positions`.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    positions: int = 0
    sequences: int = 0
    flops: float = 0.0
    repeated_positions: int = 0
    repeated_flops: float = 0.0

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
    """The cost of the policy and the cost of the reward model."""

    policy: ModelUsage = field(default_factory=ModelUsage)
    reward: ModelUsage = field(default_factory=ModelUsage)

    def __add__(self, other: Usage) -> Usage:
        return Usage(policy=self.policy + other.policy, reward=self.reward + other.reward)

    def __sub__(self, other: Usage) -> Usage:
        return Usage(policy=self.policy - other.policy, reward=self.reward - other.reward)

    @property
    def flops(self) -> float:
        return self.policy.flops + self.reward.flops

    @property
    def repeated_flops(self) -> float:
        return self.policy.repeated_flops + self.reward.repeated_flops


@dataclass(frozen=True, kw_only=True)
class ServedTokens:
    """What a server of a policy said of its own work, in tokens. A `ModelUsage` counts what the
    requests of a search need, whatever a server remembers; this counts what the server did.

    - `requests`: the samples and probabilities asked for.
    - `computed_tokens`: prompt tokens that went through the model.
    - `cached_tokens`: prompt tokens whose keys and values the server had kept.
    - `generated_tokens`: sampled tokens.
    """

    requests: int = 0
    computed_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0

    def __add__(self, other: ServedTokens) -> ServedTokens:
        return ServedTokens(
            **{
                f.name: getattr(self, f.name) + getattr(other, f.name)
                for f in dataclasses.fields(self)
            }
        )


@dataclass(frozen=True, kw_only=True)
class TokenDraws:
    """One number per token of a sample, in nats. `logprobs` and `entropies` are at temperature 1.

    `draw_logprobs` holds the log-probability with which each token was drawn: at the sampling
    temperature, among the tokens that the request allowed at this position.
    """

    logprobs: tuple[float, ...]
    entropies: tuple[float, ...]
    draw_logprobs: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One continuation of a prefix, exactly as generated. The ids are never re-encoded.

    `step_logprobs` holds one log-probability per step. `step_entropies` holds one entropy per step,
    that of the distributions from which its tokens were drawn. Both are in nats, summed over the
    step's tokens, from the logits without noise at temperature 1.
    """

    token_ids: tuple[int, ...]
    step_logprobs: tuple[float, ...]
    step_entropies: tuple[float, ...]
    stop_reason: StopReason
    draws: TokenDraws | None = None  # only for a request with `with_draws`

    @property
    def logprob(self) -> float:
        """The log-probability of the sample in nats, summed over all tokens."""
        return math.fsum(self.step_logprobs)


@dataclass(frozen=True, kw_only=True)
class StepLabels:
    """A solution with a label per completion: TRL's stepwise-supervision row, plus token ids.

    A completion is usually one step. Steps without a label are joined with the next step that has
    one, so such a completion is several steps, with the label at its end.

    - `labels[i]`: a soft label is the estimated probability, in [0, 1], that a rollout from the end
      of completion i is correct. A hard label is 0 or 1.
    - `counts[i]`: the number of rollouts behind this label.
    - `standard_errors[i]`: the standard error of this label.
    - `completion_ids[i]`: the token ids of completion i.

    The last label of a finished solution is the verifier's verdict.
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
    """A problem's text and a solution cut into steps, for reward models that have their own
    tokenizer and prompt convention. Each of `steps` keeps its delimiter."""

    prompt: str
    steps: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LabelledSolution:
    """A solution whose step labels come from outside: people, published files, other policies.

    `labels[i]` is in [0, 1], or None when step i has no label. `counts[i]` is the number of
    rollouts behind the label, or 0 when the label does not come from a known number of rollouts.
    `answer` is the gold answer, or '' when it is not known. `finished` is true when the solution is
    known to end with its last step.
    """

    problem_id: str
    solution: SteppedSolution
    labels: tuple[float | None, ...]
    counts: tuple[int, ...]
    answer: str = ""
    finished: bool = False


@dataclass(frozen=True, kw_only=True)
class StepPair:
    """Two continuations of the same prefix `prompt`, of which `chosen` is the better one.

    Each continuation is one step or a whole solution. A reward model reads it at its last token.
    The ids of a finished solution end with the end token.

    `chosen_value` and `rejected_value` are the evidence, in [0, 1]: the mean value of the step, or
    the average over the steps of a solution. `weight` is the weight of the pair in the loss. The
    names of the id columns differ from those of TRL's tokenised columns, because TRL's columns also
    hold the prompt. TRL therefore reads the texts of a row.
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
    """Two whole texts or two whole conversations, of which `chosen` is preferred. Both include the
    prompt. If `margin` is given, the score of `chosen` should be larger by at least that much."""

    chosen: str | tuple[Message, ...]
    rejected: str | tuple[Message, ...]
    margin: float | None = None


def usage_from_json(row: dict[str, Any]) -> Usage:
    """Read back the JSON of `dataclasses.asdict` of a usage. Missing counts are 0."""
    return Usage(
        policy=ModelUsage(**row.get("policy", {})), reward=ModelUsage(**row.get("reward", {}))
    )


@dataclass(frozen=True, kw_only=True)
class TokenRow:
    """One training row. `completion_ids` ends with the end token and is never re-encoded."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
