"""The report in a real browser, without a network: drawn, silent, and deaf to hostile text."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.integration.opened_page import HOSTILE, Opened
from trainer.evaluation.reward_model_results import StepSet, calibrations
from trainer.measures.best_of_n import Candidate, best_of_n, expected_pass
from trainer.measures.results import Aim
from trainer.measures.score_quality import ScoredPrefix
from trainer.report.page import MAX_PAGE_BYTES, write_report

pytestmark = pytest.mark.slow


def test_the_smoke_runs_report_is_drawn(browser: Any, smoke_run: Path) -> None:
    path = smoke_run / "report.html"
    assert path.stat().st_size < MAX_PAGE_BYTES
    opened = Opened(browser, path)
    page = opened.page
    charts = page.locator(".chart")
    assert charts.count() == int(page.evaluate("document.body.dataset.drawn")) >= 2
    for i in range(charts.count()):
        assert charts.nth(i).locator("svg.main-svg").count() > 0
    # One mark a policy on the training curve, one a budget and policy for the tree search.
    assert page.locator("#chart-training .points path").count() == 3
    results = json.loads((smoke_run / "results.json").read_text())
    sft = next(r for r in results["accuracy"] if r["strategy"] == "greedy")
    name = results["training_curve"][-1]["policy"]
    last = [r for r in results["accuracy"] if (r["policy"], r["strategy"]) == (name, "mcts")]
    mcts = max(last, key=lambda r: r["budget"])
    curves = page.locator("main > section").first
    said = curves.inner_text()
    assert curves.locator(".chart").count() == 2
    assert f"from {100 * sft['value']:.1f} % (SFT)" in said and "times the training compute" in said
    assert f"{100 * mcts['value']:.1f} % with {mcts['budget']} simulations" in said
    assert f"{100 * sft['value']:.1f} %" in page.locator("#accuracy").inner_text()
    page.locator("#tree .open-all").click()
    rows = page.locator("#tree .outline .row[data-node]")
    assert rows.count() > 1
    rows.nth(1).click()
    text = rows.nth(1).locator("button.text").get_attribute("title")
    assert text and text.strip() in page.locator("#tree .detail").inner_text()
    page.locator("#tree-table tbody button").last.click()
    page.locator("#tree-table tbody tr:last-child.picked").wait_for()
    assert rows.count() > 0
    opened.check_silent(path)


def test_a_narrow_screen_does_not_scroll_sideways(browser: Any, smoke_run: Path) -> None:
    opened = Opened(browser, smoke_run / "report.html", width=400)
    width = opened.page.evaluate("document.documentElement.scrollWidth")
    assert width <= 400
    opened.check_silent(smoke_run / "report.html")


def test_hostile_text_stays_text(browser: Any, smoke_run: Path, tmp_path: Path) -> None:
    results = json.loads((smoke_run / "results.json").read_text())
    results["run"] = HOSTILE
    results["task"]["description"] = HOSTILE
    for row in results["accuracy"]:
        row["policy"] = f"{row['policy']}{HOSTILE}"
    for row in results["training_curve"]:
        row["policy"] = f"{row['policy']}{HOSTILE}"
    path = tmp_path / "hostile.html"
    write_report(results, [], path)
    opened = Opened(browser, path)
    assert opened.page.evaluate("window.hacked") is None
    assert opened.page.locator("main img").count() == 0
    assert HOSTILE in opened.page.locator("#task").inner_text()
    opened.check_silent(path)


def prm_content() -> dict[str, Any]:
    """A prm.json whose numbers are worked out as in the stage, with a name that is markup."""
    prefixes = [
        ScoredPrefix(problem=str(i), group=str(i), score=i / 20, correct=i % 5, count=8)
        for i in range(1, 20)
    ]
    scored = [(0.1, False), (0.3, True), (0.6, True), (0.9, False)]
    pools = [[Candidate(rank=(s,), proxy=s, correct=c, count=1) for s, c in scored]] * 3
    rows, losses = [], []
    for aggregate in ("last", "mean", HOSTILE):
        found, loss = best_of_n(aggregate, pools, ["a", "b", "c"], 4)
        rows += [asdict(row) for row in found]
        losses.append(asdict(loss))
    share = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 3}
    sets = {kind: StepSet(fitting=prefixes, measured=prefixes) for kind in ("non-terminal", "all")}
    aim = Aim(calibration_error=0.05, brier_skill=0.2)
    return {
        "stage": f"evaluate_prm{HOSTILE}", "reward_model": "prm", "split": "test",
        "fitting_split": "validation", "problems": 3, "fitting_problems": 3, "samples": 4,
        "rollouts": 8, "prefixes": 19, "auroc": share, "success_rate": share, "aim": asdict(aim),
        "auroc_by_depth": [{
            "truth": "reach", "steps": "depth 1", "evidence": HOSTILE, "prefixes": 19, "mean": 0.25,
            "auroc": share, "pairs": 9,
        }],
        "calibration": [asdict(row) for row in calibrations(sets, aim, 5, 0)], "solvability": None,
        "first_errors": [{
            "source": HOSTILE, "truth": "false step", "threshold": 0.5, "erroneous": share,
            "correct": share, "f1": None, "solutions": 9, "erroneous_solutions": 4,
            "left_out": {"cut off": 1, HOSTILE: 2},
        }],
        "sample_accuracy": share, "best_of_n": rows, "over_optimisation": losses,
        "pass_at_n": [
            {"n": n, "solved": share | {"value": expected_pass(4, 2, n)}} for n in (1, 2, 4)
        ],
    }  # fmt: skip


@pytest.mark.parametrize("width", [1280, 400])
def test_reward_model_evaluations_are_drawn(browser: Any, tmp_path: Path, width: int) -> None:
    path = tmp_path / "prm.html"
    content = prm_content()
    write_report({"schema_version": 1, "prm_evaluations": [content, content]}, [], path)
    opened = Opened(browser, path, width)
    section = opened.page.locator("#prm-evaluation")
    charts = section.locator(".chart")
    assert charts.count() == 10
    # Several are folded below a table with a line for each. Of each evaluation: two reliability
    # diagrams, uplift, gold against proxy, and against KL.
    assert section.locator("#prm-summary-table tbody tr").count() == 2
    folded = section.locator("details")
    for i in range(2):
        assert int(opened.page.evaluate("document.body.dataset.drawn")) == 5 * i
        folded.nth(i).locator("summary").press("Enter")
        opened.page.wait_for_function(f"document.body.dataset.drawn === '{5 * (i + 1)}'")
    for i in range(charts.count()):
        assert charts.nth(i).locator("svg.main-svg").count() > 0
        assert charts.nth(i).bounding_box()["width"] <= width
    # A mark a bin for each of three forms; one an N for each of three aggregates.
    assert section.locator("#chart-calibration-0-0 .points path").count() == 3 * 5
    assert section.locator("#chart-uplift-0 .points path").count() == 3 * 3
    error = content["calibration"][0]["calibration_error"]["value"]
    assert f"{error:.3f}" in section.locator("#calibration-table-0").inner_text()
    assert HOSTILE in section.locator("#first-errors-table-1").inner_text()
    assert "0.500" in section.locator("#auroc-table-0").inner_text()
    assert opened.page.evaluate("window.hacked") is None
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    opened.check_silent(path)


def test_one_reward_model_evaluation_is_not_folded(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "prm.html"
    write_report({"schema_version": 1, "prm_evaluations": [prm_content()]}, [], path)
    opened = Opened(browser, path)
    section = opened.page.locator("#prm-evaluation")
    assert section.locator("details, #prm-summary-table").count() == 0
    assert section.locator(".chart svg.main-svg").count() >= 5
    opened.check_silent(path)


def learners_content(learners: int) -> dict[str, Any]:
    """Learners with names that are markup, each with PPO's cycles; the last one was stopped."""

    def point(policy: str, tokens: int, value: float) -> dict[str, Any]:
        interval = {"value": value, "low": value - 0.05, "high": value + 0.05, "n": 200}
        return {"policy": policy, "sampled_tokens": tokens, **interval}

    names = [f"ppo_{i}{HOSTILE}" for i in range(learners)]
    curves = [
        {
            "name": name, "sampled_tokens": 9000,
            "test": [point("sft", 0, 0.3), point(name, 9000, 0.3 + 0.01 * i)],
            "validation": [point(name, 3000 * t, 0.3 + 0.01 * t) for t in range(4)],
        }
        for i, name in enumerate(names)
    ]  # fmt: skip
    row = {"kl": 0.5, "length": 31.0, "entropy": 0.4, "reward": 0.3, "correct": 0.3, "score": None}
    runs = [
        {
            "stage": name, "outcome": "verifier", "shape": "potential", "critic": "policy",
            "stopped": HOSTILE if name == names[-1] else "", "problems": 50, "sampled_tokens": 9000,
            "cycles": [{"cycle": c, **row} for c in range(5)],
            "evaluations": [{"cycle": c, "accuracy": 0.3, "proxy": 0.5} for c in (0, 4)],
        }
        for name in names
    ]  # fmt: skip
    change = {"difference": 0.01, "low": -0.02, "high": 0.04, "n": 200, "metric": "greedy"}
    return {
        "schema_version": 1, "learners": curves, "ppo": runs,
        "comparisons": {f"{name}_vs_sft": change for name in names},
    }  # fmt: skip


