"""Run a whole recipe with stages that share their imports.

python tests/integration/forked_stages.py recipes/countdown/smoke.yaml --set output_dir=...

Importing torch, transformers and TRL costs a tiny stage most of its time. Here every stage of one
process is a fork of the recipe's process, which imports each stage's script first. Everything else
is as `scripts/run_recipe.py` does it: the stages' words, logs, locks, records and what kills them,
and the environment that `accelerate launch` would give. A stage of several processes is launched as
always.
"""

from __future__ import annotations

import atexit
import importlib
import os
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import IO, Any, NoReturn

from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_simple_launcher_cmd_env

from trainer.pipeline import launch

LAUNCHER = [sys.executable, "-m", "accelerate.commands.launch"]


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


def start(words: Sequence[str], **options: Any) -> ForkedStage | subprocess.Popen[bytes]:
    """In place of `subprocess.Popen` in trainer/pipeline/launch.py."""
    assert list(words[: len(LAUNCHER)]) == LAUNCHER
    parsed = launch_command_parser().parse_args(words[len(LAUNCHER) :])
    arguments, _, _ = _validate_launch_command(parsed)
    if arguments.use_deepspeed or arguments.multi_gpu or (arguments.num_processes or 1) > 1:
        return subprocess.Popen(words, **options)
    _, added = prepare_simple_launcher_cmd_env(arguments)
    environment = {**added, **options["env"]}
    stage = [arguments.training_script, *arguments.training_script_args]
    return ForkedStage(stage, options["stdout"], environment)


class Subprocess:
    """In place of the module `subprocess` in trainer/pipeline/launch.py."""

    Popen = staticmethod(start)
    STDOUT, DEVNULL = subprocess.STDOUT, subprocess.DEVNULL


if __name__ == "__main__":
    os.environ.update(launch.child_environment(1))
    launch.subprocess = Subprocess  # type: ignore[assignment]
    runpy.run_path("scripts/run_recipe.py", run_name="__main__")
