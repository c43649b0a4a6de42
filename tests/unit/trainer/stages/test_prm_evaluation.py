"""The evaluation of a reward model: from trees by hand, and the whole stage on tiny models."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from data.json_records import record_from_json
from data.problems import write_problems
from data.tasks.countdown import make_problem
from data.types import Outcome, StopReason, Usage, Verdict
from search.base import Node, SearchResult
from trainer.evaluation.reward_model_results import (
    Bench,
    StepSet,
    aim_of,
    calibrations,
    first_errors,
)
from trainer.evaluation.reward_model_samples import (
    LAST_WEIGHTED,
    TRUTHS,
    candidates,
    judged_solutions,
    solvability,
    step_outcomes,
)
from trainer.evaluation.reward_model_tables import flat_row, reward_model_markdown
from trainer.measures.recalibration import Recalibration
from trainer.measures.results import Aim, RewardModelEvaluation
from trainer.measures.score_quality import Calibration, ScoredPrefix
from trainer.measures.statistics import Estimate
from trainer.models.loading import reward_model_from_policy, save_model
from trainer.report.results import prm_evaluations
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.manifests import read_manifest
from trainer.searching.workbench import Workbench, open_workbench
from trainer.stages.evaluate_prm import EvaluatePRMConfig, run_evaluate_prm

TASK = TRUTHS["countdown"]
PROBLEM = make_problem((2, 3, 4), 14)


def tree(*rows: tuple[int, str, float, dict[str, Any]]) -> SearchResult:
    """Nodes (parent, text, score, fields) from id 1."""
    nodes = [Node(id=0, parent=-1, token_ids=(), text="")]
    for parent, text, score, fields in rows:
        node = Node(id=len(nodes), parent=parent, token_ids=(), text=text, score=score, **fields)
        nodes.append(node)
        nodes[parent].children.append(node.id)
    return SearchResult(
        problem=PROBLEM, strategy="pool", nodes=tuple(nodes), snapshots=(), usage=Usage()
    )


def end(correct: bool, count: int, logprob: float = 0.0) -> dict[str, Any]:
    verdict = Verdict(outcome=Outcome.CORRECT if correct else Outcome.WRONG)
    stop = StopReason.END_OF_SOLUTION
    return {"terminal": stop, "verdict": verdict, "proposals": count, "logprob": logprob}


POOL = tree(
    (0, "3 + 4 = 7 | 2 7\n", 0.8, {"proposals": 5}),
    (1, "2 * 7 = 14 | 14", 0.5, end(True, 3, -1.0)),
    (1, "2 * 7 = 15 | 15", 0.9, end(False, 2, -6.0)),
    (0, "4 - 3 = 1 | 2 1\n", 0.3, {"proposals": 3}),
    (4, "2 + 1 = 3 | 3", 0.2, end(False, 2)),
    (4, "2 + 1 = 14", 0.7, {"terminal": StopReason.LENGTH, "proposals": 1}),
)


def test_candidates_of_a_pool_by_hand() -> None:
    found = candidates(POOL, "last")
    assert [(c.rank, c.proxy, c.correct, c.count) for c in found] == [
        ((1.0, 0.5), 0.5, True, 3),
        ((1.0, 0.9), 0.9, False, 2),
        ((1.0, 0.2), 0.2, False, 2),
        ((0.0, 0.7), 0.7, False, 1),
    ]
    assert [c.proxy for c in candidates(POOL, "min")] == [0.5, 0.8, 0.2, 0.3]
    assert [c.proxy for c in candidates(POOL, "product")] == pytest.approx([0.4, 0.72, 0.06, 0.21])
    assert [c.proxy for c in candidates(POOL, "mean")] == pytest.approx([0.65, 0.85, 0.25, 0.5])
    # log 0.5 - 0.5 against log 0.9 - 3: the likely one, which is right, outranks the other
    weighted = candidates(POOL, LAST_WEIGHTED, 0.5)
    assert weighted[0].rank > weighted[1].rank and weighted[1].proxy == 0.9


def test_first_errors_of_a_pool_by_hand() -> None:
    false, left_out = judged_solutions(
        [POOL], TASK.first_errors["false step"], TASK, per_problem=8, max_value=None
    )
    assert [(s.scores, s.label) for s in false] == [((0.8, 0.5), -1), ((0.8, 0.9), 1)]
    assert left_out == {"wrong without such an error": 1, "cut off": 1}
    hopeless, left_out = judged_solutions(
        [POOL], TASK.first_errors["target out of reach"], TASK, per_problem=3, max_value=None
    )
    assert [s.label for s in hopeless] == [-1, 1, 0] and not left_out
    assert {s.group for s in hopeless} == {PROBLEM.group}
    # With results up to 13 the problem has no solution.
    none, left_out = judged_solutions(
        [POOL], TASK.first_errors["false step"], TASK, per_problem=1, max_value=13
    )
    assert (none, left_out) == ([], {"of a problem without a solution": 1})


def test_every_step_of_every_sample_has_the_samples_outcome() -> None:
    found = step_outcomes([POOL])
    rows = [(p.score, p.correct) for p in found]
    assert rows == (
        [(0.8, 1), (0.5, 1)] * 3 + [(0.8, 0), (0.9, 0)] * 2 + [(0.3, 0), (0.2, 0)] * 2
        + [(0.3, 0), (0.7, 0)]
    )  # fmt: skip
    assert {p.count for p in found} == {1}


def test_a_score_that_is_no_number_is_named() -> None:
    broken = tree((0, "x", float("nan"), end(False, 1)))
    for use in (lambda: candidates(broken, "last"), lambda: step_outcomes([broken])):
        with pytest.raises(ValueError, match="the reward model's score of 'x' is nan"):
            use()


def test_solvability_is_apart_from_success_rates() -> None:
    rows = [
        ("3 + 4 = 7 | 2 7\n", 0.8, 4),
        ("4 - 3 = 1 | 2 1\n", 0.3, 0),
        ("3 + 4 = 8 | 2 8\n", 0.9, 0),
    ]
    probed = tree(*((0, t, s, {"visit_count": 8, "value_sum": float(k)}) for t, s, k in rows))
    prefixes = [
        ScoredPrefix(problem="p", group="g", score=s, correct=k, count=8) for _, s, k in rows
    ]
    found = solvability([probed], prefixes, TASK, None, seed=0)
    assert (found.prefixes, found.in_reach, found.pairs) == (3, 1, 2)
    assert found.auroc is not None and found.auroc.value == 0.5  # above 0.3, below 0.9
    assert found.score_in_reach is not None and found.score_in_reach.value == 0.8
    assert found.score_out_of_reach is not None
    assert found.score_out_of_reach.value == pytest.approx(0.6)
    assert found.success_in_reach is not None and found.success_in_reach.value == 0.5
    assert found.solved_out_of_reach == 0
    capped = solvability([probed], prefixes, TASK, 13, seed=0)
    assert (capped.in_reach, capped.solved_out_of_reach, capped.auroc) == (0, 1, None)


def test_the_aim_is_met_missed_or_undecided() -> None:
    def estimate(low: float, high: float) -> Estimate:
        return Estimate(value=(low + high) / 2, low=low, high=high, n=9)

    def verdict(error: Estimate, skill: Estimate | None) -> str:
        found = Calibration(
            brier_skill=skill, brier_skill_outcomes=None, calibration_error=error,
            calibration_error_raw=0.1, bins=(),
        )  # fmt: skip
        return aim_of(found, Aim(calibration_error=0.05, brier_skill=0.2))

    assert verdict(estimate(0.01, 0.05), estimate(0.2, 0.4)) == "met"
    assert verdict(estimate(0.01, 0.06), estimate(0.2, 0.4)) == "undecided"
    assert verdict(estimate(0.01, 0.04), estimate(0.1, 0.4)) == "undecided"
    assert verdict(estimate(0.06, 0.09), estimate(0.3, 0.4)) == "missed"
    assert verdict(estimate(0.01, 0.04), estimate(0.0, 0.19)) == "missed"
    assert verdict(estimate(0.01, 0.04), None) == "missed"


def test_what_is_fitted_never_sees_what_is_measured() -> None:
    """The fitting side says scores of 0.5 stand for 1/4, the measured side for 3/4."""
    low = [ScoredPrefix(problem="a", group="a", score=0.5, correct=2, count=8)] * 4
    high = [ScoredPrefix(problem="b", group="b", score=0.5, correct=6, count=8)] * 4
    rows = calibrations(
        {"some": StepSet(fitting=low, measured=high), "none": StepSet(fitting=low, measured=[])},
        Aim(calibration_error=0.05, brier_skill=0.2), bins=10, seed=0,
    )  # fmt: skip
    assert [row.form for row in rows] == ["none", "temperature", "platt"]
    assert [row.calibration_error_raw for row in rows] == pytest.approx([0.25, 0.25, 0.5], abs=0.01)
    platt = Recalibration(form="platt", scale=rows[2].scale, shift=rows[2].shift)
    assert platt.apply(low)[0].score == pytest.approx(0.25, abs=0.01)


def test_a_threshold_needs_both_kinds_on_the_fitting_side() -> None:
    judged, left_out = judged_solutions(
        [POOL], TASK.first_errors["false step"], TASK, per_problem=8, max_value=None
    )
    bench = Bench(source="s", truth="t", fitting=judged, measured=judged, left_out=left_out)
    row = first_errors(bench, seed=0)
    assert (row.solutions, row.erroneous_solutions) == (2, 1)
    # No threshold puts 0.9 below and 0.8 not: no F1. Of thresholds with F1 0, the lowest.
    assert row.f1 is not None and row.correct is not None
    assert (row.threshold, row.f1.value, row.correct.value) == (0.5, 0.0, 1.0)
    row = first_errors(replace(bench, fitting=judged[:1]), seed=0)
    assert (row.threshold, row.f1, row.fitting_solutions) == (None, None, 1)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"split": "validation"}, "split and fitting_split are both 'validation'"),
        ({"rollouts": 1}, "rollouts is 1; it must be at least 2"),
        ({"process_bench": ("a",)}, "process_bench needs process_bench_fitting"),
        ({"process_bench": ("a",), "process_bench_fitting": "a"}, "which process_bench also holds"),
        ({"process_bench_prompt": "hashed"}, "process_bench_prompt is 'hashed'; allowed: question"),
    ],
)
def test_wrong_settings_are_named(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        EvaluatePRMConfig(
            **{
                "policy": "p",
                "reward_model": "r",
                "data": "d",
                "verifier": "countdown",
                "max_new_tokens": 64,
            }
            | fields
        )


@pytest.fixture(scope="module")
def models(tiny_policy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random policy and reward model, problems, and ProcessBench rows of Countdown."""
    folder = tmp_path_factory.mktemp("models")
    policy, tokenizer = tiny_policy
    save_model(policy, tokenizer, folder / "policy")
    torch.manual_seed(4)
    save_model(reward_model_from_policy(str(folder / "policy")), tokenizer, folder / "prm")
    (folder / "data").mkdir()
    numbers = [(2, 3, 4), (3, 4, 7), (1, 2, 5), (2, 5, 9), (4, 6, 8), (1, 3, 9)]
    for name, shift in (("validation", 0), ("test", 10)):
        problems = [make_problem([n + shift for n in ns], sum(ns) + shift) for ns in numbers]
        write_problems(folder / "data" / f"{name}.jsonl", problems)
    right = ["3 + 4 = 7 | 2 7", "2 * 7 = 14 | 14"]
    wrong = ["3 + 4 = 8 | 2 8", "2 + 8 = 10 | 10"]
    rows = [(right, -1), (wrong, 0), (right, -1), ([*right, "14 + 1 = 15 | 15"], 1)]
    lines = [json.dumps({"problem": PROBLEM.prompt, "steps": s, "label": k}) for s, k in rows]
    (folder / "fitting.jsonl").write_text("\n".join(lines))
    (folder / "bench.jsonl").write_text("\n".join([*lines[:2], "{}", *lines[2:]]))
    return folder


