"""Run a whole recipe: python scripts/run_recipe.py recipes/countdown/demo.yaml [--dry-run]"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from types import FrameType

from trainer.pipeline.devices import DEVICES
from trainer.pipeline.live_run import LiveRun, read_live_run
from trainer.pipeline.live_server import serving
from trainer.pipeline.plan import print_plan
from trainer.pipeline.recipe import Pipeline, Stage, load_pipeline
from trainer.pipeline.run import run_pipeline, selected_stages, settled
from trainer.pipeline.smoke import build_twin, smoke_overrides
from trainer.pipeline.stage_checks import check_stages
from trainer.pipeline.sweep import expanded, log_trial, trial_of_a_sweep, trial_overrides
from trainer.runtime.launcher import launch
from trainer.runtime.manifests import is_complete

WATCH_PORT = 8765


def main() -> int:
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, _stop)
    continue_line = shlex.join(["python", *sys.argv])
    try:
        overrides, trial = expanded(options.set), trial_of_a_sweep()
        smoke = smoke_overrides(options.recipe, overrides) if options.smoke else None
        overrides = [*smoke.overrides] if smoke else overrides
        if trial:
            overrides = trial_overrides(options.recipe, overrides, trial)
        pipeline = settled(load_pipeline(options.recipe, overrides))
        stages = selected_stages(pipeline, options.start, options.only, options.until)
        missing = check_stages(pipeline, stages)
        if options.dry_run:
            print_plan(pipeline, stages, options.device)
            print("".join(f"{line}\n" for line in missing), end="")
            return 0
        if missing:
            raise ValueError(missing[0])
        for folder, original in (smoke.twins if smoke else {}).items():
            if not folder.exists():
                build_twin(original, folder, pipeline.seed)
        with _watched(pipeline, stages, options.recipe, options.watch):
            status = run_pipeline(pipeline, stages, continue_line)
        if trial and status == 0:
            log_trial(pipeline, trial)
        return status
    except KeyboardInterrupt:
        print(f"\nstopped. To continue:\n  {continue_line}", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("recipe", help="a YAML file with run_name, output_dir and stages")
    parser.add_argument("--dry-run", action="store_true", help="explain and estimate each stage")
    parser.add_argument(
        "--device", choices=DEVICES, help="device of each process, for the times of --dry-run"
    )
    parser.add_argument(
        "--smoke", action="store_true", help="a tiny copy of the run: minutes, on a CPU, offline"
    )
    parser.add_argument("--from", dest="start", metavar="STAGE", help="do not run earlier stages")
    parser.add_argument("--until", metavar="STAGE", help="do not run later stages")
    parser.add_argument("--only", metavar="STAGE", help="run only this stage")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="[STAGE.]KEY=VALUE",
        help="override a stage's argument, one of the recipe's values, or run_name, output_dir, "
        "seed, accelerate_config; or several as a JSON mapping",
    )
    parser.add_argument(
        "--watch",
        nargs="?",
        const=WATCH_PORT,
        type=int,
        metavar="PORT",
        help=f"serve a live page of the run to this machine (port {WATCH_PORT}; 0: a free one)",
    )
    parser.add_argument("--traceback", action="store_true", help="show where a mistake was raised")
    return parser


@contextlib.contextmanager
def _watched(
    pipeline: Pipeline, stages: Sequence[Stage], recipe: str, port: int | None
) -> Iterator[None]:
    if port is None:
        yield
        return

    @cache
    def settled_after(done: int) -> Pipeline:
        return settled(pipeline)  # takes seconds, and changes only when a stage is done

    def read() -> LiveRun:
        done = sum(is_complete(pipeline.folder(stage.name)) for stage in pipeline.stages)
        now = settled_after(done)
        names = {stage.name for stage in now.stages}
        return read_live_run(now, [stage for stage in stages if stage.name in names], recipe)

    with serving(read, port) as address:
        print(f"live page: {address}", flush=True)
        yield


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    launch(main)
