"""The settings that every strategy shares: sampling, guidance, the choice of answers, limits."""

from __future__ import annotations

from dataclasses import dataclass

from rewards.aggregate import AGGREGATES
from rewards.heuristics import HEURISTICS

GUIDANCES = (
    "prm", "outcome", "likelihood", "entropy", "self_evaluation", "self_consistency",
    "heuristic", "oracle", "random",
)  # fmt: skip
JUDGE = "judge"  # a second reward model, which chooses the answer and guides no tree
# Not self_consistency: its values change with every new solution.
ANSWER_GUIDANCES = ("", *(name for name in GUIDANCES if name != "self_consistency"), JUDGE)
ANSWERS = ("score", "weighted_vote", "majority", "first", "oracle")


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """The settings of every search: how paths get values, how an answer is chosen, and the limits.

    `guidance` gives a partial or finished path a value in [0, 1] (search/guidance.py):
    - prm: a process reward model scores every step; `aggregate` makes one value of the scores.
    - outcome: an outcome reward model scores the end of the path alone.
    - likelihood: exp(mean log-probability per token), the confidence of the policy.
    - entropy: exp(-mean entropy per token).
    - self_evaluation: P(yes) / (P(yes) + P(no)) when the policy answers `question`.
    - self_consistency: for an unfinished path, the share of the most frequent answer among
      `guidance_rollouts` rollouts. For a finished solution, the share of its answer among the
      solutions that are finished so far.
    - heuristic: a function of `rewards/heuristics.py`.
    - oracle: the verifier. For an unfinished path, the share of correct rollouts. The oracle sees
      the truth.
    - random: random numbers, for control experiments.

    `answer_guidance` separates the tree from the answer: the tree grows by `guidance`, and the
    finished solutions get the values of `answer_guidance` when an answer is chosen. A control with
    random values in the tree then has the same rule for its answer as the search. With the value
    judge, a second reward model, the `judge` of a stage, gives these values: it scores the end of
    each finished solution, as the guidance outcome does. A tree's `stop_score` is a value of
    `guidance` nevertheless. Strategies that need values only to choose an answer, such as
    independent samples, ask `answer_guidance` in place of `guidance`, for `stop_score` too.

    `likelihood_weight` weighs log pi(solution | prompt), which is a sum over the solution's tokens.
    It is useful where all solutions of a problem have about the same length, as in Countdown. Where
    lengths differ, it prefers short solutions whatever the reward model says: leave it at 0.

    A search stops when it reaches one of its limits, and answers with the solutions that it has.
    It exceeds a limit by at most the batch that was running. With `max_seconds`, results depend on
    the speed of the machine.
    """

    guidance: str = "prm"
    """What gives paths their values: prm, outcome, likelihood, ... (see search/settings.py)."""
    aggregate: str = "last"
    """How the scores of a path's steps become one value: last, min, product or mean."""
    heuristic: str = ""
    """Function in rewards/heuristics.py, for the guidance heuristic."""
    question: str = "\nIs this correct so far? Answer:"
    """Question that follows a path, for the guidance self_evaluation."""
    yes: str = " yes"
    """Answer to `question` that means correct."""
    no: str = " no"
    """Answer to `question` that means wrong."""
    guidance_rollouts: int = 4
    """Rollouts per unfinished path, for the guidances self_consistency and oracle."""
    answer_guidance: str = ""
    """What gives the values that choose the answer: a guidance, or judge; empty: `guidance`."""
    answer: str = "score"
    """How one solution is chosen: score, weighted_vote, majority, first or oracle."""
    likelihood_weight: float = 0.0
    """Weight of log pi(solution | prompt) in the choice by score; 0 where lengths differ."""
    temperature: float = 1.0
    """Sampling temperature, at least 0; 0 is greedy."""
    max_step_tokens: int = 24
    """Limit of one step, in tokens."""
    max_new_tokens: int = 64
    """Limit of one solution, in tokens after the prompt."""
    max_depth: int = 8
    """Limit of one solution, in steps."""
    stop_score: float = 0.0
    """Guidance value of a finished solution at which a search stops early; 0: never."""
    max_generated_tokens: int = 0
    """Tokens that a search may generate per problem; 0: no limit."""
    max_flops: float = 0.0
    """FLOPs of policy and reward models that a search may spend per problem; 0: no limit."""
    max_seconds: float = 0.0
    """Seconds that a search may take per problem; 0: no limit."""
    kept_prefixes_mib: int = 0
    """Memory for keys and values of prefixes, MiB per model and process; 0: none are kept."""

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("guidance", self.guidance, GUIDANCES),
            ("aggregate", self.aggregate, tuple(AGGREGATES)),
            ("answer", self.answer, ANSWERS),
            ("answer_guidance", self.answer_guidance, ANSWER_GUIDANCES),
        ):
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}; allowed: {', '.join(allowed)}")
        if self.guidance == "heuristic" and self.heuristic not in HEURISTICS:
            raise ValueError(f"heuristic is {self.heuristic!r}; allowed: {', '.join(HEURISTICS)}")
        for name in ("max_step_tokens", "max_new_tokens", "max_depth", "guidance_rollouts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in (
            "temperature", "likelihood_weight", "max_generated_tokens", "max_flops", "max_seconds",
            "kept_prefixes_mib",
        ):  # fmt: skip
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")

        if not 0 <= self.stop_score <= 1:
            raise ValueError(f"stop_score is {self.stop_score}; it must be in [0, 1]")
        if self.stop_score and self.guidance == "self_consistency":
            raise ValueError(
                "stop_score needs a guidance whose value of a solution does not depend on the "
                "other solutions; self_consistency gives the first solution the value 1"
            )

    @property
    def needs_scores(self) -> bool:
        """Whether the answer is chosen by scores."""
        return self.answer in ("score", "weighted_vote")

    @property
    def choosing_guidance(self) -> str:
        """The guidance whose values choose the answer."""
        return self.answer_guidance or self.guidance

    @property
    def needs_judge(self) -> bool:
        """Whether a judge chooses the answer."""
        return self.answer_guidance == JUDGE


def check_budgets(budgets: tuple[int, ...], *, nested: bool) -> None:
    """Raises ValueError when budgets are empty, not ascending or below 1. If `nested` is false, the
    strategy takes one budget only, and several budgets raise ValueError too."""
    if not budgets or list(budgets) != sorted(set(budgets)):
        raise ValueError(f"budgets is {budgets}; it must be ascending and not empty")
    if budgets[0] < 1:
        raise ValueError(f"the smallest of budgets is {budgets[0]}; it must be at least 1")
    if not nested and len(budgets) > 1:
        raise ValueError(
            f"budgets is {budgets}; this strategy takes one budget: run it once per budget"
        )
