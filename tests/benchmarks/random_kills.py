"""Kill a recipe at random moments, resume it each time, and compare its results with those of a run
that nobody interrupted.

python tests/benchmarks/random_kills.py recipes/countdown/smoke.yaml --kills 20 [--set KEY=VALUE]

A run is killed with all its processes after a random time, and started again, until it ends by
itself. Runs follow one another until there were as many kills as asked for. Each finished run must
have the files, usage and metrics of the first one, to the byte.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.integration.forked_stages import Fork

COMPARED = ("outputs", "usage", "metrics")
NOT_COMPARED = ("report.html", "results.json", "metrics.jsonl")  # they hold times
Child = subprocess.Popen[bytes] | Fork


def start(recipe: str, settings: list[str], folder: Path, forked: bool = False) -> Child:
    words = [f"output_dir={folder}", *settings]
    options = [word for setting in words for word in ("--set", setting)]
    log = folder.parent / f"{folder.name}.log"
    if forked:
        return Fork([recipe, *options], dict(os.environ), log)
    with log.open("ab") as sink:
        return subprocess.Popen(
            [sys.executable, "scripts/run_recipe.py", recipe, *options],
            stdout=sink,
            stderr=subprocess.STDOUT,
        )


def kill(child: Child) -> None:
    """Kill the recipe and all that it started, at once."""
    try:
        family = [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=60)
    child.wait()


def running_stage(folder: Path) -> str:
    """The stage that was begun last."""
    begun = sorted(folder.glob("*/.begun.json"), key=lambda path: path.stat().st_mtime)
    if not begun:
        return "before the first stage"
    finished = (begun[-1].parent / "manifest.json").exists()
    return f"after {begun[-1].parent.name}" if finished else begun[-1].parent.name


def cycles(path: Path) -> list[dict[str, Any]]:
    """The metrics of each cycle of a learner but its times; empty for another stage."""
    rows = [json.loads(line) for line in path.open(encoding="utf-8")] if path.exists() else []
    return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in rows]


def results(folder: Path) -> dict[str, Any]:
    """What each stage's manifest says of its results."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*/manifest.json")):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        values = {key: manifest[key] for key in COMPARED}
        values["outputs"] = {
            name: value for name, value in values["outputs"].items() if name not in NOT_COMPARED
        }
        values["cycles"] = cycles(path.parent / "metrics.jsonl")
        found[path.parent.name] = values
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--longest", type=float, default=40.0, help="seconds until a kill, at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--forked", action="store_true", help="the runs share their imports")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    root = Path(tempfile.mkdtemp(prefix="random-kills-"))
    print(f"folders and logs: {root}", flush=True)
    if start(options.recipe, options.settings, root / "whole", options.forked).wait() != 0:
        raise SystemExit(f"the run without kills failed: see {root}/whole.log")
    expected = results(root / "whole")
    kills: Counter[str] = Counter()
    different = 0
    while kills.total() < options.kills:
        folder = root / f"killed-{kills.total()}"
        while True:
            child = start(options.recipe, options.settings, folder, options.forked)
            deadline = time.monotonic() + draw.uniform(0, options.longest)
            while child.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            if child.poll() is not None or kills.total() >= options.kills:
                break
            kill(child)
            kills[running_stage(folder)] += 1
        if child.wait() != 0:
            raise SystemExit(f"a resumed run failed: see {folder}.log")
        found = results(folder)
        wrong = [name for name in expected if expected[name] != found.get(name)]
        different += bool(wrong)
        state = f"differs in {', '.join(wrong)}" if wrong else "equal"
        print(f"{folder.name}: {state}; {kills.total()} kills so far", flush=True)
    for stage, number in sorted(kills.items()):
        print(f"  {number:3d} kills in {stage}")
    raise SystemExit(bool(different))


if __name__ == "__main__":
    main()
