"""One uninterrupted smoke run for all tests here, with real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


class Checkout:
    """Commands as a user runs them, in the checkout."""

    root = Path(__file__).resolve().parents[2]
    smoke = "recipes/countdown/smoke.yaml"

    def environment(self, **more: str) -> dict[str, str]:
        fixed = {
            "WANDB_MODE": "offline",
            "HF_HUB_OFFLINE": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
            "PYTHONPATH": str(self.root),
        }
        return {**os.environ, **fixed, **more}

    def recipe(self, folder: Path, recipe: str = smoke) -> list[str]:
        return [sys.executable, "scripts/run_recipe.py", recipe, "--set", f"output_dir={folder}"]

    def stage(self, script: str, config: str, *words: str, accelerate: str = "cpu") -> list[str]:
        return [
            *(sys.executable, "-m", "accelerate.commands.launch"),
            *("--config_file", f"recipes/accelerate/{accelerate}.yaml"),
            *(f"scripts/{script}", "--config", str(Path("recipes/countdown/stages") / config)),
            *words,
        ]

    def run(self, words: list[str], fails: bool = False, **environment: str) -> str:
        """What the command printed; the test fails unless the command ended as it should."""
        done = subprocess.run(
            words,
            cwd=self.root,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        assert (done.returncode != 0) == fails, done.stdout[-5000:]
        return done.stdout


@pytest.fixture(scope="session")
def checkout() -> Checkout:
    return Checkout()


@pytest.fixture(scope="session")
def smoke_run(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smoke") / "run"
    checkout.run(checkout.recipe(folder))
    return folder
