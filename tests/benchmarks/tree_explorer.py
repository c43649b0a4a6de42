"""How fast the report's tree explorer is in a browser: 500 trees of 512 nodes in one page.

    python tests/benchmarks/tree_explorer.py

It prints the size of the page, the time until the first paint and until the first tree is drawn,
and the longest of several times from a click to the next painted frame: on a node of the map, on a
step of the outline, on another tree, and on the slider of the player.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.report.page import write_report

# Milliseconds from an event to the frame after it. A tree is read from its chunk first: `wanted` is
# what the facts of the panel then hold.
CLICK = """
([selector, index, wanted]) => new Promise((resolve) => {
  const start = performance.now();
  const painted = () => requestAnimationFrame(() =>
    setTimeout(() => resolve(performance.now() - start), 0));
  const there = () => !wanted
    || document.querySelector("#tree .facts").textContent.includes(wanted);
  const wait = () => (there() ? painted() : setTimeout(wait, 1));
  const target = document.querySelectorAll(selector)[index];
  if (target.type === "range") {
    target.value = String(index + Number(target.max) / 2);
    target.dispatchEvent(new Event("input"));
  } else target.dispatchEvent(new MouseEvent("click", { bubbles: true }));
  wait();
})
"""
CLICKS = 8


def random_trees(trees: int, nodes: int, seed: int) -> Iterator[dict[str, Any]]:
    """Two searches per problem, each with steps of about 40 random characters."""
    drawn = random.Random(seed)
    for number in range(trees):
        rows: list[dict[str, Any]] = []
        for id in range(nodes):
            parent = drawn.randrange(max(0, id - 60), id) if id else -1
            rows.append(
                {
                    "id": id, "parent": parent, "prior": drawn.random(), "value": drawn.random(),
                    "text": f"{drawn.getrandbits(64)} + {drawn.getrandbits(60)}\n",
                    "logprob": -drawn.random(), "visit_count": drawn.randrange(1, 99),
                    "score": drawn.random(), "terminal": None, "verdict": None, "simulations": 1,
                    "proposals": drawn.randrange(1, 9), "expansions": 1, "beside": False,
                }
            )  # fmt: skip
        problem = {"id": str(number // 2), "prompt": f"problem {number // 2}:\n"}
        yield {
            "problem": problem, "policy": "last", "outcome": drawn.choice(["correct", "wrong"]),
            "search": ("mcts", "best_of_n_weighted")[number % 2], "nodes": rows,
            "answer": nodes - 1, "snapshots": [],
        }  # fmt: skip


def measure(page: Any, path: Path) -> dict[str, list[float]]:
    """Milliseconds by what was done."""
    started = time.perf_counter()
    page.goto(path.as_uri(), wait_until="commit")
    page.locator("#tree .outline").wait_for()
    drawn = 1000 * (time.perf_counter() - started)
    [paint] = page.evaluate(
        "performance.getEntriesByName('first-contentful-paint').map((e) => e.startTime)"
    )
    found = {"first contentful paint": [paint], "first tree drawn": [drawn]}

    def clicks(name: str, selector: str, wanted: str = "") -> None:
        found[name] = [
            page.evaluate(CLICK, [selector, i, wanted and wanted.format(i // 2)])
            for i in range(2, 2 + CLICKS)
        ]

    clicks("click on a node of the map", "#tree .map .node")
    page.locator("#tree .open-all").click()
    clicks("click on a step, all 512 open", "#tree .outline button.text")
    found["a frame of the player"] = [
        page.evaluate(CLICK, ["#tree .player input", 0, ""]) for _ in range(CLICKS)
    ]
    clicks("click on another tree", "#tree-table tbody button", "problem {}:")
    return found


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trees", type=int, default=500)
    parser.add_argument("--nodes", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    values = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "report.html"
        trees = random_trees(values.trees, values.nodes, values.seed)
        write_report({"schema_version": 1}, trees, path)
        print(f"{values.trees} trees of {values.nodes} nodes: {path.stat().st_size / 1e6:.1f} MB")
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        print("page says:", end=" ")
        found = measure(page, path)
        print(page.locator("#trees p[role=status]").inner_text())
        for name, times in found.items():
            middle = statistics.median(times)
            print(f"{name:30}  median {middle:6.0f} ms  longest {max(times):6.0f} ms")
        browser.close()


if __name__ == "__main__":
    main()
