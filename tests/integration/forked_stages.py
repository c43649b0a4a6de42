"""Run a whole recipe, or one stage, with processes that share their imports.

python tests/integration/forked_stages.py recipes/countdown/smoke.yaml --set output_dir=...
python tests/integration/forked_stages.py --config_file recipes/accelerate/cpu.yaml scripts/... ...

Importing torch, transformers and TRL costs a tiny stage most of its time. Here every stage of one
process is a fork of the recipe's process, which imports each stage's script first. Everything else
is as `scripts/run_recipe.py` does it: the stages' words, logs, locks, records and what kills them,
and the environment that `accelerate launch` would give. A stage of several processes is launched as
always. The tests go one step further: `Fork` runs the same as a fork of a process that has imported
everything already, so that the next recipe imports nothing.
"""

from __future__ import annotations

import atexit
import importlib
import multiprocessing
import multiprocessing.forkserver
import os
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn
from unittest import mock

from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_simple_launcher_cmd_env

from trainer.pipeline import launch

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = [sys.executable, "-m", "accelerate.commands.launch"]
ONE_STAGE = "--config_file"  # the first word of what `accelerate launch` gets; a recipe otherwise


class ForkedStage:
    """What the pipeline uses of `subprocess.Popen`, for a fork of this process."""

    def __init__(
        self, words: Sequence[str], stdout: IO[bytes], environment: Mapping[str, str]
    ) -> None:
        importlib.import_module(words[0].removesuffix(".py").replace("/", "."))
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _run_stage(words, stdout.fileno(), environment)

    def poll(self) -> int | None:
        return self._wait(os.WNOHANG)

    def wait(self) -> int | None:
        return self._wait(0)

    def _wait(self, options: int) -> int | None:
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, options)
            except ChildProcessError:  # psutil waited for it
                pid, status = self.pid, 0
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def _run_stage(words: Sequence[str], stdout: int, environment: Mapping[str, str]) -> NoReturn:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(stdout, 1)
    os.dup2(stdout, 2)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = list(words)
    status: Any = 0
    try:
        runpy.run_path(words[0], run_name="__main__")
    except SystemExit as exit_:
        status = exit_.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 1)


def accelerated(words: Sequence[str]) -> tuple[list[str], dict[str, str]] | None:
    """The stage's words and what `accelerate launch` adds to its environment. None for a stage of
    several processes."""
    parsed = launch_command_parser().parse_args(list(words))
    arguments, _, _ = _validate_launch_command(parsed)
    if arguments.use_deepspeed or arguments.multi_gpu or (arguments.num_processes or 1) > 1:
        return None
    _, added = prepare_simple_launcher_cmd_env(arguments)
    return [arguments.training_script, *arguments.training_script_args], added


def start(words: Sequence[str], **options: Any) -> ForkedStage | subprocess.Popen[bytes]:
    """In place of `subprocess.Popen` in trainer/pipeline/launch.py."""
    assert list(words[: len(LAUNCHER)]) == LAUNCHER
    if (found := accelerated(words[len(LAUNCHER) :])) is None:
        return subprocess.Popen(words, **options)
    stage, added = found
    return ForkedStage(stage, options["stdout"], {**added, **options["env"]})


class Subprocess:
    """In place of the module `subprocess` in trainer/pipeline/launch.py."""

    Popen = staticmethod(start)
    STDOUT, DEVNULL = subprocess.STDOUT, subprocess.DEVNULL


def run(words: Sequence[str]) -> None:
    """The recipe or the stage, in this process."""
    if words[0] == ONE_STAGE:
        found = accelerated(words)
        assert found is not None, f"not a launch of one process: {words[1]}"
        stage, added = found
        os.environ.update({**added, **os.environ})
        sys.argv = stage
        runpy.run_path(stage[0], run_name="__main__")
        return
    os.environ.update(launch.child_environment(1))
    launch.subprocess = Subprocess  # type: ignore[assignment]
    sys.argv = ["scripts/run_recipe.py", *words]
    runpy.run_path(sys.argv[0], run_name="__main__")


def _run_fork(words: Sequence[str], environment: Mapping[str, str], log: str) -> None:
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    try:
        run(words)
    finally:
        atexit._run_exitfuncs()


class Fork:
    """What the tests use of `subprocess.Popen`, for a fork of a server that imported everything.

    The output is appended to `log`. The server starts with the first fork, and ends with the
    process that started it.
    """

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        names = sorted(path.stem for path in (ROOT / "scripts").glob("*.py"))
        context.set_forkserver_preload([__name__, *(f"scripts.{name}" for name in names)])
        with mock.patch.dict(os.environ, {**environment, "PYTHONHASHSEED": "0"}):
            multiprocessing.forkserver.ensure_running()
        self._process = context.Process(target=_run_fork, args=(words, environment, str(log)))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status. Raises TimeoutError."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutError(f"process {self.pid} runs after {timeout:g} s")
        return self._process.exitcode


if __name__ == "__main__":
    run(sys.argv[1:])
