"""The frame of every stage: it sets seeds, skips a complete folder, opens W&B, and writes the
manifest last."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data.types import ServedTokens, Usage
from rewards.verifiers.tally import TALLY
from trainer.runtime.command_line import recipe_mapping
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.input_identity import identity_of
from trainer.runtime.ledger import LedgerEntry, search_entry, training_entry
from trainer.runtime.manifests import MANIFEST, is_complete, read_json, write_json, write_manifest
from trainer.runtime.out_of_memory import explaining_out_of_memory
from trainer.runtime.processes import is_main_process, process_state, set_seed
from trainer.runtime.progress import showing_batches
from trainer.runtime.resources import measure
from trainer.runtime.tracking import Run, start_wandb
from trainer.runtime.training_settings import training_settings
from trainer.runtime.verdict_counts import verdicts_of_all_ranks
from trainer.runtime.watchdog import WATCHDOG

BEGUN = ".begun.json"
# Inputs that must be a folder or file; the others may be names on the hub.
ON_DISK = (
    "data",
    "labels",
    "trees",
    "trajectories",
    "problems",
    "router",
    "comparison",
    "test_comparison",
    "data_making_search",
    "demonstrations_file",
    "train_file",
    "validation_file",
    "test_file",
)
# Inputs that are a file, or a data set's name with its split, as in openai/gsm8k:main:test.
ROWS = ("train_rows", "more_train_rows", "test_rows", "contamination_sets")


@dataclass(slots=True)
class StageRecord:
    """A stage fills this record while it runs. The manifest and W&B get its content."""

    run: Run = field(default_factory=Run)  # the stage's W&B run
    metrics: dict[str, Any] = field(default_factory=dict)
    ledger: list[LedgerEntry] = field(default_factory=list[LedgerEntry])
    # These functions are called at the end, while processes can still communicate.
    closing: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])

    def search(self, usage: Usage, served: ServedTokens | None = None) -> None:
        """Count what a search spent on both models, and what servers of the policy did for it."""
        self.ledger.append(search_entry("policy", usage.policy))
        self.ledger.append(search_entry("reward", usage.reward))
        for name, value in asdict(served).items() if served is not None else ():
            self.metrics[f"server_{name}"] = self.metrics.get(f"server_{name}", 0) + value

    def training(self, model: str, tokens: int, flops: float) -> None:
        """Count training: `tokens` positions forward and backward, 3 forward passes' FLOPs."""
        self.ledger.append(training_entry(model, tokens, flops))

    def warn(self, text: str) -> None:
        """Print a warning, and keep it for the manifest and the report."""
        if is_main_process():
            print(f"warning: {text}", flush=True)
        self.metrics.setdefault("warnings", []).append(text)

    def check_start(self, policy: str) -> None:
        """Warn where the training of the starting policy ended before its accuracy was at its
        plateau: what a learner gains from there, more updates of that training may give too."""
        manifest = read_json(Path(policy) / MANIFEST)
        if manifest is not None and manifest["metrics"].get("still_rising"):
            self.warn(
                f"the validation accuracy of the starting policy {policy!r} was still rising when "
                "its training ended: train it longer (patience, max_steps), and compare with "
                "further updates on the demonstrations alone (updates_like)"
            )


def numbered_inputs(name: str, paths: Sequence[str]) -> dict[str, str | None]:
    """Several inputs of one kind: `labels_0`, `labels_1`, ..."""
    return {f"{name}_{i}": path for i, path in enumerate(paths)}


def is_folder(path: str | None) -> bool:
    return path is not None and Path(path).is_dir()


def check_inputs(inputs: Mapping[str, str | None]) -> None:
    """Raises ValueError for a missing input. `labels_1` is one of several `labels`."""
    for name, path in inputs.items():
        if path and not _is_there(name, path):
            kind = name.rstrip("0123456789").removesuffix("_")
            raise ValueError(f"{kind} is {path!r}: there is no such file or folder")


def check_begun(
    folder: Path,
    seed: int,
    configs: Sequence[Any],
    inputs: Mapping[str, str | None],
    *,
    restarts: bool = False,
) -> dict[str, Any]:
    """Write the settings and inputs of a folder to `.begun.json`, so that an interrupted stage
    never continues with other ones. A stage that `restarts` continues nothing, and may begin again
    with others. Returns the identity of each input.

    Raises ValueError and names the settings or inputs that differ.
    """
    identities = {name: identity_of(path) for name, path in inputs.items() if path}
    settings = _settings(seed, configs, identities)
    begun = read_json(folder / BEGUN)
    if begun is None or restarts:
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
        values = recipe_mapping(config)
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
    if kind in ROWS:
        return ":" in path or Path(path).exists()
    return kind not in ON_DISK or Path(path).exists()


