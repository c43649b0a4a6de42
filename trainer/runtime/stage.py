"""The frame every stage runs in: seeds, skip when complete, W&B, and the manifest written last."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data.types import ModelUsage, Usage
from rewards.verifiers.tally import TALLY
from trainer.runtime.command_line import as_mapping
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.input_identity import identity_of
from trainer.runtime.manifests import is_complete, read_json, write_json, write_manifest
from trainer.runtime.out_of_memory import explaining_out_of_memory
from trainer.runtime.processes import is_main_process, process_state, set_seed
from trainer.runtime.progress import showing_batches
from trainer.runtime.resources import measure
from trainer.runtime.tracking import Run, start_wandb
from trainer.runtime.training_settings import training_settings
from trainer.runtime.watchdog import WATCHDOG

BEGUN = ".begun.json"
# Inputs that only a folder or file can be; the others may be names on the hub.
ON_DISK = ("data", "labels", "trees", "trajectories", "problems")


@dataclass(slots=True)
class StageRecord:
    """What a stage fills in while it runs; it ends in the manifest and in W&B."""

    run: Run = field(default_factory=Run)  # the stage's W&B run
    metrics: dict[str, Any] = field(default_factory=dict)
    ledger: list[dict[str, Any]] = field(default_factory=list)
    # Called at the very end, while processes can still talk to each other.
    closing: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])

    def search(self, usage: Usage) -> None:
        """Count what a search spent on both models."""
        self.ledger.append({"model": "policy", "kind": "search", **asdict(usage.policy)})
        self.ledger.append({"model": "reward", "kind": "search", **asdict(usage.reward)})

    def training(self, model: str, tokens: int, flops: float) -> None:
        """Count training: `tokens` positions forward and backward, 3 forward passes' FLOPs."""
        usage = ModelUsage(prompt_tokens=tokens, positions=tokens, flops=flops)
        self.ledger.append({"model": model, "kind": "training", **asdict(usage)})


def numbered_inputs(name: str, paths: Sequence[str]) -> dict[str, str | None]:
    """Several inputs of one kind: `labels_0`, `labels_1`, ..."""
    return {f"{name}_{i}": path for i, path in enumerate(paths)}


def is_folder(path: str | None) -> bool:
    return path is not None and Path(path).is_dir()


def check_inputs(inputs: Mapping[str, str | None]) -> None:
    """Raises ValueError for one that is not there. `labels_1` is one of several `labels`."""
    for name, path in inputs.items():
        if path and not _is_there(name, path):
            kind = name.rstrip("0123456789").removesuffix("_")
            raise ValueError(f"{kind} is {path!r}: there is no such file or folder")


def check_begun(
    folder: Path, seed: int, configs: Sequence[Any], inputs: Mapping[str, str | None]
) -> dict[str, Any]:
    """Keep what a folder is made with and from in `.begun.json`, so that a stage which was cut off
    is not continued as another one. Returns what identifies each input.

    Raises ValueError naming what differs.
    """
    identities = {name: identity_of(path) for name, path in inputs.items() if path}
    settings = _settings(seed, configs, identities)
    begun = read_json(folder / BEGUN)
    if begun is None:
        if is_main_process():
            write_json(folder / BEGUN, settings)
    elif differing := _differences(begun, settings):
        raise ValueError(
            f"output_dir {str(folder)!r} holds unfinished work with other settings ("
            f"{differing}): remove it, or choose another folder"
        )
    return identities


def check_finished(
    folder: Path, seed: int, configs: Sequence[Any], inputs: Mapping[str, str | None]
) -> None:
    """Raises ValueError where a finished folder was made with other settings, or from inputs that
    are now others. An input that is no longer there is not compared."""
    begun = read_json(folder / BEGUN)
    if begun is None:
        return
    there = {name: path for name, path in inputs.items() if path and _is_there(name, path)}
    now = _settings(seed, configs, {name: identity_of(path) for name, path in there.items()})
    gone = {f"input {name}" for name, path in inputs.items() if path and name not in there}
    then = {key: value for key, value in begun.items() if key not in gone}
    if differing := _differences(then, now):
        raise ValueError(
            f"output_dir {str(folder)!r} is finished, but with other settings ({differing}): "
            "choose another folder, or remove this one to make it anew"
        )


