"""The tree explorer of the report in a real browser: searched, filtered, played and compared."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.integration.opened_page import HOSTILE, Opened
from trainer.report.page import write_report

pytestmark = pytest.mark.slow
MCTS, BEST, CONTROL = "mcts", "best_of_n_weighted", "mcts_uniform_control"


def node(id: int, parent: int, text: str, **more: Any) -> dict[str, Any]:
    return {
        "id": id, "parent": parent, "text": text, "prior": 0.5, "logprob": -0.7, "visit_count": 2,
        "value": 0.25 * id, "score": None, "terminal": None, "verdict": None, "simulations": 1,
        "proposals": 1, "expansions": 1, "beside": False, **more,
    }  # fmt: skip


def tree(number: int, policy: str, search: str, outcome: str, mark: str = "") -> dict[str, Any]:
    """A tree search with two paths, or three samples of best of N."""
    end = {"terminal": f"end_of_solution{mark}", "verdict": f"wrong{mark}", "simulations": 0}
    if search == BEST:
        flat = {"simulations": 0, "visit_count": 0, "value": None}
        nodes = [node(0, -1, "", **flat)]
        nodes += [node(i, 0, f"sample {i}{mark}", **flat | end, score=0.2 * i) for i in (1, 2, 3)]
        answers = [(1, 1), (2, 2), (3, 3)]
    else:
        nodes = [
            node(0, -1, ""), node(1, 0, f"step {number}{mark}\n", visit_count=3),
            node(2, 1, f"end {number}{mark}", **end), node(3, 0, f"other{mark}\n"),
            node(4, 3, f"late{mark}", **end),
        ]  # fmt: skip
        answers = [(1, 2), (2, 4)]
    return {
        "problem": {"id": str(number), "prompt": f"{number} apples{mark} -> 24\n"},
        "policy": f"{policy}{mark}", "strategy": search, "search": f"{search}{mark}",
        "outcome": f"{outcome}{mark}", "nodes": nodes, "answer": answers[-1][1],
        "snapshots": [{"budget": b, "answer": mark, "answer_node": n} for b, n in answers],
    }  # fmt: skip


def forest() -> list[dict[str, Any]]:
    """120 problems: the tree search solves every third one, best of N every second one."""

    def outcome(right: bool) -> str:
        return "correct" if right else "wrong"

    rows = [tree(n, "last", MCTS, outcome(n % 3 == 0)) for n in range(120)]
    rows += [tree(n, "last", BEST, outcome(n % 2 == 0)) for n in range(120)]
    rows += [tree(n, "last", CONTROL, "unverifiable") for n in range(60)]
    return rows + [tree(n, "first", MCTS, "wrong") for n in range(10)]


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("explorer") / "report.html"
    write_report({"schema_version": 1}, forest(), path)
    return path


def said(opened: Opened) -> str:
    return opened.page.locator("#trees p[role=status]").inner_text()


def visible_nodes(opened: Opened, box: str = "#tree") -> int:
    return opened.page.locator(f"{box} .map .node:not(.later)").count()


def test_problems_are_searched_and_filtered(browser: Any, page_file: Path) -> None:
    opened = Opened(browser, page_file)
    page = opened.page
    rows = page.locator("#tree-table tbody tr")
    assert said(opened).startswith("120 of 120 problems") and rows.count() == 50
    page.locator("#trees .more").click()
    assert rows.count() == 100
    expected = {  # of 0 to 119: a multiple of 6 is solved by both
        "tree search and best of N disagree": 60,
        "only tree search solves": 20,
        "only best of N solves": 40,
        "solved by tree search (MCTS)": 40,
        "not solved by tree search (MCTS)": 80,
        "not solved by tree search, unguided control": 60,
        "all problems": 120,
    }
    for words, number in expected.items():
        page.locator("#tree-filter").select_option(label=words)
        assert said(opened).startswith(f"{number} of 120 problems"), words
    page.locator("#tree-search").fill("APPLES 11")
    assert said(opened).startswith("11 of 120 problems")  # 11 and 110 to 119
    page.locator("#tree-search").fill("pears")
    assert said(opened).startswith("0 of 120 problems") and rows.count() == 0
    page.locator("#tree-search").fill("")
    page.locator("#tree-policy").select_option("first")
    assert said(opened).startswith("10 of 120 problems")
    assert page.locator("#tree-filter option").count() == 3  # it has no best of N to disagree
    opened.check_silent(page_file)


def test_a_node_shows_its_text_and_samples(browser: Any, page_file: Path) -> None:
    opened = Opened(browser, page_file)
    page = opened.page
    row = page.locator("#tree-table tbody tr").nth(7)
    row.locator("button").first.click()
    page.locator("#tree .facts", has_text="7 apples").wait_for()
    assert "picked" in (page.locator("#tree-table tbody tr").nth(7).get_attribute("class") or "")
    page.locator("#tree .map .node").first.click()
    detail = page.locator("#tree .detail")
    assert "Sampled from here: 2" in detail.inner_text()
    detail.locator(".samples button", has_text="step 7").click()
    assert detail.locator(".steps").inner_text() == "7 apples -> 24\nstep 7\n"
    colors = {}
    for color in ("value", "score", "prior", "visits"):
        page.locator("#tree-color").select_option(color)
        colors[color] = page.locator("#tree .map circle").nth(1).get_attribute("fill")
    # 0.25, none, 0.5 and the most visits, on a ramp of nine colours
    assert colors == {"value": "#575d6d", "score": "none", "prior": "#8a8779", "visits": "#ffea46"}
    opened.check_silent(page_file)


def test_a_search_is_played(browser: Any, page_file: Path) -> None:
    opened = Opened(browser, page_file)
    page = opened.page
    slider, place = page.locator("#tree .player input"), page.locator("#tree .player output")
    page.locator("#tree .outline .row[data-node]").first.wait_for()
    assert place.inner_text() == "new path 2 of 2" and visible_nodes(opened) == 5
    slider.focus()
    slider.press("ArrowLeft")
    assert place.inner_text() == "new path 1 of 2" and visible_nodes(opened) == 3
    assert page.locator("#tree .outline .row[data-node]").count() == 3
    slider.press("Home")
    assert visible_nodes(opened) == 1
    page.locator("#tree .player .play").click()
    page.locator("#tree .player output", has_text="new path 2 of 2").wait_for()
    assert visible_nodes(opened) == 5
    # Best of N: the answer after each sample is the one that the search took then.
    page.locator("#tree-table tbody tr").first.locator("button").nth(1).click()
    page.locator("#tree .facts", has_text="best of N").wait_for()
    for sample in (2, 1, 3):
        page.locator("#tree .player input").fill(str(sample))
        assert place.inner_text() == f"sample {sample} of 3" and visible_nodes(opened) == sample + 1
        chosen = page.locator("#tree .outline .row[data-answer]").get_attribute("data-node")
        assert chosen == str(sample)
    opened.check_silent(page_file)


def test_a_search_is_played_simulation_by_simulation(browser: Any, tmp_path: Path) -> None:
    """Two simulations of two visits: 2 (0.5) and 3 (0.25), then 2 again (0.5) and 4 (0.75)."""
    row = tree(0, "last", MCTS, "correct")
    backups = [[[2, 0.5], [3, 0.25]], [[2, 0.5], [4, 0.75]]]
    row["simulations"] = [[1, 4, backups[0]], [2, 5, backups[1]]]
    for id, visits, value in [(0, 4, 0.5), (1, 2, 0.5), (2, 2, 0.5), (3, 2, 0.5), (4, 1, 0.75)]:
        row["nodes"][id] |= {"visit_count": visits, "value": value}
    path = tmp_path / "report.html"
    write_report({"schema_version": 1}, [row], path)
    opened = Opened(browser, path)
    page = opened.page
    cells = page.locator("#tree .outline .row[data-node] .figure:nth-child(5)")
    visits = page.locator("#tree .outline .row[data-node] .visits")
    page.locator("#tree .outline .row[data-node]").first.wait_for()
    place = page.locator("#tree .player output")
    assert place.inner_text() == "simulation 2 of 2"
    assert visits.all_inner_texts() == ["4", "2", "2", "2", "1"]
    page.locator("#tree .player button", has_text="◀").click()
    assert place.inner_text() == "simulation 1 of 2" and visible_nodes(opened) == 4
    assert visits.all_inner_texts() == ["2", "1", "1", "1"]  # node 4 came later
    assert cells.all_inner_texts() == ["0.38", "0.50", "0.50", "0.25"]
    chosen = page.locator("#tree .outline .row[data-answer]").get_attribute("data-node")
    assert chosen == "2"  # the snapshot of one simulation
    page.locator("#tree .player button", has_text="◀").click()
    assert place.inner_text() == "simulation 0 of 2" and visits.all_inner_texts() == ["0"]
    page.locator("#tree .player button", has_text="▶").nth(1).click()
    page.locator("#tree .player button", has_text="▶").nth(1).click()
    assert visits.all_inner_texts() == ["4", "2", "2", "2", "1"]
    opened.check_silent(path)


def test_two_searches_of_a_problem_are_compared(browser: Any, page_file: Path) -> None:
    opened = Opened(browser, page_file)
    page = opened.page
    page.locator("#tree .outline").wait_for()
    page.locator("#tree-compare").select_option(label="last: tree search, unguided control")
    page.locator("#tree-beside .facts", has_text="unguided control").wait_for()
    left, right = (page.locator(box).bounding_box() for box in ("#tree", "#tree-beside"))
    assert left and right and left["y"] == right["y"] and left["x"] < right["x"]
    # Another problem keeps the comparison where it can; problem 70 has no control.
    page.locator("#tree-table tbody tr").nth(20).locator("button").first.click()
    page.locator("#tree-beside .facts", has_text="20 apples").wait_for()
    page.locator("#tree-search").fill("70")
    page.locator("#tree-table tbody button").first.click()
    page.locator("#tree .facts", has_text="70 apples").wait_for()
    assert page.locator("#tree-beside").inner_text() == ""
    opened.check_silent(page_file)


def test_the_keyboard_is_enough(browser: Any, page_file: Path) -> None:
    opened = Opened(browser, page_file)
    page = opened.page
    page.locator("#tree .outline").wait_for()
    page.locator("#tree-search").focus()
    page.keyboard.type("10")
    page.locator("#tree-table tbody button").first.focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    page.locator("#tree .facts", has_text="100 apples").wait_for()
    assert "best of N" in page.locator("#tree .facts").inner_text()
    page.keyboard.press("ArrowLeft")  # the cell keeps the focus
    page.keyboard.press("Enter")
    page.locator("#tree .facts", has_text="tree search (MCTS)").wait_for()
    page.locator("#tree .map").focus()
    picked = page.locator("#tree .outline .row.picked")
    for key, wanted in [  # from the answer, node 4
        ("ArrowLeft", "3"), ("ArrowUp", "1"), ("ArrowUp", "1"), ("ArrowRight", "2"),
        ("ArrowLeft", "1"), ("ArrowDown", "3"), ("ArrowLeft", "0"), ("ArrowLeft", "0"),
    ]:  # fmt: skip
        page.keyboard.press(key)
        assert picked.get_attribute("data-node") == wanted, key
    opened.check_silent(page_file)


@pytest.mark.parametrize("width", [360, 1440])
def test_hostile_text_runs_nothing(browser: Any, tmp_path: Path, width: int) -> None:
    path = tmp_path / "hostile.html"
    rows = [tree(n, "last", s, "correct", HOSTILE) for s in (MCTS, BEST) for n in range(3)]
    write_report({"schema_version": 1}, rows, path)
    opened = Opened(browser, path, width)
    page = opened.page
    page.locator("#tree .open-all").click()
    page.locator("#tree .outline .row[data-node]").nth(1).click()
    assert HOSTILE in page.locator("#tree .detail .steps").inner_text()
    page.locator("#tree-compare").select_option(index=1)
    page.locator("#tree-beside .outline").wait_for()
    page.locator("#tree .player input").fill("1")
    # The same rows, opened as a file.
    file = tmp_path / "trees.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page.locator("#trees input[type=file]").set_input_files(file)
    page.locator("#trees p[role=status]", has_text="trees.jsonl").wait_for()
    page.locator("#tree .outline").wait_for()
    assert page.evaluate("window.hacked") is None
    assert page.locator("main img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    opened.check_silent(path)


def test_a_damaged_chunk_is_said(browser: Any, page_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    text = page_file.read_text()
    path.write_text(re.sub('(id="trees-0">.{200})(.{80})', r"\1" + 80 * "A", text))
    opened = Opened(browser, path)
    opened.page.locator("#tree p.empty").wait_for()
    assert "This tree cannot be shown" in opened.page.locator("#tree").inner_text()
    opened.check_silent(path)


def test_a_file_that_holds_no_trees_is_refused(
    browser: Any, page_file: Path, tmp_path: Path
) -> None:
    opened = Opened(browser, page_file)
    file = tmp_path / "other.jsonl"
    file.write_text('{"a": 1}\n')
    opened.page.locator("#trees input[type=file]").set_input_files(file)
    opened.page.locator("#trees p[role=status]", has_text="cannot be read").wait_for()
    assert "other.jsonl cannot be read as trees: it has no nodes" in said(opened)
    opened.check_silent(page_file)
