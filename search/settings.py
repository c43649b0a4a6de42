"""What every strategy shares: how it samples, what guides it, how it answers, what it may spend."""

from __future__ import annotations

from dataclasses import dataclass

from rewards.aggregate import AGGREGATES
from rewards.heuristics import HEURISTICS

GUIDANCES = (
    "prm", "outcome", "likelihood", "entropy", "self_evaluation", "self_consistency",
    "heuristic", "oracle", "random",
)  # fmt: skip
ANSWERS = ("score", "weighted_vote", "majority", "first", "oracle")


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """What every search has: how paths are valued, how an answer is chosen, and the limits.

    `guidance` values a path, partial or finished, in [0, 1] (search/guidance.py):
    - prm: the process reward model, a path's steps aggregated by `aggregate`;
    - outcome: an outcome reward model, read at the path's end alone;
    - likelihood: exp(mean log-probability per token), the policy's own confidence;
    - entropy: exp(-mean entropy per token);
    - self_evaluation: P(yes) when the policy itself is asked `question`;
    - self_consistency: the share of the most frequent answer among `guidance_rollouts` rollouts;
      for a finished solution, the share of its answer among those finished so far;
    - heuristic: a function of `rewards/heuristics.py`;
    - oracle: the verifier; for an unfinished path its share of correct rollouts. It sees the truth;
    - random: random numbers, for controls.

    A search stops when it has spent one of its limits, and answers with what it has. It never
    spends more than what was in flight over the limit. A limit of `max_seconds` makes results
    depend on the machine.
    """

    guidance: str = "prm"
    """What values a path: prm, outcome, likelihood, entropy, self_evaluation, ... (see above)."""
    aggregate: str = "last"
    """How the scores of a path's steps become one value: last, min, product or mean."""
    heuristic: str = ""
    """Function in rewards/heuristics.py, where guidance is heuristic."""
    question: str = "\nIs this correct so far? Answer:"
    """Question that follows a path, where guidance is self_evaluation."""
    yes: str = " yes"
    """Answer to the question that means correct."""
    no: str = " no"
    """Answer to the question that means wrong."""
    guidance_rollouts: int = 4
    """Rollouts per path, where guidance is self_consistency or oracle."""
    answer: str = "score"
    """How one solution is chosen: score, weighted_vote, majority, first or oracle."""
    likelihood_weight: float = 0.0
    """Weight of the mean log-probability per token in the choice of an answer; 0: none."""
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
    """FLOPs of policy and reward model that a search may spend per problem; 0: no limit."""
    max_seconds: float = 0.0
    """Seconds that a search may take per problem; 0: no limit."""

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("guidance", self.guidance, GUIDANCES),
            ("aggregate", self.aggregate, tuple(AGGREGATES)),
            ("answer", self.answer, ANSWERS),
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
        ):  # fmt: skip
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")

        if not 0 <= self.stop_score <= 1:
            raise ValueError(f"stop_score is {self.stop_score}; it must be in [0, 1]")
        if self.stop_score and self.guidance == "self_consistency":
            raise ValueError(
                "stop_score needs a value of each solution by itself; the guidance "
                "self_consistency gives the first one 1"
            )

    @property
    def needs_scores(self) -> bool:
        """Whether the answer is chosen by scores."""
        return self.answer in ("score", "weighted_vote")


def check_budgets(budgets: tuple[int, ...], *, nested: bool) -> None:
    """Raises ValueError for budgets that are empty, not ascending or below 1, and for several of
    them where a strategy answers at one (not `nested`)."""
    if not budgets or list(budgets) != sorted(set(budgets)):
        raise ValueError(f"budgets is {budgets}; it must be ascending and not empty")
    if budgets[0] < 1:
        raise ValueError(f"the smallest of budgets is {budgets[0]}; it must be at least 1")
    if not nested and len(budgets) > 1:
        raise ValueError(
            f"budgets is {budgets}; this strategy has one budget: run it again for another"
        )
