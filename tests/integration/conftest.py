"""One uninterrupted smoke run for all tests here, with real processes.

The tests may run in two workers of pytest-xdist (`-n 2 --dist loadfile`). One worker runs all tests
of a file, since they share what they set up, or may not run beside each other.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.integration.forked_stages import Fork
from tests.integration.processes import kill_family

HERE = Path(__file__).parent
FORKED = "tests/integration/forked_stages.py"
# The order in which workers take the files: the smoke run that others wait for, then what takes
# long, then what is quick, so that all workers end at about the same time.
FILES = (
    *("test_loop.py", "test_smoke_runs.py", "test_ppo.py", "test_sandbox.py", "test_gsm8k.py"),
    *(
        "test_real_model.py",
        "test_single_stages.py",
        "test_distribution.py",
        "test_all_rewritings.py",
        "test_families.py",
    ),
    *("test_pairs.py", "test_scoring_server.py", "test_vllm_rollouts.py", "test_vllm_search.py"),
    *("test_report.py", "test_tree_explorer.py", "test_live_page.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {HERE / name: rank for rank, name in enumerate(FILES)}
    items.sort(key=lambda item: ranks.get(item.path, len(FILES)))


class Checkout:
    """Commands as a user runs them, in the checkout."""

    root = Path(__file__).resolve().parents[2]
    smoke = "recipes/countdown/smoke.yaml"

    def environment(self, **more: str) -> dict[str, str]:
        """Without W&B, which costs every stage 2 seconds; the smoke runs and kills turn it on."""
        fixed = {
            "WANDB_MODE": "disabled",
            "HF_HUB_OFFLINE": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
            "PYTHONPATH": str(self.root),
        }
        return {**os.environ, **fixed, **more}

    def recipe(self, folder: Path, recipe: str = smoke) -> list[str]:
        return [sys.executable, "scripts/run_recipe.py", recipe, "--set", f"output_dir={folder}"]

    def forked_recipe(self, folder: Path, recipe: str = smoke) -> list[str]:
        """The same recipe, whose stages share their imports: a quarter of the time."""
        words = self.recipe(folder, recipe)
        return [words[0], FORKED, *words[2:]]

    def stage(self, script: str, config: str, *words: str, accelerate: str = "cpu") -> list[str]:
        return [
            *(sys.executable, "-m", "accelerate.commands.launch"),
            *("--config_file", f"recipes/accelerate/{accelerate}.yaml"),
            *(f"scripts/{script}", "--config", str(Path("recipes/countdown/stages") / config)),
            *words,
        ]

    def forked_stage(self, script: str, config: str, *words: str) -> list[str]:
        """The same stage in one process, without the 7 seconds of its imports."""
        return [sys.executable, FORKED, *self.stage(script, config, *words)[3:]]

    def launched(self, script: str, config: str, accelerate: str, *words: str) -> list[str]:
        """One process without its imports, several by the launcher."""
        if accelerate == "cpu":
            return self.forked_stage(script, config, *words)
        return self.stage(script, config, *words, accelerate=accelerate)

    def start(
        self, words: list[str], log: Path | None = None, **environment: str
    ) -> Fork | subprocess.Popen[bytes]:
        """The command as a process of its own, whose output goes to `log`."""
        log = log or Path(os.devnull)
        if words[1] == FORKED:
            return Fork(words[2:], self.environment(**environment), log)
        with log.open("ab") as sink:
            return subprocess.Popen(
                words,
                cwd=self.root,
                env=self.environment(**environment),
                stdout=sink,
                stderr=subprocess.STDOUT,
            )

    def run(self, words: list[str], fails: bool = False, **environment: str) -> str:
        """What the command printed; the test fails unless the command ended as it should."""
        with tempfile.NamedTemporaryFile() as file:
            log = Path(file.name)
            child = self.start(words, log, **environment)
            try:
                status = child.wait(timeout=600)
            except BaseException:
                kill_family(child)
                print(log.read_text(encoding="utf-8", errors="replace")[-5000:])
                raise
            printed = log.read_text(encoding="utf-8", errors="replace")
        assert (status != 0) == fails, printed[-5000:]
        return printed


@pytest.fixture(scope="session")
def checkout() -> Checkout:
    return Checkout()


@pytest.fixture(scope="session")
def smoke_run(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The worker that needs it first makes it; the others wait."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # the folder of all workers
    folder, finished = root / "smoke" / "run", root / "smoke.finished"
    with FileLock(root / "smoke.lock"):
        if not finished.exists():
            checkout.run(checkout.forked_recipe(folder), WANDB_MODE="offline")
            finished.touch()
    return folder


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
