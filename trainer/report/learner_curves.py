"""Curves of each learner's accuracy against its sampled tokens, from the stage folders alone.

The inputs in the manifests say which stages trained a policy. All learners share the cost of the
first policy and of the reward model. The other stages of a policy belong to its learner alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.row_files import read_whole_lines
from search.labellers.evidence import wilson_interval
from trainer.measures.results import AccuracyRow
from trainer.runtime.further_updates import learner_of_control
from trainer.runtime.row_files import EVALUATIONS, METRICS
from trainer.runtime.stage_registry import STAGES

CYCLE_COLUMNS = ("cycle", "kl", "length", "entropy", "reward", "correct", "score")
MAX_CYCLES = 400  # most cycles of a run that the report draws


@dataclass(frozen=True, kw_only=True)
class Point:
    """The accuracy of `policy` (or of a stage that leads to a policy), with its 95 % interval, on n
    problems. `sampled_tokens` counts the tokens that the policy had sampled to learn from."""

    policy: str
    sampled_tokens: int
    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, kw_only=True)
class LearnerCurve:
    """The curve of one learner. `test` holds its evaluated policies, with the first policy at 0
    tokens. `validation` holds the measurements during training. `name` is the stage of the last
    policy."""

    name: str
    sampled_tokens: int
    test: list[Point]
    validation: list[Point] = field(default_factory=list[Point])


@dataclass(frozen=True, kw_only=True)
class PPORunCurve:
    """A PPO stage: its settings, the rows of its cycles and the rows of its evaluations. `problems`
    is the number of problems per evaluation."""

    stage: str
    outcome: str
    shape: str
    critic: str
    stopped: str
    problems: int | None
    sampled_tokens: int
    cycles: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class TrainingCost:
    """An evaluated policy, its accuracy with a 95 % interval on n problems, and the cost of all
    stages that led to it. `after` is the evaluated policy that it continues, None for the first.
    A gate whose incumbent stays adds the cost of the candidate, and continues the incumbent."""

    policy: str
    after: str | None
    training_flops: float
    training_seconds: float
    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """The complete stage folders by name, in the order of the run, and their manifests."""

    folders: Mapping[str, Path]
    manifests: Mapping[str, Mapping[str, Any]]

    def parents(self, name: str) -> list[str]:
        """The stages whose folders or files a stage read."""
        by_path = {folder.resolve(): stage for stage, folder in self.folders.items()}
        found: list[str] = []
        for source in self.manifests[name].get("inputs", {}).values():
            path = (self.folders[name] / source["source"]).resolve()
            found += [by_path[p] for p in (path, path.parent) if p in by_path][:1]
        return list(dict.fromkeys(found))

    def ancestry(self, name: str) -> set[str]:
        """The stage and all stages that it depends on."""
        found = {name}
        for parent in self.parents(name):
            found |= self.ancestry(parent)
        return found

    def refused(self, name: str) -> set[str]:
        """The stages that led only to a candidate that a gate on the way to `name` refused: what
        they trained is no part of the policy, but was paid for."""
        found: set[str] = set()
        for gate in self.ancestry(name):
            judged = self.manifests[gate]["metrics"].get("gate")
            if judged is None or judged["accepted"]:
                continue
            candidate, incumbent = self._input(gate, "candidate"), self._input(gate, "incumbent")
            if candidate is not None:  # a round of expert iteration has its candidate inside
                kept = self.ancestry(incumbent) if incumbent is not None else set[str]()
                found |= self.ancestry(candidate) - kept
        return found

    def _input(self, name: str, key: str) -> str | None:
        """The stage that wrote an input of a stage; None for other inputs."""
        source = self.manifests[name].get("inputs", {}).get(key)
        path = (self.folders[name] / source["source"]).resolve() if source else None
        return next((s for s, folder in self.folders.items() if folder.resolve() == path), None)

    def is_control(self, name: str) -> bool:
        """Whether the stage trained on the demonstrations alone, as the control of a learner."""
        return learner_of_control(self.manifests[name]) is not None

    def sampled_tokens(self, name: str) -> int:
        """The tokens that the policy sampled in this stage to learn from. Searches and labels count
        completely; reinforcement learning counts without its evaluations. The solutions of a gate
        do not count, because nothing learns from them."""
        manifest = self.manifests[name]
        entry = STAGES.get(manifest["stage"])
        source = entry.sampled_tokens if entry else "metric"
        if source == "ledger":
            rows = manifest["usage"]["ledger"]
            return sum(row["generated_tokens"] for row in rows if row["model"] == "policy")
        if source == "cycles":
            return round(sum(map(_sampled, _rows(self.folders[name] / METRICS))))
        return manifest["metrics"].get("sampled_tokens", 0)


def learner_curves(
    lineage: Lineage, greedy: Mapping[str, AccuracyRow], reward_model: str | None
) -> list[LearnerCurve]:
    """A curve for each evaluated policy that no other evaluated policy depends on. `greedy` holds
    the test accuracies by policy, with the first policy first. `reward_model` is the name of a
    stage."""
    known = [name for name in greedy if name in lineage.folders and not lineage.is_control(name)]
    if not known:
        return []
    first = known[0]
    common = lineage.ancestry(first)
    if reward_model in lineage.folders and first in lineage.ancestry(str(reward_model)):
        own = lineage.ancestry(str(reward_model))
        if not own & set(known[1:]):  # a reward model of a later policy is no common ground
            common |= own
    chains = {name: lineage.ancestry(name) for name in known[1:] if name not in common}
    ends = [name for name in chains if not any(name in c for n, c in chains.items() if n != name)]
    return [_curve(lineage, greedy, end, chains[end], first, common) for end in ends]


def _curve(
    lineage: Lineage,
    greedy: Mapping[str, AccuracyRow],
    end: str,
    chain: set[str],
    first: str,
    common: set[str],
) -> LearnerCurve:
    def spent(name: str) -> int:
        return sum(lineage.sampled_tokens(stage) for stage in lineage.ancestry(name) - common)

    ordered = [name for name in lineage.folders if name in chain - common]
    test = [
        Point(
            policy=name,
            sampled_tokens=spent(name),
            value=greedy[name].value,
            low=greedy[name].low,
            high=greedy[name].high,
            n=greedy[name].n,
        )
        for name in (first, *ordered)
        if name in greedy
    ]
    validation: list[Point] = []
    for name in ordered:
        validation += _measured(lineage, name, spent(name), test[0].policy, first=not validation)
    return LearnerCurve(name=end, sampled_tokens=spent(end), test=test, validation=validation)


def _measured(lineage: Lineage, name: str, total: int, start: str, *, first: bool) -> list[Point]:
    """A stage's accuracies on validation problems: at its gate, or during training."""
    manifest = lineage.manifests[name]
    gate = manifest["metrics"].get("gate")
    if gate:
        kept = gate["candidate_accuracy" if gate["accepted"] else "incumbent_accuracy"]
        before = [_point(start, 0, gate["incumbent_accuracy"], gate["n"])] if first else []
        return [*before, _point(name, total, kept, gate["n"])]
    own = lineage.sampled_tokens(name)
    cycles = _rows(lineage.folders[name] / METRICS)
    points: list[Point] = []
    for row in _rows(lineage.folders[name] / EVALUATIONS):
        so_far = row.get("sampled_tokens")
        if so_far is None:
            so_far = round(sum(_sampled(c) for c in cycles if c["cycle"] < row["cycle"]))
        n = row.get("problems") or manifest["metrics"]["held_out_problems"]
        points.append(_point(name, total - own + so_far, row["accuracy"], n))
    return points