@pytest.fixture(scope="module")
def run_stage(models: Path) -> Callable[..., dict[str, Any]]:
    def run(out: Path, **fields: Any) -> dict[str, Any]:
        config = EvaluatePRMConfig(
            policy=str(models / "policy"), reward_model=str(models / "prm"),
            data=str(models / "data"), samples=8, fitting_samples=4, rollouts=4, max_new_tokens=12,
            verifier=fields.pop("verifier", "countdown"), bins=3, likelihood_weight=0.5,
            process_bench=(str(models / "bench.jsonl"),),
            process_bench_fitting=str(models / "fitting.jsonl"), process_bench_prompt="as_is",
            **fields,
        )  # fmt: skip
        run_evaluate_prm(RuntimeConfig(output_dir=str(out), seed=3, wandb=False), config)
        return json.loads((out / "prm.json").read_text())

    return run


@pytest.mark.slow
def test_the_whole_stage_on_tiny_models(
    run_stage: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    content = run_stage(out)
    assert content["problems"] == content["fitting_problems"] == 6
    assert len(content["calibration"]) == 6 and content["solvability"]["prefixes"] > 0
    assert [r["n"] for r in content["pass_at_n"]] == [1, 2, 4, 8]
    assert len(content["best_of_n"]) == 5 * 4
    by_depth = {(r["truth"], r["steps"]): r for r in content["auroc_by_depth"]}
    assert by_depth["reach", "unfinished"]["evidence"] == "exhaustive solver"
    assert by_depth["success", "unfinished"]["evidence"] == "share of 8 samples"
    depths = {steps for _, steps in by_depth if steps.startswith("depth ")}
    for truth in ("reach", "success"):
        of_depths = sum(by_depth[truth, steps]["prefixes"] for steps in depths)
        assert by_depth[truth, "unfinished"]["prefixes"] == of_depths > 0
    own, other = content["first_errors"][:2], content["first_errors"][2]
    # An untrained policy solves nothing: every solution of its own is erroneous.
    assert all(row["solutions"] == row["erroneous_solutions"] for row in own)
    assert own[0]["threshold"] is None
    assert (other["solutions"], other["erroneous_solutions"]) == (4, 2)
    assert other["left_out"] == {"unusable rows": 1} and 0 <= other["f1"]["value"] <= 1
    manifest = json.loads((out / "manifest.json").read_text())
    assert "auroc" in manifest["metrics"] and "uplift_last_8" in manifest["metrics"]
    reached = {k for k, r in by_depth.items() if r["auroc"]}
    logged = {f"auroc_{truth}_{steps.replace(' ', '_')}" for truth, steps in reached}
    assert {k for k in manifest["metrics"] if k.startswith("auroc_")} == logged
    spent = {row["model"]: row for row in manifest["usage"]["ledger"]}
    # Pools of 4, 4 and 8 samples and twice 4 free solutions of 6 problems; rollouts besides.
    assert spent["policy"]["sequences"] >= 6 * (4 + 4 + 8) + 2 * 6 * 4
    assert spent["reward"]["flops"] > 0
    text = (out / "prm.md").read_text()
    assert "| bench.jsonl | as labelled | " in text and str(tmp_path) not in text
    assert "| reach | depth 1 | exhaustive solver | " in text
    assert all(len(set(map(type, r.values())) & {dict, list}) == 0 for r in map(flat_row, own))
    evaluation = record_from_json(RewardModelEvaluation, content)
    assert json.loads(json.dumps(asdict(evaluation))) == content
    assert prm_evaluations(tmp_path) == {"out": evaluation}  # what the report draws
    # Cut off before it was done: the same samples, the same numbers.
    for name in ("manifest.json", "prm.md"):
        (out / name).unlink()
    assert prm_evaluations(tmp_path) == {}
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.jsonl")}
    assert run_stage(out) == content
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("*.jsonl")} == before
    assert (out / "prm.md").read_text() == text
    again = json.loads((out / "manifest.json").read_text())
    assert again["usage"] == manifest["usage"]


