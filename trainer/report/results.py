"""Collects every number of a run from its stage folders for results.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data.json_records import read_record, record_from_json
from data.json_rows import numbered_rows
from data.types import Outcome, Problem
from rewards.verifiers.by_name import VERIFIERS
from search.base import solution_text
from search.trees.files import result_from_json
from trainer.measures.results import (
    GREEDY_OUTCOMES,
    EvaluationResults,
    GateResult,
    GreedyOutcomes,
    RewardModelEvaluation,
)
from trainer.report.gains import Gain, gains_of
from trainer.report.learner_curves import (
    LearnerCurve,
    Lineage,
    PPORunCurve,
    SupervisedCurve,
    TrainingCost,
    learner_curves,
    ppo_runs,
    supervised_curves,
    training_curve,
)
from trainer.report.page import SCHEMA_VERSION
from trainer.report.server_work import ServerWork, server_work
from trainer.report.training_scaling import TrainingFit, training_fit
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.ledger import LedgerEntry
from trainer.runtime.manifests import is_complete, read_json, read_manifest
from trainer.runtime.stage_registry import STAGES


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """The sources of a report. results.json and report.html are also copied to the run's folder."""

    stages: list[str]
    """Folders of the run's earlier stages, in order."""
    evaluation: str
    """Folder of the evaluation stage."""
    description: str = ""
    """Text at the top of the report."""
    verifier: str
    """Verifier that judges solutions: math, countdown, code, reasoning_gym, ..."""
    judged_problems: int = 100
    """Problems with a verdict on every solution of their search trees; others: on the answer."""


@dataclass(frozen=True, kw_only=True)
class StageLedgerEntry(LedgerEntry):
    """An entry of the ledger of the stage named `stage`."""

    stage: str


@dataclass(frozen=True, kw_only=True)
class RoundGate(GateResult):
    """The gate of the stage named `round`: a round of expert iteration, or a gate of its own."""

    round: str


@dataclass(frozen=True, kw_only=True)
class StageWarning:
    """What the stage named `stage` warned of."""

    stage: str
    text: str


@dataclass(frozen=True, kw_only=True)
class RunResults:
    """Every number of a run. `stages` holds seconds of wall time per stage. `evaluation` is the
    content of the evaluation stage's evaluation.json. `prm_evaluations` holds the content of each
    prm.json, by the stage's name. `gates`, `ledger` and `servers` come from the stages' manifests.
    Without servers, results.json has no key `servers`."""

    run: str
    seed: int
    task: Mapping[str, str]
    stages: Mapping[str, float]
    evaluation: EvaluationResults
    gains: list[Gain]
    warnings: list[StageWarning]
    supervised: list[SupervisedCurve]
    prm_evaluations: Mapping[str, RewardModelEvaluation]
    training_curve: list[TrainingCost]
    training_fit: TrainingFit | None
    learners: list[LearnerCurve]
    ppo: list[PPORunCurve]
    gates: list[RoundGate]
    ledger: list[StageLedgerEntry]
    servers: list[ServerWork]

    def as_json(self) -> dict[str, Any]:
        """The content of results.json, with the keys of the evaluation at the top level."""
        return {
            "schema_version": SCHEMA_VERSION,
            "run": self.run,
            "seed": self.seed,
            "task": dict(self.task),
            "stages": dict(self.stages),
            **asdict(self.evaluation),
            "gains": [asdict(gain) for gain in self.gains],
            "warnings": [asdict(warning) for warning in self.warnings],
            "supervised": [asdict(curve) for curve in self.supervised],
            "prm_evaluations": [
                {"stage": stage, **asdict(measured)}
                for stage, measured in self.prm_evaluations.items()
            ],
            "training_curve": [asdict(cost) for cost in self.training_curve],
            "training_fit": asdict(self.training_fit) if self.training_fit else None,
            "learners": [asdict(curve) for curve in self.learners],
            "ppo": [asdict(curve) for curve in self.ppo],
            "gates": [_row(gate, "round") for gate in self.gates],
            "ledger": [_row(entry, "stage") for entry in self.ledger],
            **({"servers": [asdict(work) for work in self.servers]} if self.servers else {}),
        }


def _row(record: RoundGate | StageLedgerEntry, name: str) -> dict[str, Any]:
    """The record as JSON: the field `name` first, then the others in the order of their names."""
    values = dict(sorted(asdict(record).items()))
    return {name: values.pop(name), **values}