@dataclass(frozen=True, kw_only=True)
class SupervisedCurve:
    """The validation accuracies of a training on demonstrations by optimizer steps. `best_update`
    is the one whose weights were kept."""

    stage: str
    updates: list[int]
    points: list[Point]
    best_update: int
    stopped_early: bool
    still_rising: bool


def supervised_curves(lineage: Lineage) -> list[SupervisedCurve]:
    """The curves of all trainings on demonstrations that measured their accuracy."""
    found: list[SupervisedCurve] = []
    for name, manifest in lineage.manifests.items():
        metrics = manifest["metrics"]
        if "still_rising" not in metrics:
            continue
        rows = _rows(lineage.folders[name] / EVALUATIONS)
        found.append(
            SupervisedCurve(
                stage=name,
                updates=[row["cycle"] for row in rows],
                points=[_point(name, 0, row["accuracy"], row["problems"]) for row in rows],
                best_update=metrics["best_update"],
                stopped_early=metrics["stopped_early"],
                still_rising=metrics["still_rising"],
            )
        )
    return found


def _point(policy: str, sampled_tokens: int, value: float, n: int) -> Point:
    low, high = wilson_interval(value, n)
    return Point(policy=policy, sampled_tokens=sampled_tokens, value=value, low=low, high=high, n=n)


def ppo_runs(lineage: Lineage) -> list[PPORunCurve]:
    """The cycles and evaluations of each PPO stage: the reward model's scores next to the
    verifier's verdicts."""
    found: list[PPORunCurve] = []
    for name, manifest in lineage.manifests.items():
        entry = STAGES.get(manifest["stage"])
        if entry is None or entry.sampled_tokens != "cycles":
            continue
        cycles = _rows(lineage.folders[name] / METRICS)
        step = -(-len(cycles) // MAX_CYCLES) or 1
        metrics, recipe = manifest["metrics"], manifest["recipe"]
        found.append(
            PPORunCurve(
                stage=name,
                outcome=recipe["outcome"],
                shape=recipe["shape"],
                critic=recipe["critic"],
                stopped=metrics["stopped"],
                problems=metrics.get("held_out_problems"),
                sampled_tokens=lineage.sampled_tokens(name),
                cycles=[{c: row.get(c) for c in CYCLE_COLUMNS} for row in cycles[::step]],
                evaluations=_rows(lineage.folders[name] / EVALUATIONS),
            )
        )
    return found


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in read_whole_lines(path)] if path.exists() else []


def training_curve(
    lineage: Lineage, greedy: Mapping[str, AccuracyRow], seconds: Mapping[str, float]
) -> list[TrainingCost]:
    """The evaluated policies with their costs, in the order of the run. `seconds` holds wall times
    by stage."""
    costs: list[TrainingCost] = []
    for name in lineage.folders:
        if name not in greedy or lineage.is_control(name):
            continue
        own, refused = lineage.ancestry(name), lineage.refused(name)
        before = [cost.policy for cost in costs if cost.policy in own - refused]
        stages = [stage for stage in lineage.folders if stage in own]
        ledgers = [lineage.manifests[stage]["usage"]["ledger"] for stage in stages]
        costs.append(
            TrainingCost(
                policy=name,
                after=before[-1] if before else None,
                training_flops=sum(row["flops"] for ledger in ledgers for row in ledger),
                training_seconds=sum(seconds[stage] for stage in stages),
                value=greedy[name].value,
                low=greedy[name].low,
                high=greedy[name].high,
                n=greedy[name].n,
            )
        )
    return costs


def _sampled(cycle: Mapping[str, Any]) -> float:
    """The tokens that a cycle sampled, with those that online filtering left out and those of the
    rollouts from steps."""
    return cycle["tokens"] + cycle.get("filtered_tokens", 0) + cycle.get("value_tokens", 0)