def _settings(seed: int, configs: Sequence[Any], identities: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a stage's result: its seed, its settings and its inputs."""
    settings: dict[str, Any] = {"seed": seed}
    for config in configs:
        values = as_mapping(config)
        settings |= training_settings(values) if hasattr(config, "to_dict") else values
    return settings | {f"input {name}": identity for name, identity in identities.items()}


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The keys that differ, with both values where these are plain; empty where none differs."""
    keys = sorted(key for key in {*then, *now} if then.get(key) != now.get(key))
    plain = (int, float, str, bool, type(None))
    return ", ".join(
        f"{key}: {then.get(key)!r} then, {now.get(key)!r} now"
        if not key.startswith("input ")
        and isinstance(then.get(key), plain)
        and isinstance(now.get(key), plain)
        else key
        for key in keys
    )


def _is_there(name: str, path: str) -> bool:
    kind = name.rstrip("0123456789").removesuffix("_")
    return kind not in ON_DISK or Path(path).exists()


def _verdicts(before: Mapping[str, int]) -> dict[str, int]:
    """How often verifiers said what during a stage, time-outs apart, summed over all ranks: as
    "verdicts/<verifier>/<outcome>", of the verifiers that were asked. Every rank must call it."""
    from accelerate.utils import gather_object

    total: Counter[str] = Counter()
    for counts in gather_object([TALLY.snapshot()]):
        total.update(counts)
    for counts in gather_object([dict(before)]):
        total.subtract(counts)
    asked = {name.partition("/")[0] for name, count in total.items() if count}
    return {
        f"verdicts/{name}": count
        for name, count in sorted(total.items())
        if name.partition("/")[0] in asked
    }


@contextmanager
def run_stage(
    stage: str,
    runtime: RuntimeConfig,
    configs: Sequence[Any],
    inputs: Mapping[str, str | None],
    check: Callable[[], None] = lambda: None,
) -> Iterator[StageRecord]:
    """Run a stage's body. On leaving without an error rank 0 writes the manifest, by rename, so a
    folder without one never counts. Checkpoints of a training are removed once the manifest is
    there. `check` may raise further ValueErrors before anything is written.

    Raises SystemExit(0) when the folder is complete already. Raises ValueError when it was begun
    or completed with other settings, and for inputs that are not there.
    """
    folder = Path(runtime.output_dir)
    if is_complete(folder):
        check_finished(folder, runtime.seed, configs, inputs)
        print(f"{folder} is complete; nothing to do")
        raise SystemExit(0)
    check_inputs(inputs)
    check()
    state = process_state()
    folder.mkdir(parents=True, exist_ok=True)
    resumed = (folder / BEGUN).exists()
    identities = check_begun(folder, runtime.seed, configs, inputs)
    set_seed(runtime.seed)
    started = time.monotonic()
    recipe = as_mapping(runtime, *configs)
    sources = {name: Path(path) for name, path in inputs.items() if path and Path(path).exists()}
    with start_wandb(runtime, stage=stage, recipe=recipe) as run:
        record = StageRecord(run=run)
        for name, path in sources.items():
            if is_complete(path):
                run.use_folder(name, path, "stage")
        before = TALLY.snapshot()
        with (
            WATCHDOG.watching(runtime.hang_seconds),
            showing_batches(stage),
            explaining_out_of_memory(configs),
        ):
            yield record
        record.metrics |= _verdicts(before)
        state.wait_for_everyone()
        if state.is_main_process:
            numbers = {k: v for k, v in record.metrics.items() if isinstance(v, int | float)}
            seconds = time.monotonic() - started
            resources = asdict(
                measure(record.ledger, seconds, state.num_processes, resumed=resumed)
            )
            numbers |= {k: v for k, v in resources.items() if isinstance(v, int | float)}
            run.log({f"{stage}/{name}": value for name, value in numbers.items()})
            write_manifest(
                folder,
                stage=stage,
                recipe=recipe,
                seed=runtime.seed,
                inputs=sources,
                usage={"ledger": record.ledger},
                metrics=record.metrics,
                seconds=seconds,
                extra={
                    "inputs": {k: v for k, v in identities.items() if not is_folder(inputs[k])},
                    "resources": resources,
                },
            )
            run.log_folder(runtime.run_name or stage, folder, stage)
            for checkpoint in folder.glob("checkpoint-*"):
                shutil.rmtree(checkpoint)
        state.wait_for_everyone()
        for close in record.closing:
            close()
    # Threads of gloo that outlive the interpreter abort it (SIGABRT), now and then.
    state.destroy_process_group()
