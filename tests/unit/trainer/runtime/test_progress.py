"""What is shown of long work, on a clock and a stream of the test's own: no test sleeps."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import sys
import termios
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from data.progress import BatchProgress, listening, reported
from data.types import Outcome, Problem, Verdict
from search.batcher import run_searches
from search.engines.transformers_engine import EngineConfig, TransformersEngine
from search.running import SearchProgress
from search.settings import SearchSettings
from search.strategies.mcts.config import MCTSConfig
from search.strategies.mcts.loop import search_mcts
from search.strategies.solutions import SolutionsConfig, search_solutions
from trainer.pipeline.launch import run_logged
from trainer.runtime.progress import (
    Progress,
    Rate,
    StatusLine,
    duration,
    rate_text,
    showing_batches,
)
from trainer.searching.workbench import showing


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def shown(total: int = 200, **options: Any) -> tuple[Progress, Clock, io.StringIO]:
    clock, stream = Clock(), io.StringIO()
    return Progress("search", total, clock=clock, stream=stream, **options), clock, stream


def test_a_line_after_five_seconds_and_every_ten_from_then_on() -> None:
    progress, clock, stream = shown()
    with progress:
        for second in range(41):
            clock.now = 100.0 + second
            progress.update(2 * second)
    assert stream.getvalue().splitlines() == [
        "search: 10 of 200 problems done (5%), 2.0 problems per second, 1 min 35 s left",
        "search: 30 of 200 problems done (15%), 2.0 problems per second, 1 min 25 s left",
        "search: 50 of 200 problems done (25%), 2.0 problems per second, 1 min 15 s left",
        "search: 70 of 200 problems done (35%), 2.0 problems per second, 1 min 5 s left",
        "search: 80 of 200 problems in 40 s",
    ]


def test_short_work_and_other_processes_show_nothing() -> None:
    for seconds, is_shown in ((4.9, True), (100.0, False)):
        progress, clock, stream = shown(shown=is_shown)
        with progress:
            clock.now += seconds
            progress.advance(3)
        assert stream.getvalue() == ""


def test_the_rate_is_that_of_the_last_minute_and_else_of_all_the_time() -> None:
    rate = Rate(0.0)
    for now, count in ((10, 100.0), (20, 200.0)):
        rate.add(now, count)
    assert rate.per_second() == pytest.approx(10.0)
    for now in (40, 60, 80):
        rate.add(now, 200.0 + (now - 20))
    # From 20 s, where there were 200, to 80 s, where there are 260.
    assert rate.per_second() == pytest.approx(1.0)
    for now in (140, 200):
        rate.add(now, 260.0)
    assert rate.per_second() == pytest.approx(260 / 200)


def test_a_batch_is_shown_while_nothing_else_moves() -> None:
    """No problem is finished for a minute: what the engine reports says how long its batch takes,
    and as soon as it is known how much of the search that is, how long the search takes."""
    progress, clock, stream = shown(total=4)
    with progress:
        batch = BatchProgress("samples", 100)
        for second in range(8):
            clock.now = 100.0 + second
            batch.add(5, tokens=50)
        clock.now = 115.0
        progress.update(1.5, finished=0, note="4 running")
    first, second, _ = stream.getvalue().splitlines()
    # 30 samples after 5 seconds, counted from the first report at 0 seconds; 300 tokens.
    assert first == (
        "search: 0 of 4 problems done (0%); this batch: 30 of 100 samples, 12 s left; "
        "60 tokens per second"
    )
    # 1.5 of 4 in 15 seconds, 2.5 to go; 400 tokens in 15 seconds.
    assert second == (
        "search: 0 of 4 problems done (38%), 6.0 problems per minute, 25 s left; 4 running; "
        "this batch: 40 of 100 samples; 27 tokens per second"
    )


def test_tokens_add_up_over_batches() -> None:
    progress, clock, _ = shown()
    with progress:
        for size in (100, 300, 200):
            BatchProgress("scored sequences", 1).add(1, tokens=size)
        clock.now += 6.0
        progress.advance()
    assert progress.line().endswith("; 100 tokens per second")


def test_a_terminal_gets_a_bar() -> None:
    controller, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    clock = Clock()
    with os.fdopen(terminal, "w") as stream, Progress("s", 8, clock=clock, stream=stream) as p:
        clock.now += 4.0
        p.update(1)
        clock.now += 4.0
        p.update(2, note="6 running")
    said = ""
    with contextlib.suppress(OSError):  # what the closed terminal ends with
        while read := os.read(controller, 65536):
            said += read.decode()
    os.close(controller)
    assert "s:  25%|" in said and "2/8 [00:08<00:24," in said and "6 running" in said
    assert "1/8" not in said and "problems done" not in said  # nothing before 5 seconds


def test_work_of_an_unknown_size_shows_what_is_done_and_a_rate() -> None:
    progress, clock, stream = shown(total=0, unit="rows")
    with progress:
        clock.now += 5.0
        progress.update(1500)
    assert stream.getvalue().splitlines() == [
        "search: 1,500 rows done, 300.0 rows per second",
        "search: 1,500 rows in 5 s",
    ]


def test_batches_of_a_stage_that_counts_nothing_are_shown_as_its_work() -> None:
    clock, stream = Clock(), io.StringIO()
    with showing_batches("data", clock=clock, stream=stream):
        for item in reported("abcd", "checked rows"):
            clock.now += 6.0 if item in "bc" else 0.0
        BatchProgress("samples", 2).add(1)  # another one, too short to show
        with Progress("search", 3, clock=clock, stream=stream):
            batch = BatchProgress("samples", 4)
            clock.now += 6.0
            batch.add(1, tokens=30)
    assert stream.getvalue().splitlines() == [
        "data: 2 of 4 checked rows done (50%), 20.0 checked rows per minute, 6 s left",
        "data: 4 of 4 checked rows in 12 s",
        "search: 0 of 3 problems done (0%); this batch: 1 of 4 samples; 5 tokens per second",
        "search: 0 of 3 problems in 6 s",
    ]


def test_a_pipeline_shows_the_newest_line_of_its_stage() -> None:
    clock, stream = Clock(), io.StringIO()
    with StatusLine("[1/2 label]", 60.0, clock=clock, stream=stream) as status:
        for second in range(25):
            clock.now = 100.0 + second
            status.show(f"labels: {second} of 40 problems done")
    assert stream.getvalue().splitlines() == [
        "[1/2 label] 1 min 10 s  labels: 10 of 40 problems done",
        "[1/2 label] 1 min 20 s  labels: 20 of 40 problems done",
    ]


@pytest.mark.slow
def test_a_stage_that_still_imports_is_starting(tmp_path: Path) -> None:
    said: list[str] = []
    code = "import time; time.sleep(1.5); print('1 of 2', flush=True); time.sleep(1.5)"
    reading, writing = os.pipe()
    status = run_logged(
        [sys.executable, "-c", code],
        log=tmp_path / "log",
        environment=os.environ,
        lock=writing,
        say=said.append,
        on_poll=lambda _: None,
    )
    for descriptor in (reading, writing):
        os.close(descriptor)
    assert status == 0
    assert list(dict.fromkeys(said)) == ["starting", "1 of 2"]


def test_a_terminal_gets_the_pipelines_line_drawn_again() -> None:
    clock, said = Clock(), ""
    controller, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    with (
        os.fdopen(terminal, "w") as stream,
        StatusLine("[1/2 label]", clock=clock, stream=stream) as status,
    ):
        clock.now += 3.0
        status.show("labels: 3 of 40 problems done")
    with contextlib.suppress(OSError):  # what the closed terminal ends with
        while read := os.read(controller, 65536):
            said += read.decode()
    os.close(controller)
    assert "\r[1/2 label] 3 s  labels: 3 of 40 problems done" in said and "\n" not in said


def test_words() -> None:
    assert [duration(s) for s in (0.4, 59.4, 200, 7500)] == [
        "0 s",
        "59 s",
        "3 min 20 s",
        "2 h 5 min",
    ]
    assert rate_text(1200.0, "samples") == "1,200.0 samples per second"
    assert rate_text(0.25, "samples") == "15.0 samples per minute"
    assert rate_text(0.01, "samples") == "36.0 samples per hour"


def test_who_listens_hears_until_the_block_ends() -> None:
    heard: list[tuple[int, int]] = []
    batch = BatchProgress("rows", 9)
    batch.add(1)
    with pytest.raises(RuntimeError), listening(lambda b: heard.append((b.done, b.new_tokens))):
        batch.add(2, tokens=7)
        raise RuntimeError
    batch.add(4)
    assert heard == [(3, 7)]


PROBLEMS = [Problem(id=f"p{i}", prompt=f"{i} 2 -> 3\n", answer="") for i in range(1, 4)]


def searched(tiny_policy: Any, strategy: Any, on_progress: Any) -> list[Any]:
    engine = TransformersEngine(*tiny_policy, EngineConfig(seed=5, max_rows=16))
    return list(
        run_searches(
            PROBLEMS,
            strategy,
            engine=engine,
            scorer=None,
            verify=lambda problem, text: Verdict(outcome=Outcome.WRONG),
            settings=SearchSettings(max_new_tokens=12, guidance="random"),
            on_progress=on_progress,
        )
    )


def test_a_real_engine_is_seen_from_inside_its_batch(tiny_policy: Any) -> None:
    """Best of N is one call of the engine. Every token of it moves the display's clock by a second,
    and lines come while no problem is finished. Watching changes no result."""
    strategy = partial(search_solutions, config=SolutionsConfig(budgets=(24,)))
    unwatched = searched(tiny_policy, strategy, lambda _: None)
    progress, clock, stream = shown(total=3)
    show, seen = showing(progress), list[SearchProgress]()

    def each(now: SearchProgress) -> None:
        clock.now += 1.0
        seen.append(now)
        show(now)

    with progress:
        assert searched(tiny_policy, strategy, each) == unwatched
    inside = [now for now in seen if now.running == 3]
    assert {now.finished for now in inside} == {0} and len(inside) > 10
    assert [now.done for now in inside] == sorted(now.done for now in inside)
    assert 0 < inside[len(inside) // 2].done < inside[-1].done == 3.0
    assert seen[-1] == SearchProgress(finished=3, running=0, done=3.0)
    lines = stream.getvalue().splitlines()
    assert len(lines) >= 3 and lines[-1].startswith("search: 3 of 3 problems in ")
    for line in lines[:-2]:
        assert line.startswith("search: 0 of 3 problems done (")
        assert "3 running; this batch: " in line and " of 72 samples" in line
        assert " per minute, " in line and " left; " in line and "tokens per second" in line


def test_a_tree_search_says_how_much_of_its_budget_is_spent(tiny_policy: Any) -> None:
    config = MCTSConfig(budgets=(2, 6), proposals=2, parallel_simulations=1)
    seen: list[SearchProgress] = []
    searched(tiny_policy, partial(search_mcts, config=config), seen.append)
    done = [now.done for now in seen]
    assert done == sorted(done) and seen[-1].done == seen[-1].finished == 3
    assert sum(0 < now.done < 1 for now in seen) > 3  # long before a problem is finished
