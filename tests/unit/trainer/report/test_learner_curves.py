"""Which tokens a policy was learnt from, and its curve, from stage folders written by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search.labellers.evidence import wilson_interval
from trainer.measures.results import AccuracyRow
from trainer.report.learner_curves import Lineage, learner_curves, ppo_runs, training_curve
from trainer.runtime.manifests import read_manifest, write_manifest


def stage(
    run: Path,
    name: str,
    kind: str,
    reads: tuple[str, ...] = (),
    *,
    generated: int = 0,
    flops: float = 0.0,
    metrics: dict[str, Any] | None = None,
    files: dict[str, list[dict[str, Any]]] | None = None,
) -> None:
    folder = run / name
    folder.mkdir()
    for file, rows in (files or {}).items():
        (folder / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    ledger = [
        {"model": "policy", "kind": "search", "generated_tokens": generated, "flops": flops},
        {"model": "reward", "kind": "search", "generated_tokens": 0, "flops": 0.0},
    ]
    write_manifest(
        folder,
        stage=kind,
        recipe={"outcome": "verifier", "shape": "potential", "critic": "policy"},
        seed=1,
        inputs={f"input_{i}": run / read for i, read in enumerate(reads)},
        usage={"ledger": ledger},
        metrics=metrics or {},
        seconds=1.0,
    )


def gate(before: float, after: float, accepted: bool) -> dict[str, Any]:
    return {
        "gate": {
            "accepted": accepted, "n": 100, "incumbent_accuracy": before,
            "candidate_accuracy": after,
        }
    }  # fmt: skip


@pytest.fixture
def lineage(tmp_path: Path) -> Lineage:
    """Two rounds of expert iteration, PPO on problems of the first search, GRPO, and DPO."""
    run = tmp_path
    stage(run, "data", "data")
    stage(run, "sft", "sft", ("data",), flops=10.0)
    stage(run, "label", "label", ("sft", "data"), generated=50, flops=5.0)
    stage(run, "prm", "prm", ("sft", "label"), flops=20.0)
    stage(run, "search_1", "search", ("sft", "prm", "data"), generated=100, flops=1.0)
    metrics = gate(0.3, 0.4, True)
    stage(run, "round_1", "expert_iteration", ("sft", "search_1"), generated=7, metrics=metrics)
    stage(run, "search_2", "search", ("round_1", "prm"), generated=60)
    metrics = gate(0.4, 0.2, False)
    reads = ("round_1", "search_1", "search_2")
    stage(run, "round_2", "expert_iteration", reads, metrics=metrics, flops=2.0)
    stage(
        run, "export", "export", ("search_1",), files={"problems_by_solve_rate.jsonl": [{"id": 1}]}
    )
    stage(
        run, "ppo", "ppo", ("sft", "export/problems_by_solve_rate.jsonl"), generated=999,
        metrics={"held_out_problems": 50, "stopped": "", "cycles": 2},
        files={
            "metrics.jsonl": [
                {"cycle": i, "tokens": 30.0 + i, "kl": 0.5 * i, "seconds_rollout": 1.0}
                for i in range(2)
            ],
            "evaluations.jsonl": [
                {"cycle": 0, "accuracy": 0.3, "proxy": 0.6},
                {"cycle": 2, "accuracy": 0.5, "proxy": 0.7},
            ],
        },
    )  # fmt: skip
    rows = [{"cycle": 5, "accuracy": 0.35, "problems": 20, "sampled_tokens": 40}]
    stage(
        run, "grpo", "grpo", ("sft",), generated=70, metrics={"sampled_tokens": 60},
        files={"evaluations.jsonl": rows},
    )  # fmt: skip
    names = ("data", "sft", "label", "prm", "search_1", "round_1", "search_2", "round_2", "export",
             "ppo", "grpo")  # fmt: skip
    folders = {name: run / name for name in names}
    manifests = {name: read_manifest(path) for name, path in folders.items()}
    return Lineage(folders=folders, manifests=manifests)


def greedy(*names: str) -> dict[str, AccuracyRow]:
    values = {"sft": 0.3, "round_1": 0.4, "round_2": 0.4, "ppo": 0.5, "grpo": 0.35}
    return {
        name: AccuracyRow(
            policy=name, strategy="greedy", budget=1, n=200, value=values[name],
            low=values[name] - 0.1, high=0.9, format_rate=1.0, truncation_rate=0.0,
            generated_tokens=9.0, policy_flops=1.0, reward_flops=0.0, flops=1.0,
        )
        for name in names
    }  # fmt: skip


def test_what_a_policy_comes_from(lineage: Lineage) -> None:
    assert lineage.parents("ppo") == ["sft", "export"]  # one of them by a file
    assert lineage.ancestry("ppo") == {
        "ppo", "sft", "data", "export", "search_1", "prm", "label",
    }  # fmt: skip


def test_what_was_sampled_to_be_learnt_from(lineage: Lineage) -> None:
    found = {name: lineage.sampled_tokens(name) for name in lineage.folders}
    assert {name: tokens for name, tokens in found.items() if tokens} == {
        "label": 50, "search_1": 100, "search_2": 60,
        "ppo": 61,  # of its cycles, 30 and 31; not of its evaluations
        "grpo": 60,
    }  # fmt: skip


def test_each_learner_has_a_curve(lineage: Lineage) -> None:
    curves = learner_curves(lineage, greedy("sft", "round_1", "round_2", "ppo", "grpo"), "prm")
    by_name = {curve.name: curve for curve in curves}
    assert {name: curve.sampled_tokens for name, curve in by_name.items()} == {
        "round_2": 160, "ppo": 161, "grpo": 60,
    }  # fmt: skip

    def of(name: str, kind: str) -> list[tuple[str, int, float, int]]:
        curve = by_name[name]
        points = curve.test if kind == "test" else curve.validation
        return [(p.policy, p.sampled_tokens, p.value, p.n) for p in points]

    assert of("round_2", "test") == [
        ("sft", 0, 0.3, 200), ("round_1", 100, 0.4, 200), ("round_2", 160, 0.4, 200),
    ]  # fmt: skip
    # A refused candidate leaves the incumbent's accuracy.
    assert of("round_2", "validation") == [
        ("sft", 0, 0.3, 100), ("round_1", 100, 0.4, 100), ("round_2", 160, 0.4, 100),
    ]  # fmt: skip
    # The search that chose the problems was paid before the first cycle.
    assert of("ppo", "validation") == [("ppo", 100, 0.3, 50), ("ppo", 161, 0.5, 50)]
    assert of("grpo", "validation") == [("grpo", 40, 0.35, 20)]
    point = by_name["grpo"].validation[0]
    assert (point.low, point.high) == wilson_interval(0.35, 20)


def test_a_reward_model_that_is_not_shared_is_paid_for(lineage: Lineage) -> None:
    [curve] = learner_curves(lineage, greedy("sft", "round_1"), None)
    assert curve.sampled_tokens == 150  # the search's, and the labels' behind its reward model
    assert learner_curves(lineage, {}, "prm") == []
    assert learner_curves(lineage, greedy("sft"), "prm") == []


def test_training_compute_is_that_of_a_policys_own_stages(lineage: Lineage) -> None:
    spent = dict.fromkeys(lineage.folders, 1.0)
    rows = training_curve(lineage, greedy("sft", "round_1", "round_2", "ppo", "grpo"), spent)
    found = {row.policy: (row.after, row.training_flops) for row in rows}
    assert found == {
        "sft": (None, 10.0), "round_1": ("sft", 36.0), "round_2": ("round_1", 38.0),
        "ppo": ("sft", 36.0), "grpo": ("sft", 10.0),
    }  # fmt: skip
    assert [row.training_seconds for row in rows] == [2.0, 6.0, 8.0, 7.0, 3.0]


def test_ppo_runs_are_shown_cycle_by_cycle(
    lineage: Lineage, monkeypatch: pytest.MonkeyPatch
) -> None:
    [run] = ppo_runs(lineage)
    assert (run.stage, run.shape, run.problems) == ("ppo", "potential", 50)
    assert [row["kl"] for row in run.cycles] == [0.0, 0.5]
    assert "seconds_rollout" not in run.cycles[0] and run.cycles[0]["score"] is None
    assert [row["proxy"] for row in run.evaluations] == [0.6, 0.7]
    monkeypatch.setattr("trainer.report.learner_curves.MAX_CYCLES", 1)
    assert [row["cycle"] for row in ppo_runs(lineage)[0].cycles] == [0]


def gate_stage(
    run: Path, name: str, incumbent: str, candidate: str, metrics: dict[str, Any], flops: float
) -> None:
    """A gate on the folders `incumbent` and `candidate`; its own solutions cost `flops`."""
    (run / name).mkdir()
    row = {"model": "policy", "kind": "search", "generated_tokens": 99, "flops": flops}
    write_manifest(
        run / name, stage="gate", recipe={}, seed=1, usage={"ledger": [row]}, metrics=metrics,
        inputs={"incumbent": run / incumbent, "candidate": run / candidate, "data": run / "data"},
    )  # fmt: skip


@pytest.fixture
def chain(tmp_path: Path) -> Lineage:
    """PPO whose gate keeps the incumbent, and PPO from there whose gate keeps the candidate."""
    run = tmp_path
    stage(run, "data", "data")
    stage(run, "sft", "sft", ("data",), flops=10.0)
    cycles = {"metrics.jsonl": [{"cycle": 0, "tokens": 30.0}]}
    stage(run, "ppo_1", "ppo", ("sft",), flops=100.0, files=cycles)
    gate_stage(run, "gate_1", "sft", "ppo_1", gate(0.3, 0.2, False), 1.0)
    stage(run, "ppo_2", "ppo", ("gate_1",), flops=200.0, files=cycles)
    gate_stage(run, "gate_2", "gate_1", "ppo_2", gate(0.3, 0.5, True), 2.0)
    names = ("data", "sft", "ppo_1", "gate_1", "ppo_2", "gate_2")
    folders = {name: run / name for name in names}
    manifests = {name: read_manifest(path) for name, path in folders.items()}
    return Lineage(folders=folders, manifests=manifests)


def evaluated(*names: str) -> dict[str, AccuracyRow]:
    values = {"sft": 0.3, "ppo_1": 0.2, "gate_1": 0.3, "ppo_2": 0.5, "gate_2": 0.5}
    row = greedy("sft")["sft"]
    return {name: replace(row, policy=name, value=values[name]) for name in names}


def test_a_refused_candidate_is_paid_for_but_not_continued(chain: Lineage) -> None:
    assert chain.refused("ppo_1") == set() and chain.refused("gate_2") == {"ppo_1"}
    spent = dict.fromkeys(chain.folders, 1.0)
    greedy_rows = evaluated("sft", "ppo_1", "gate_1", "ppo_2", "gate_2")
    rows = training_curve(chain, greedy_rows, spent)
    assert [(row.policy, row.after, row.training_flops, row.value) for row in rows] == [
        ("sft", None, 10.0, 0.3),
        ("ppo_1", "sft", 110.0, 0.2),
        ("gate_1", "sft", 111.0, 0.3),  # the incumbent, at the cost of the candidate and the gate
        ("ppo_2", "gate_1", 311.0, 0.5),
        ("gate_2", "ppo_2", 313.0, 0.5),
    ]
    # Without the first gate's policy, the second PPO still goes on from the incumbent.
    rows = training_curve(chain, evaluated("sft", "ppo_1", "ppo_2"), spent)
    assert [(row.policy, row.after) for row in rows] == [
        ("sft", None), ("ppo_1", "sft"), ("ppo_2", "sft"),
    ]  # fmt: skip


def test_the_curve_of_a_chain_ends_at_its_last_gate(chain: Lineage) -> None:
    assert chain.sampled_tokens("gate_1") == 0  # nothing learns from a gate's solutions
    [curve] = learner_curves(chain, evaluated("sft", "gate_1", "gate_2"), None)
    assert (curve.name, curve.sampled_tokens) == ("gate_2", 60)
    assert [(p.policy, p.sampled_tokens, p.value) for p in curve.test] == [
        ("sft", 0, 0.3), ("gate_1", 30, 0.3), ("gate_2", 60, 0.5),
    ]  # fmt: skip
    assert [(p.policy, p.sampled_tokens, p.value) for p in curve.validation] == [
        ("sft", 0, 0.3), ("gate_1", 30, 0.3), ("gate_2", 60, 0.5),
    ]  # fmt: skip
