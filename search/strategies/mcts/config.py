"""The settings of Monte Carlo tree search."""

from __future__ import annotations

from dataclasses import dataclass

from search.growth import PRIORS
from search.settings import check_budgets

SELECTIONS = ("puct", "uct", "gumbel")


@dataclass(frozen=True, kw_only=True)
class MCTSConfig:
    """`budgets`: numbers of simulations, ascending, at which an answer is taken (with gumbel one
    only: its schedule depends on it). The root's expansion is the first simulation; with gumbel and
    rollouts it is as many as its rollouts make, at most half of all.

    `exploration` is c of PUCT and UCT. gumbel draws `considered` distinct steps at the root (where
    they are rollouts: that many, some of which may begin alike); `gumbel_scale` 0 takes out its
    noise, `c_visit` and `c_scale` are those of sigma. With `commit` the answer begins with the
    root's choice. `distinct` draws proposals until `proposals` of them differ: sampling without
    replacement, with priors "sequence".
    `maximum` backs up the largest value instead of the mean. `parallel` simulations of one tree
    share a batch, kept apart by virtual loss. `widening` w lets a node be expanded again once its
    visits, counted in expansions, exceed (expansions so far)^(1/w); 0: never.
    `use_verifier` values terminal nodes by the verifier (making training data only) and ends after
    `max_solutions` distinct correct ones.
    """

    budgets: tuple[int, ...] = (16,)
    selection: str = "puct"
    exploration: float = 1.0
    considered: int = 16
    gumbel_scale: float = 1.0
    c_visit: float = 50.0
    c_scale: float = 0.1
    commit: bool = False
    proposals: int = 4  # K
    distinct: bool = False
    priors: str = "count"
    rollouts: bool = False
    leaf_value: str = "children"
    leaf_best_weight: float = 1.0
    leaf_rollouts: int = 0
    rollout_weight: float = 0.0
    maximum: bool = False
    score_weight: float = 0.0
    widening: float = 0.0
    parallel: int = 1
    use_verifier: bool = False
    max_solutions: int = 4

    def __post_init__(self) -> None:
        check_budgets(self.budgets, nested=self.selection != "gumbel")
        for name, value, allowed in (
            ("selection", self.selection, SELECTIONS),
            ("priors", self.priors, PRIORS),
            ("leaf_value", self.leaf_value, ("children", "own")),
        ):
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}; allowed: {', '.join(allowed)}")
        for name in ("proposals", "parallel", "considered", "max_solutions"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("leaf_best_weight", "widening", "rollout_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be in [0, 1]")
        for name in ("exploration", "score_weight", "gumbel_scale", "c_visit", "c_scale"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")
        if self.rollouts and self.leaf_rollouts:
            raise ValueError(
                f"leaf_rollouts is {self.leaf_rollouts}; it must be 0 where proposals are rollouts"
            )
        if (self.rollout_weight > 0) != (self.leaf_rollouts > 0):
            raise ValueError(
                f"rollout_weight is {self.rollout_weight} and leaf_rollouts is "
                f"{self.leaf_rollouts}: both must be above 0, or neither"
            )

    @property
    def visits_per_expansion(self) -> int:
        return self.proposals if self.rollouts else 1