@dataclass(frozen=True, kw_only=True)
class _Begun:
    """What a stage runs with. `sources` are the inputs on disk. `identities` identify the inputs
    that are not folders. `started` is a time of the monotonic clock, in seconds."""

    stage: str
    folder: Path
    seed: int
    recipe: dict[str, Any]
    sources: dict[str, Path]
    identities: dict[str, Any]
    resumed: bool
    started: float


def _begin(
    stage: str,
    runtime: RuntimeConfig,
    configs: Sequence[Any],
    inputs: Mapping[str, str | None],
    *,
    restarts: bool,
) -> _Begun:
    """Make the folder, keep the settings that it is made with, and set the seed."""
    folder = Path(runtime.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    resumed = (folder / BEGUN).exists()
    identities = check_begun(folder, runtime.seed, configs, inputs, restarts=restarts)
    set_seed(runtime.seed)
    return _Begun(
        stage=stage,
        folder=folder,
        seed=runtime.seed,
        recipe=recipe_mapping(runtime, *configs),
        sources={name: Path(path) for name, path in inputs.items() if path and Path(path).exists()},
        identities={k: v for k, v in identities.items() if not is_folder(inputs[k])},
        resumed=resumed,
        started=time.monotonic(),
    )


def _complete(begun: _Begun, record: StageRecord, processes: int) -> None:
    """Log the stage's numbers and write its manifest."""
    seconds = time.monotonic() - begun.started
    resources = asdict(measure(record.ledger, seconds, processes, resumed=begun.resumed))
    record.run.log(
        {
            f"{begun.stage}/{name}": value
            for name, value in (record.metrics | resources).items()
            if isinstance(value, int | float)
        }
    )
    write_manifest(
        begun.folder,
        stage=begun.stage,
        recipe=begun.recipe,
        seed=begun.seed,
        inputs=begun.sources,
        usage={"ledger": [asdict(entry) for entry in record.ledger]},
        metrics=record.metrics,
        seconds=seconds,
        extra={"inputs": begun.identities, "resources": resources},
    )


@contextmanager
def run_stage(
    stage: str,
    runtime: RuntimeConfig,
    configs: Sequence[Any],
    inputs: Mapping[str, str | None],
    check: Callable[[], None] = lambda: None,
    *,
    restarts: bool = False,
) -> Iterator[StageRecord]:
    """Run a stage's body in this context. If the body ends without an error, rank 0 writes the
    manifest by rename; a folder without a manifest is never complete. Training checkpoints are
    removed after the manifest is written.

    Raises SystemExit(0) if the folder is already complete. Raises ValueError for missing inputs,
    and if the folder was completed with other settings, or begun with others and the stage does not
    begin anew each time (`restarts`). `check` may raise further errors before anything is
    written."""
    folder = Path(runtime.output_dir)
    if is_complete(folder):
        check_finished(folder, runtime.seed, configs, inputs)
        print(f"{folder} is complete; nothing to do")
        raise SystemExit(0)
    check_inputs(inputs)
    check()
    state = process_state()
    begun = _begin(stage, runtime, configs, inputs, restarts=restarts)
    with start_wandb(runtime, stage=stage, recipe=begun.recipe) as run:
        record = StageRecord(run=run)
        for name, path in begun.sources.items():
            if is_complete(path):
                run.use_folder(name, path, "stage")
        TALLY.clear()
        with (
            WATCHDOG.watching(runtime.hang_seconds),
            showing_batches(stage),
            explaining_out_of_memory(configs),
        ):
            yield record
        record.metrics |= {f"verdicts/{k}": count for k, count in verdicts_of_all_ranks().items()}
        state.wait_for_everyone()
        if state.is_main_process:
            _complete(begun, record, state.num_processes)
            run.log_folder(runtime.run_name or stage, folder, stage)
            for checkpoint in folder.glob("checkpoint-*"):
                shutil.rmtree(checkpoint)
        state.wait_for_everyone()
        for close in record.closing:
            close()
    # If gloo's threads outlive the interpreter, they sometimes abort it (SIGABRT).
    state.destroy_process_group()