@pytest.mark.parametrize(("learners", "width"), [(1, 1280), (9, 1280), (9, 400)])
def test_learners_and_ppo_are_drawn(
    browser: Any, tmp_path: Path, learners: int, width: int
) -> None:
    path = tmp_path / "learners.html"
    write_report(learners_content(learners), [], path)
    opened = Opened(browser, path, width)
    page = opened.page
    # Accuracy against tokens; gold and proxy, KL, reward, length and entropy by cycle.
    charts = page.locator("#learners .chart, #ppo .chart")
    assert charts.count() == int(page.evaluate("document.body.dataset.drawn")) == 6
    for i in range(charts.count()):
        assert charts.nth(i).locator("svg.main-svg").count() > 0
    assert page.locator("#chart-learners .points path").count() == learners * (4 + 2)
    assert page.locator("#chart-guard .points path").count() == learners * (2 + 2)
    assert page.locator("#chart-guard .subplot").count() == learners
    assert page.locator("#chart-ppo-kl .lines path").count() >= learners
    assert page.locator("#learners-table tbody tr").count() == learners
    assert "−2.0 to +4.0" in page.locator("#learners-table").inner_text()
    assert page.locator("#ppo-table tbody tr").count() == learners
    assert f"was stopped: {HOSTILE}" in page.locator("#ppo").inner_text()
    wanted = "9 learners from one policy" if learners > 1 else "What this run measured"
    assert wanted in page.locator("#headline").inner_text()
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    opened.check_silent(path)