def collect_results(runtime: RuntimeConfig, config: ReportConfig) -> RunResults:
    """Read the stages' manifests and the evaluation. All values but times depend only on the recipe
    and the seed."""
    evaluation = read_record(EvaluationResults, Path(config.evaluation) / "evaluation.json")
    manifests = {Path(stage).name: read_manifest(Path(stage)) for stage in config.stages}
    spent = {Path(stage).name: seconds_of(Path(stage)) for stage in config.stages}
    greedy = {row.policy: row for row in evaluation.accuracy if row.strategy == "greedy"}
    lineage = Lineage(folders={Path(s).name: Path(s) for s in config.stages}, manifests=manifests)
    ledger: list[StageLedgerEntry] = []
    gates: list[RoundGate] = []
    for name, manifest in manifests.items():
        ledger += [
            record_from_json(StageLedgerEntry, {"stage": name, **row})
            for row in manifest["usage"]["ledger"]
        ]
        if "gate" in manifest["metrics"]:
            gate = {"round": name, **manifest["metrics"]["gate"]}
            gates.append(record_from_json(RoundGate, gate))
    curve = training_curve(lineage, greedy, spent)
    return RunResults(
        run=runtime.run_group or folder_name(runtime),
        seed=runtime.seed,
        task={"verifier": config.verifier, "description": config.description},
        stages=spent,
        evaluation=evaluation,
        gains=gains_of(evaluation, lineage),
        warnings=[
            StageWarning(stage=name, text=text)
            for name, manifest in manifests.items()
            for text in manifest["metrics"].get("warnings", [])
        ],
        supervised=supervised_curves(lineage),
        prm_evaluations=prm_evaluations(Path(runtime.output_dir).parent),
        training_curve=curve,
        training_fit=_training_fit(config, curve, evaluation),
        learners=learner_curves(lineage, greedy, _reward_model(manifests)),
        ppo=ppo_runs(lineage),
        gates=gates,
        ledger=ledger,
        servers=server_work(manifests),
    )


def _training_fit(
    config: ReportConfig, curve: Sequence[TrainingCost], evaluation: EvaluationResults
) -> TrainingFit | None:
    """The fit of the training curve, from the greedy outcomes that the evaluation kept."""
    path = Path(config.evaluation) / GREEDY_OUTCOMES
    if not path.exists():  # an evaluation of an earlier version
        return None
    found = read_record(GreedyOutcomes, path)
    return training_fit(curve, found.solved, found.groups, evaluation.scaling)


def _reward_model(manifests: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The run's first reward model, which all its learners share."""
    kinds = {kind for kind, entry in STAGES.items() if entry.makes_process_reward_model}
    return next((name for name, m in manifests.items() if m["stage"] in kinds), None)


def prm_evaluations(run: Path) -> dict[str, RewardModelEvaluation]:
    """prm.json of every complete stage of the run's folder that wrote one, by the stage's name."""
    found = sorted(path for path in run.glob("*/prm.json") if is_complete(path.parent))
    return {path.parent.name: read_record(RewardModelEvaluation, path) for path in found}


def seconds_of(stage: Path) -> float:
    """Wall time in seconds: over all attempts if a pipeline recorded it, else of the last
    attempt."""
    record = read_json(stage.parent / "stages" / f"{stage.name}.json") or {}
    return record.get("seconds") or read_manifest(stage)["seconds"]


def folder_name(runtime: RuntimeConfig) -> str:
    return Path(runtime.output_dir).parent.name


SEARCHES = {
    "mcts": "mcts",
    "best_of_n": "best_of_n_weighted",
    "mcts_control": "mcts_uniform_control",
}
"""Suffix of a file of trees, and the strategy's name in results.json."""


def report_trees(config: ReportConfig, evaluation: EvaluationResults) -> Iterator[dict[str, Any]]:
    """Yield all trees of the evaluation's searches, those of the last policy first, as rows for
    `pack_trees`. The solutions of the first problems have their verdicts, as has each answer."""
    verdict = _Verdicts(config.verifier)
    for policy in reversed(dict.fromkeys(row.policy for row in evaluation.accuracy)):
        for suffix, search in SEARCHES.items():
            path = Path(config.evaluation) / f"{policy}_{suffix}.jsonl"
            if not path.exists():
                continue
            for place, (_, row) in enumerate(numbered_rows(path)):
                result = result_from_json(row)
                if place < config.judged_problems:
                    for node, item in zip(result.nodes, row["nodes"], strict=True):
                        if node.terminal is not None and item["verdict"] is None:
                            text = solution_text(result.nodes, node.id)
                            item["verdict"] = verdict.of(result.problem, text)
                last = result.snapshots[-1] if result.snapshots else None
                row["search"] = search
                row["outcome"] = (
                    verdict.of(result.problem, last.answer)
                    if last is not None and last.answer is not None and not last.truncated
                    else Outcome.UNVERIFIABLE.value
                )
                yield row


class _Verdicts:
    """Verdicts on solutions; each solution of a problem is judged once."""

    def __init__(self, verifier: str) -> None:
        self.verifier = VERIFIERS[verifier]()
        self.known: dict[tuple[str, str], str] = {}

    def of(self, problem: Problem, text: str) -> str:
        key = (problem.id, text)
        if key not in self.known:
            self.known[key] = self.verifier.verify(problem, text).outcome.value
        return self.known[key]
