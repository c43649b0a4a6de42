"""Every gain of a run beside its controls: what remains of it over the simplest thing that costs
about the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trainer.measures.results import Comparison, EvaluationResults
from trainer.report.learner_curves import Lineage
from trainer.runtime.further_updates import learner_of_control

FINAL = "final_vs_sft_greedy"
SEARCH = "mcts_vs_greedy"
# The controls of a tree search, by the name of the comparison with them.
SEARCH_CONTROLS = {
    "mcts_vs_uniform_control": "the same tree with random values and uniform priors, the same rule "
    "for the answer",
    "mcts_vs_best_of_n": "best of N with the same reward model and rule for the answer",
}
MORE_UPDATES = "as many further updates on the demonstrations alone"


@dataclass(frozen=True, kw_only=True)
class Control:
    """What remains of a gain over a control, with its 95 % interval. `comparison` is its key in
    `comparisons`."""

    control: str
    comparison: str
    difference: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Gain:
    """A gain, with its 95 % interval, and its controls. `missing` names controls that the run does
    not have."""

    comparison: str
    difference: float
    low: float
    high: float
    controls: list[Control]
    missing: list[str]


def gains_of(evaluation: EvaluationResults, lineage: Lineage) -> list[Gain]:
    """The gains of learners over the policies that they started from, and of tree search over
    greedy decoding."""
    compared, found = evaluation.comparisons, list[Gain]()
    greedy = [row.policy for row in evaluation.accuracy if row.strategy == "greedy"]
    learners = [name for name in greedy if name in lineage.folders and not lineage.is_control(name)]
    for one in learners:
        for other in learners:
            last = one == learners[-1] and other == learners[0]
            name = FINAL if last and FINAL in compared else f"{one}_vs_{other}"
            if name in compared and one != other and other in lineage.ancestry(one):
                found.append(_learner_gain(name, one, compared, lineage))
    if SEARCH in compared:
        found.append(_gain(SEARCH, compared, SEARCH_CONTROLS))
    return found


def _learner_gain(
    name: str, learner: str, compared: Mapping[str, Comparison], lineage: Lineage
) -> Gain:
    own = [stage for stage, m in lineage.manifests.items() if learner_of_control(m) == learner]
    controls = {f"{learner}_vs_{stage}": MORE_UPDATES for stage in own}
    return _gain(name, compared, controls or {f"{learner}_vs_more_updates": MORE_UPDATES})


def _gain(name: str, compared: Mapping[str, Comparison], controls: Mapping[str, str]) -> Gain:
    gain = compared[name]
    return Gain(
        comparison=name,
        difference=gain.difference,
        low=gain.low,
        high=gain.high,
        controls=[
            Control(
                control=text,
                comparison=key,
                difference=compared[key].difference,
                low=compared[key].low,
                high=compared[key].high,
            )
            for key, text in controls.items()
            if key in compared
        ],
        missing=[text for key, text in controls.items() if key not in compared],
    )
