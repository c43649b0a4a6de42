"""The results of the measuring stages: the content of evaluation.json, comparison.json, prm.json
and audit.json. A file holds `asdict` of one of these classes. `data.json_records` reads it back
into the same class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from data.behaviours import BehaviourRates
from trainer.measures.best_of_n import BestOfN, OverOptimisation
from trainer.measures.label_errors import AuditRow, UndecidedCoverage
from trainer.measures.score_quality import ReliabilityBin
from trainer.measures.statistics import Estimate


@dataclass(frozen=True, kw_only=True)
class AccuracyRow:
    """Accuracy of one policy with one strategy and budget. Tokens and FLOPs are means per problem,
    and FLOPs include the reward model's. `repeated_flops` is the part of `flops` that an engine
    with kept prefixes does not compute (`data.types.ModelUsage`). `visited_share` is the share of
    the tree of all legal steps that a tree search visited. It is given for the largest budget, if
    the task can count the tree."""

    policy: str
    strategy: str
    budget: int
    n: int
    value: float
    low: float
    high: float
    format_rate: float
    truncation_rate: float
    generated_tokens: float
    policy_flops: float
    reward_flops: float
    flops: float
    repeated_flops: float = 0.0
    visited_share: float | None = None

    @property
    def flops_with_kept_prefixes(self) -> float:
        return self.flops - self.repeated_flops


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The difference between two accuracies on the same problems, with its 95 % interval."""

    difference: float
    low: float
    high: float
    n: int
    metric: str


@dataclass(frozen=True, kw_only=True)
class AurocRow:
    """How well scores tell apart the prefixes of one problem (`trainer.evaluation.auroc_by_depth`).

    `truth` is "reach" or "success". `steps` says which prefixes: "unfinished", "depth 1",
    "depth 2", ... (unfinished ones of so many steps) or "finished". `evidence` says where the truth
    comes from. `mean` is the mean of the truth, None without prefixes. `auroc` is None if no two
    prefixes of one problem differ; `pairs` counts those that do."""

    truth: str
    steps: str
    evidence: str
    prefixes: int
    mean: float | None
    auroc: Estimate | None
    pairs: int


