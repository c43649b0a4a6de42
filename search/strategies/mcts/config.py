"""The settings of Monte Carlo tree search."""

from __future__ import annotations

from dataclasses import dataclass

from search.growth import PRIORS
from search.settings import check_budgets

SELECTIONS = ("puct", "uct", "gumbel")


@dataclass(frozen=True, kw_only=True)
class MCTSConfig:
    """How a tree is searched. The expansion of the root is the first simulation.

    With gumbel and rollouts, this expansion counts as one simulation per `proposals` rollouts. It
    takes at most half of the budget.
    """

    budgets: tuple[int, ...] = (16,)
    """Numbers of simulations after which an answer is taken, ascending; with gumbel one only."""
    selection: str = "puct"
    """How a simulation chooses its path: puct, uct or gumbel."""
    exploration: float = 1.0
    """Exploration constant c of PUCT and UCT, at least 0."""
    considered_actions: int = 16
    """Steps that gumbel considers at the root, or rollouts at the root, with expand_by_rollouts."""
    gumbel_scale: float = 1.0
    """Factor of gumbel's noise, at least 0; 0: no noise."""
    c_visit: float = 50.0
    """Constant c_visit of gumbel's function sigma, at least 0."""
    c_scale: float = 0.1
    """Constant c_scale of gumbel's function sigma, at least 0."""
    rescale_values: bool = True
    """Rescale the values of a node's children to [0, 1] in gumbel's sigma, as mctx does."""
    answer_from_root_choice: bool = False
    """true: the answer begins with the best step at the root. false: with any step."""
    proposals: int = 4
    """Proposals sampled when a node is expanded (K): steps, or rollouts (expand_by_rollouts)."""
    distinct_proposals: bool = False
    """Sample until `proposals` different steps are there; repetitions are dropped."""
    without_replacement: bool = False
    """Never propose a step twice below a node, or a rollout twice (token trie, 2002.09067)."""
    stop_mass: float = 1e-6
    """A node with at most this share of its probability undrawn is exhausted; 0 to 1."""
    stop_when_settled: bool = True
    """Without replacement, stop when the probability that is left cannot change the answer."""
    priors: str = "count"
    """Prior of a step: count (share of the proposals), sequence (its probability) or uniform."""
    expand_by_rollouts: bool = False
    """Expand a node by whole rollouts instead of single steps."""
    leaf_value: str = "children"
    """Value of a new leaf: children (from its proposals) or own (the leaf's guidance value)."""
    leaf_best_weight: float = 1.0
    """Weight of the best child, against the prior-weighted mean, in a leaf's value; 0 to 1."""
    leaf_rollouts: int = 0
    """Rollouts per leaf whose values enter the value of the leaf; 0: none."""
    rollout_weight: float = 0.0
    """Weight of the leaf's rollouts in the value of the leaf, 0 to 1."""
    max_backup: bool = False
    """Back up the largest value below a node instead of the mean."""
    score_weight: float = 0.0
    """The step's score counts as this many visits in its value Q; at least 0."""
    widening: float = 0.0
    """A node is expanded again when simulations > expansions^(1 / widening). 0 to 1; 0: never."""
    budget_guided: bool = False
    """Explore less and finish more as the budget is used up; replaces widening (BG-MCTS)."""
    completion_weight: float = 1.0
    """Weight of a child's depth, with budget_guided (kappa); at least 0."""
    variance_weight: float = 1.0
    """Weight of the children's variance, with budget_guided (lambda); at least 0."""
    parallel_simulations: int = 1
    """Simulations of one tree in one batch; virtual loss makes them take different paths."""
    use_verifier: bool = False
    """The verifier gives finished solutions their values; only to make training data."""
    max_solutions: int = 4
    """Number of distinct correct solutions at which a search with the verifier ends."""

    def __post_init__(self) -> None:
        check_budgets(self.budgets, nested=self.selection != "gumbel" and not self.budget_guided)
        for name, value, allowed in (
            ("selection", self.selection, SELECTIONS),
            ("priors", self.priors, PRIORS),
            ("leaf_value", self.leaf_value, ("children", "own")),
        ):
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}; allowed: {', '.join(allowed)}")
        for name in ("proposals", "parallel_simulations", "considered_actions", "max_solutions"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("leaf_best_weight", "widening", "rollout_weight", "stop_mass"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be in [0, 1]")
        for name in (
            "exploration", "score_weight", "gumbel_scale", "c_visit", "c_scale",
            "completion_weight", "variance_weight",
        ):  # fmt: skip
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")
        if self.expand_by_rollouts and self.leaf_rollouts:
            raise ValueError(
                f"leaf_rollouts is {self.leaf_rollouts}; it must be 0 with expand_by_rollouts"
            )
        self._check_together()
        if (self.rollout_weight > 0) != (self.leaf_rollouts > 0):
            raise ValueError(
                f"rollout_weight is {self.rollout_weight} and leaf_rollouts is "
                f"{self.leaf_rollouts}: both must be above 0, or neither"
            )

    @property
    def widens(self) -> bool:
        """Whether an expanded node may be expanded again."""
        return self.widening > 0 or self.budget_guided

    def _check_together(self) -> None:
        """Raises ValueError for settings that contradict each other."""
        if self.budget_guided and (self.selection == "gumbel" or self.widening):
            raise ValueError(
                f"selection is {self.selection!r} and widening is {self.widening}; budget_guided "
                "needs puct or uct, and widening 0"
            )
        if not self.without_replacement:
            return
        if self.priors == "count":
            raise ValueError(
                "priors is 'count', but without_replacement proposes every step once; allowed: "
                "sequence, uniform"
            )
        for name in ("distinct_proposals", "leaf_rollouts"):
            if getattr(self, name):
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it does not go with without_replacement"
                )

    @property
    def visits_per_expansion(self) -> int:
        """The number of visits that one expansion of a node gives it."""
        return self.proposals if self.expand_by_rollouts else 1
