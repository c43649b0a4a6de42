"""The live page of a run in a real browser: it follows the run, and hostile text stays text."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.opened_page import HOSTILE, WATCH
from trainer.pipeline.live_run import LiveRun, LiveStage, Point, Sample
from trainer.pipeline.live_server import serving

pytestmark = pytest.mark.slow


def stage(name: str, state: str, **more: Any) -> LiveStage:
    empty: dict[str, Any] = {
        "kind": "train_sft", "seconds": 5.0, "line": "", "share": None, "left": "", "losses": (),
        "accuracies": (), "gate": "", "samples": (),
    }  # fmt: skip
    return LiveStage(name=name, state=state, **{**empty, **more})


def moment(loss: float) -> LiveRun:
    running = stage(
        f"sft{HOSTILE}", "running",
        line=f"8/9 {HOSTILE}", share=0.5, left=f"4 s{HOSTILE}", kind=f"k{HOSTILE}",
        losses=tuple(Point(step=i, value=loss) for i in (1, 2)),
        accuracies=(Point(step=0, value=0.25),),
        samples=(Sample(prompt=f"p{HOSTILE}", text=f"t{HOSTILE}", note=f"n{HOSTILE}"),),
    )  # fmt: skip
    kept = stage(f"round{HOSTILE}", "done", gate=f"kept: {HOSTILE}")
    return LiveRun(
        name=f"run{HOSTILE}", recipe=f"r{HOSTILE}", stages=(kept, running, stage("x", "waiting"))
    )


@pytest.mark.parametrize("width", [360, 1440])
def test_the_page_follows_the_run(
    browser: Any, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr("trainer.pipeline.live_server.LAST_LOOK_SECONDS", 0.0)
    states = [moment(1.5)]
    page = browser.new_context(viewport={"width": width, "height": 900}).new_page()
    complaints: list[str] = []
    page.add_init_script(WATCH)
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    with serving(lambda: states[-1], 0) as address:
        page.goto(address)
        page.get_by_text("1.500 at 2").wait_for()
        assert page.locator("#subline").inner_text() == (
            f"1 of 3 stages are done; sft{HOSTILE} is running."
        )
        assert page.locator("[aria-label='Last solutions'] pre").inner_text() == f"t{HOSTILE}"
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.locator("[aria-label='Last solutions'] pre").focus()
        states.append(moment(0.75))
        page.get_by_text("0.750 at 2").wait_for()
        focused = page.evaluate("document.activeElement.textContent")
        assert focused == f"t{HOSTILE}"  # what did not change was not drawn again
        assert complaints == []
        assert page.evaluate("window.violations") == []
        assert page.evaluate("window.hacked") is None
    page.get_by_text("The run has ended or was stopped").wait_for()
    page.context.close()