def test_kept_prefixes_change_no_number(
    run_stage: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger is equal too, and the engine loads what the ledger calls repeated."""
    opened: list[Workbench] = []

    def opening(**fields: Any) -> Workbench:
        opened.append(open_workbench(**fields))
        return opened[-1]

    monkeypatch.setattr("trainer.stages.evaluate_prm.open_workbench", opening)
    few = {"num_problems": 2, "fitting_problems": 2}
    plain = run_stage(tmp_path / "plain", **few)
    assert run_stage(tmp_path / "kept", **few, kept_prefixes_mib=4) == plain
    ledgers = [read_manifest(tmp_path / name)["usage"]["ledger"] for name in ("plain", "kept")]
    assert ledgers[0] == ledgers[1]
    [policy, reward] = ledgers[0]
    assert opened[0].engine.loaded_positions == 0
    assert opened[1].engine.loaded_positions >= policy["repeated_positions"] > 0
    assert reward["positions"] > reward["repeated_positions"] > 0
    with pytest.raises(ValueError, match="kept_prefixes_mib is -1; it must be at least 0"):
        run_stage(tmp_path / "negative", kept_prefixes_mib=-1)


def test_a_task_without_truths_about_steps_has_none(
    run_stage: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    content = run_stage(tmp_path / "out", verifier="math", num_problems=2, fitting_problems=2)
    assert content["solvability"] is None
    evidence = {r["evidence"] for r in content["auroc_by_depth"] if r["steps"] == "depth 1"}
    assert evidence == {"any of 4 rollouts", "share of 8 samples"}
    assert [row["truth"] for row in content["first_errors"]] == ["as labelled"]
    assert "solver" not in reward_model_markdown(record_from_json(RewardModelEvaluation, content))