@dataclass(frozen=True, kw_only=True)
class PRMQuality:
    """Measures of `trainer.measures.score_quality`; scripts/evaluate_prm.py measures more."""

    auroc: float | None  # None if no two prefixes of one problem differ
    auroc_low: float | None
    auroc_high: float | None
    pairs: int
    brier_skill: float | None  # None if the success rates do not differ by more than their noise
    calibration_error: float
    prefixes: int
    rollouts_per_prefix: int
    reliability: tuple[ReliabilityBin, ...]
    auroc_by_depth: tuple[AurocRow, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DataMaking:
    """How much training data a method makes, and its cost over all problems. `computed_flops` are
    without those of kept prefixes, if the method keeps prefixes."""

    method: str
    problems: int
    solved: int
    distinct_solutions: int
    tokens: int
    flops: float
    computed_flops: float
    solved_per_million_tokens: float
    distinct_per_million_tokens: float
    distinct_per_tflop: float


@dataclass(frozen=True, kw_only=True)
class PolicyBehaviours:
    """The reasoning behaviours in a policy's greedy solutions (data/behaviours.py)."""

    policy: str
    rates: BehaviourRates


@dataclass(frozen=True, kw_only=True)
class ThinkingRow:
    """The thoughts of one greedy chain per problem at one budget, in tokens: their mean length, and
    the shares that were cut and extended."""

    policy: str
    budget: int
    thinking_tokens: float
    cut: float
    extended: float


@dataclass(frozen=True, kw_only=True)
class ScalingFit:
    """The least-squares line of accuracy over log2(FLOPs per problem), of one policy and strategy
    at `points` budgets between `low_flops` and `high_flops`. `slope` is in accuracy per
    doubling."""

    policy: str
    strategy: str
    points: int
    low_flops: float
    high_flops: float
    slope: Estimate


GREEDY_OUTCOMES = "greedy_outcomes.json"


@dataclass(frozen=True, kw_only=True)
class GreedyOutcomes:
    """The content of greedy_outcomes.json: for each policy, which problems its greedy answers
    solve, and the problems' clusters."""

    groups: tuple[str, ...]
    solved: Mapping[str, tuple[bool, ...]]


@dataclass(frozen=True, kw_only=True)
class EvaluationResults:
    """The content of evaluation.json. `comparisons` are sorted by name. Without a search `prm` is
    None and `data_making` is empty. `behaviours` and `thinking` are those of policies that
    think. `scaling` has the searches with at least two budgets."""

    accuracy: tuple[AccuracyRow, ...]
    comparisons: Mapping[str, Comparison]
    prm: PRMQuality | None
    data_making: tuple[DataMaking, ...]
    behaviours: tuple[PolicyBehaviours, ...] = ()
    thinking: tuple[ThinkingRow, ...] = ()
    scaling: tuple[ScalingFit, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EqualFlopsRow:
    """The accuracy of a strategy at one budget, minus that of best of N at about the same FLOPs.
    With `kept_prefixes`, the FLOPs of both sides are those of an engine that keeps prefixes."""

    strategy: str
    budget: int
    difference: float
    low: float
    high: float
    n: int
    metric: str
    kept_prefixes: bool = False


@dataclass(frozen=True, kw_only=True)
class Growth:
    """`last_minus_first` and `slope` (accuracy per doubling of the budget) are fractions.
    `adjacent_drops` holds Holm-adjusted one-sided p-values (`paired_p_value`) of the test whether a
    budget is worse than the one before."""

    strategy: str
    budgets: tuple[int, ...]
    last_minus_first: Estimate
    slope: Estimate
    adjacent_drops: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Match:
    """The smallest budget at which a strategy is no worse than the target by more than the margin
    (lower end of the paired 95 % interval), and its FLOPs over the target's; None: at no budget."""

    strategy: str
    budget: int | None
    flops_ratio: float | None


@dataclass(frozen=True, kw_only=True)
class StrategyComparison:
    """The content of comparison.json."""

    split: str
    accuracy: tuple[AccuracyRow, ...]
    equal_flops: tuple[EqualFlopsRow, ...]
    growth: tuple[Growth, ...]
    matches: tuple[Match, ...]
    target_best_of_n: int
    margin: float


@dataclass(frozen=True, kw_only=True)
class Aim:
    """The largest calibration error and the least Brier skill."""

    calibration_error: float
    brier_skill: float


@dataclass(frozen=True, kw_only=True)
class CalibrationRow:
    """The calibration on steps of one kind, after one form of recalibration
    (`trainer.measures.recalibration`). `aim` is "met", "missed" or "undecided"."""

    steps: str
    form: str
    scale: float
    shift: float
    temperature: float | None
    fitted_on: int
    measured_on: int
    brier_skill: Estimate | None
    brier_skill_outcomes: Estimate | None
    calibration_error: Estimate
    calibration_error_raw: float
    bins: tuple[ReliabilityBin, ...]
    aim: str


@dataclass(frozen=True, kw_only=True)
class Solvability:
    """Compares scores with the exhaustive solver, which knows for every prefix whether the target
    can still be reached by any policy. A score should estimate this policy's success rate, so only
    the order of scores is compared (`auroc` within problems). `solved_out_of_reach` counts prefixes
    that a rollout solved although the solver could not: with results over the largest value
    allowed."""

    prefixes: int
    in_reach: int
    auroc: Estimate | None
    pairs: int
    score_in_reach: Estimate | None
    score_out_of_reach: Estimate | None
    success_in_reach: Estimate | None
    solved_out_of_reach: int


@dataclass(frozen=True, kw_only=True)
class FirstErrorRow:
    """`trainer.measures.first_errors.FirstErrors` of one source of solutions. Without both kinds of
    solutions on the fitting side there is no threshold."""

    source: str
    truth: str
    solutions: int
    erroneous_solutions: int
    fitting_solutions: int
    left_out: Mapping[str, int]
    threshold: float | None
    erroneous: Estimate | None
    correct: Estimate | None
    f1: Estimate | None


@dataclass(frozen=True, kw_only=True)
class PassAtN:
    """The share of problems that at least one of n samples solves."""

    n: int
    solved: Estimate


@dataclass(frozen=True, kw_only=True)
class RewardModelEvaluation:
    """The content of prm.json. `pools_left_out` counts problems whose prompt does not fit into the
    policy's context."""

    reward_model: str
    policy: str
    split: str
    fitting_split: str
    problems: int
    fitting_problems: int
    samples: int
    rollouts: int
    prefixes: int
    success_rate: Estimate | None
    auroc: Estimate | None
    auroc_pairs: int
    auroc_by_depth: tuple[AurocRow, ...]
    aim: Aim
    calibration: tuple[CalibrationRow, ...]
    solvability: Solvability | None
    first_errors: tuple[FirstErrorRow, ...]
    sample_accuracy: Estimate
    best_of_n: tuple[BestOfN, ...]
    over_optimisation: tuple[OverOptimisation, ...]
    pass_at_n: tuple[PassAtN, ...]
    pools_left_out: int


@dataclass(frozen=True, kw_only=True)
class LabelAudit:
    """The content of audit.json: labels compared with `rollouts` fresh rollouts of each prefix. The
    first of `groups` holds all prefixes."""

    labelled_prefixes: int
    rollouts: int
    reference_rmse: float
    mean_error_by_rows: Estimate
    groups: tuple[AuditRow, ...]
    undecided: UndecidedCoverage


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """The candidate against the incumbent on the `n` problems of the gate. Only the candidate
    solved `wins` of them, and only the incumbent solved `losses`."""

    accepted: bool
    p_value: float
    wins: int
    losses: int
    n: int
    incumbent_accuracy: float
    candidate_accuracy: float
    reason: str


@dataclass(frozen=True, kw_only=True)
class FixedArm:
    """One strategy with one budget for all problems, and its mean FLOPs per problem."""

    name: str
    flops: float
    accuracy: Estimate


@dataclass(frozen=True, kw_only=True)
class RoutingRow:
    """A router at one budget. `flops` are a mean per problem and include `look_flops`, those of the
    look. `fixed` is the best fixed arm that costs no more. The two `against` are the router's
    accuracy minus that of `fixed` and of the best fixed arm at any cost. The oracle chooses with
    the truth at the router's FLOPs; `oracle_gap` is its accuracy minus the router's. `arms` says
    how the problems are shared among the arms."""

    budget: int
    flops: float
    look_flops: float
    accuracy: Estimate
    fixed: FixedArm | None
    against_fixed: Estimate | None
    against_best: Estimate
    oracle: Estimate
    oracle_gap: Estimate
    arms: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class RoutingResults:
    """The content of routing.json. `matched_budget` is the cheapest budget at which the router is
    no worse than the best fixed arm by more than the margin (lower end of the paired 95 %
    interval), and `matched_flops_ratio` its FLOPs over that arm's; None: at no budget.
    `some_arm_right` is the share of problems that at least one arm of the router solves."""

    split: str
    fitted_on: int
    problems: int
    best_fixed: FixedArm
    some_arm_right: Estimate
    rows: tuple[RoutingRow, ...]
    margin: float
    matched_budget: int | None
    matched_flops_ratio: float | None
