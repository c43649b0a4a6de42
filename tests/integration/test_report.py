"""The report in a real browser, without a network: drawn, silent, and deaf to hostile text."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trainer.report import MAX_BYTES, write_report

pytestmark = pytest.mark.slow
HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(event.violatedDirective + " " + event.blockedURI));
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    path = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if path is None:
        if os.environ.get("THINKTREE_REQUIRE_BROWSER") == "1":
            pytest.fail("THINKTREE_REQUIRE_BROWSER=1, but there is no chromium")
        pytest.skip("no chromium on this machine")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


class Opened:
    """A page of the report and all that it complained about or asked the network for."""

    def __init__(self, browser: Any, path: Path, width: int = 1280) -> None:
        self.context = browser.new_context(offline=True, viewport={"width": width, "height": 900})
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.asked: list[str] = []
        self.page.add_init_script(WATCH)
        self.page.on(
            "console",
            lambda m: self.errors.append(m.text) if m.type in ("error", "warning") else None,
        )
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_function("document.body.dataset.drawn !== undefined")

    def check_silent(self, path: Path) -> None:
        assert self.errors == []
        assert self.page.evaluate("window.violations") == []
        assert [url for url in self.asked if not url.startswith("data:")] == [path.as_uri()]


def test_the_smoke_runs_report_is_drawn(browser: Any, smoke_run: Path) -> None:
    path = smoke_run / "report.html"
    assert path.stat().st_size < MAX_BYTES
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
    assert f"{100 * sft['value']:.1f} %" in page.locator("#accuracy").inner_text()
    page.locator("#open-all").click()
    rows = page.locator("#tree .outline .row[data-node]")
    assert rows.count() > 1
    rows.nth(1).click()
    text = rows.nth(1).locator("button.text").get_attribute("title")
    assert text and text.strip() in page.locator("#tree .detail").inner_text()
    page.locator("#tree-choice").select_option(index=1)
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
    tree = json.loads((smoke_run / "evaluate" / "round_2_mcts.jsonl").open().readline())
    tree["problem"]["prompt"] = HOSTILE
    for node in tree["nodes"]:
        node["text"] = f"{node['text']}{HOSTILE}"
    path = tmp_path / "hostile.html"
    write_report(results, [tree], path)
    opened = Opened(browser, path)
    opened.page.locator("#open-all").click()
    opened.page.locator("#tree .outline .row[data-node]").nth(1).click()
    assert opened.page.evaluate("window.hacked") is None
    assert opened.page.locator("main img").count() == 0
    assert HOSTILE in opened.page.locator("#task").inner_text()
    assert HOSTILE in opened.page.locator("#tree .detail").inner_text()
    opened.check_silent(path)


def test_missing_sections_say_so(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "empty.html"
    write_report({"schema_version": 1}, [], path)
    opened = Opened(browser, path)
    assert opened.page.locator("p.empty").count() >= 5
    opened.check_silent(path)
    with pytest.raises(ValueError, match="schema_version is 7"):
        write_report({"schema_version": 7}, [], path)