def test_ppo_without_evaluations_says_so(browser: Any, tmp_path: Path) -> None:
    content = learners_content(1)
    del content["ppo"][0]["evaluations"]
    path = tmp_path / "unmeasured.html"
    write_report(content, [], path)
    opened = Opened(browser, path)
    assert "No held-out problems were solved" in opened.page.locator("#ppo p.empty").inner_text()
    assert opened.page.locator("#chart-guard").count() == 0
    assert opened.page.locator("#chart-ppo-kl").count() == 1
    opened.check_silent(path)


def test_the_work_of_servers_is_shown(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "servers.html"
    entry = {"stage": "search", "model": "policy", "kind": "search", "prompt_tokens": 9}
    work = {
        "stage": HOSTILE, "requests": 5, "computed_tokens": 30, "cached_tokens": 90,
        "generated_tokens": 7, "cached_share": 0.75,
    }  # fmt: skip
    write_report({"schema_version": 1, "ledger": [entry], "servers": [work]}, [], path)
    opened = Opened(browser, path)
    cells = opened.page.locator("#server-table tbody td")
    assert cells.all_inner_texts()[1:] == ["5", "30", "90", "75.0 %", "7"]
    assert opened.page.evaluate("window.hacked") is None
    opened.check_silent(path)


def test_missing_sections_say_so(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "empty.html"
    write_report({"schema_version": 1}, [], path)
    opened = Opened(browser, path)
    assert opened.page.locator("p.empty").count() >= 5
    for section in ("prm-evaluation", "learners", "ppo"):  # of stages not every run has
        assert opened.page.locator(f"#{section}").count() == 0
    opened.check_silent(path)
    with pytest.raises(ValueError, match="schema_version is 7"):
        write_report({"schema_version": 7}, [], path)


def test_what_a_doubling_of_the_compute_brings(browser: Any, tmp_path: Path) -> None:
    """A policy that thinks: its curve, a sentence, and the slope of the line."""
    row = {
        "policy": HOSTILE, "n": 50, "format_rate": 1.0, "truncation_rate": 0.0, "low": 0.1,
        "high": 0.7, "generated_tokens": 9.0, "policy_flops": 1e6, "reward_flops": 0.0,
    }  # fmt: skip
    rows = [{**row, "strategy": "greedy", "budget": 1, "value": 0.6, "flops": 5e6}]
    rows += [
        {**row, "strategy": "thinking", "budget": budget, "value": value, "flops": flops}
        for budget, value, flops in ((96, 0.6, 4e6), (12, 0.2, 1e6))
    ]
    slope = {"value": 0.2, "low": 0.15, "high": 0.25, "n": 50}
    fit = {
        "policy": HOSTILE, "strategy": "thinking", "points": 2, "low_flops": 1e6,
        "high_flops": 4e6, "slope": slope,
    }  # fmt: skip
    path = tmp_path / "thinks.html"
    write_report({"schema_version": 1, "accuracy": rows, "scaling": [fit]}, [], path)
    opened = Opened(browser, path, 360)
    page = opened.page
    said = page.locator("#curves").inner_text()
    assert "20.0 % with at most 12 tokens of thought and 60.0 % with 96, at 4.0 times" in said
    assert page.locator("#chart-thinking .points path").count() == 3
    cells = page.locator("#scaling-table tbody td").all_inner_texts()
    assert cells[-3:] == ["+20.0", "+15.0 to +25.0", "50"]
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    opened.check_silent(path)
