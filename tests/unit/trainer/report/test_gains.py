"""Gains beside their controls, from stage folders written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainer.measures.results import AccuracyRow, Comparison, EvaluationResults
from trainer.report.console import print_results
from trainer.report.gains import gains_of
from trainer.report.learner_curves import (
    Lineage,
    learner_curves,
    supervised_curves,
    training_curve,
)
from trainer.runtime.further_updates import compared_policies, updates_of, without_controls
from trainer.runtime.manifests import read_manifest, write_manifest
from trainer.runtime.row_files import append_rows
from trainer.runtime.stage import StageRecord


def stage(
    run: Path, name: str, kind: str, reads: tuple[str, ...] = (), *, like: tuple[str, ...] = (),
    **metrics: Any,
) -> None:  # fmt: skip
    (run / name).mkdir()
    write_manifest(
        run / name, stage=kind, recipe={"updates_like": [str(run / n) for n in like]}, seed=1,
        inputs={n: run / n for n in (*reads, *like)}, usage={"ledger": []}, metrics=metrics,
        seconds=1.0,
    )  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    stage(tmp_path, "sft", "sft", still_rising=True, best_update=4, stopped_early=False)
    rows = [{"cycle": i, "accuracy": i / 10, "problems": 50} for i in (0, 2, 4)]
    append_rows(tmp_path / "sft" / "evaluations.jsonl", rows)
    stage(tmp_path, "round_1", "expert_iteration", ("sft",), updates=560)
    stage(tmp_path, "round_2", "expert_iteration", ("round_1",), updates=560)
    stage(tmp_path, "control", "sft", ("sft",), like=("round_1", "round_2"))
    return tmp_path


NAMES = ("sft", "round_1", "round_2", "control")


def lineage_of(run: Path) -> Lineage:
    folders = {name: run / name for name in NAMES}
    return Lineage(folders=folders, manifests={n: read_manifest(p) for n, p in folders.items()})


def evaluated(**differences: float) -> EvaluationResults:
    rows = [
        AccuracyRow(
            policy=name, strategy="greedy", budget=1, n=200, value=0.3, low=0.2, high=0.4,
            format_rate=1.0, truncation_rate=0.0, generated_tokens=9.0, policy_flops=1.0,
            reward_flops=0.0, flops=1.0,
        )
        for name in NAMES
    ]  # fmt: skip
    compared = {
        name: Comparison(difference=d, low=d - 0.02, high=d + 0.02, n=200, metric="")
        for name, d in differences.items()
    }
    return EvaluationResults(accuracy=tuple(rows), comparisons=compared, prm=None, data_making=())


def test_a_gain_is_shown_with_what_remains_over_its_control(run: Path) -> None:
    evaluation = evaluated(
        final_vs_sft_greedy=0.11, round_2_vs_control=0.08, round_1_vs_sft=0.07,
        mcts_vs_greedy=0.3, mcts_vs_best_of_n=-0.01, control_vs_sft=0.03,
    )  # fmt: skip
    gains = {gain.comparison: gain for gain in gains_of(evaluation, lineage_of(run))}
    assert set(gains) == {"final_vs_sft_greedy", "round_1_vs_sft", "mcts_vs_greedy"}
    final = gains["final_vs_sft_greedy"]
    [control] = final.controls
    assert (control.comparison, control.difference) == ("round_2_vs_control", 0.08)
    assert control.low == pytest.approx(0.06)
    assert final.missing == []
    # The control has the updates of both rounds, so it is the second one's alone.
    assert gains["round_1_vs_sft"].missing == [
        "as many further updates on the demonstrations alone"
    ]
    assert [c.comparison for c in gains["mcts_vs_greedy"].controls] == ["mcts_vs_best_of_n"]
    assert gains["mcts_vs_greedy"].missing[0].startswith("the same tree with random values")


def test_a_control_is_no_learner(run: Path) -> None:
    folders = [str(run / name) for name in NAMES]
    assert without_controls(folders) == folders[:3]
    assert compared_policies(folders, []) == {
        "final_vs_sft_greedy": ("round_2", "sft"),
        "round_2_vs_control": ("round_2", "control"),
    }
    assert compared_policies(folders[:2], ["round_1:sft"]) == {"round_1_vs_sft": ("round_1", "sft")}
    lineage = lineage_of(run)
    greedy = {row.policy: row for row in evaluated().accuracy}
    assert [curve.name for curve in learner_curves(lineage, greedy, None)] == ["round_2"]
    costs = training_curve(lineage, greedy, dict.fromkeys(NAMES, 1.0))
    assert [cost.policy for cost in costs] == ["sft", "round_1", "round_2"]


def test_a_control_takes_the_updates_of_its_learners(run: Path) -> None:
    assert updates_of([str(run / "round_1"), str(run / "round_2")]) == 1120
    with pytest.raises(ValueError, match=r"updates_like has .*control', which records no number"):
        updates_of([str(run / "control")])
    stage(run, "gate", "gate", ("round_2",), updates=0)  # as the last one, it names the learner
    assert updates_of([str(run / "round_2"), str(run / "gate")]) == 560
    with pytest.raises(ValueError, match=r"updates_like is '.*gate', which made no update"):
        updates_of([str(run / "gate")])


def test_a_start_that_was_still_rising_is_warned_of(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = StageRecord()
    record.check_start(str(run / "round_1"))
    record.check_start("some/hub-id")
    assert record.metrics == {}
    record.check_start(str(run / "sft"))
    [warning] = record.metrics["warnings"]
    assert "sft' was still rising when its training ended" in warning
    assert capsys.readouterr().out == f"warning: {warning}\n"
    [curve] = supervised_curves(lineage_of(run))
    assert (curve.updates, [p.value for p in curve.points]) == ([0, 2, 4], [0.0, 0.2, 0.4])
    assert (curve.best_update, curve.stopped_early, curve.still_rising) == (4, False, True)


def test_the_console_names_missing_controls(capsys: pytest.CaptureFixture[str]) -> None:
    gain = {"comparison": "final_vs_sft_greedy", "missing": ["more updates"]}
    warning = {"stage": "round_1", "text": "rising"}
    print_results({"accuracy": [], "comparisons": {}, "gains": [gain], "warnings": [warning]})
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [
        "no control of final_vs_sft_greedy: more updates",
        "warning of round_1: rising",
    ]
