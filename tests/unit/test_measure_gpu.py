"""The prepared check of a GPU runs, here on tiny models, with torch and transformers alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Installed with this project, and not with torch and transformers.
NOT_NEEDED = ("accelerate", "datasets", "peft", "psutil", "trl", "wandb", "gguf")
CODE = """
import runpy, sys
for name in sys.argv.pop(1).split(","):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(*words: str) -> subprocess.CompletedProcess[str]:
    script = [",".join(NOT_NEEDED), "scripts/measure_gpu.py", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, "-c", CODE, *script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_every_measurement_runs_tiny(tmp_path: Path) -> None:
    page = tmp_path / "gpu.md"
    done = run("--tiny", "--out", str(page))
    assert done.returncode == 0, done.stderr[-3000:]
    rows = re.findall(r"^\| Qwen/Qwen2\.5-(\S+) \| ([^,]+), (.+) \|$", page.read_text(), re.M)
    works = ["SFT step", "PRM step", "sampling", "sampling", "MCTS", "PPO rollouts", "PPO update"]
    assert [(size, work) for size, work, _ in rows] == [
        (size, work) for size in ("0.5B", "1.5B") for work in works
    ]
    for _, _, cells in rows:
        seconds, rate, share, memory = cells.split(" | ")[1:]
        assert float(seconds) > 0 and float(memory) > 0 and 0 <= float(share) < 100
        assert float(rate.split()[0].replace(",", "")) > 0
    assert "Not measured" not in page.read_text()


@pytest.mark.slow
def test_without_a_gpu_it_says_what_to_do() -> None:
    done = run()
    assert done.returncode == 2
    assert "there is no GPU here: --tiny measures tiny models on the CPU" in done.stderr
    done = run("--tiny", "--minutes", "0")
    assert done.returncode == 0 and done.stdout.count("no time was left") >= 10
