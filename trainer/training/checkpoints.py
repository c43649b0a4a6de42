"""Checkpoints with a manifest that shows whether they are complete.

The Trainer writes a checkpoint's files one after another. If a run dies during a save, it leaves a
folder that looks like a complete checkpoint. So after every process has finished writing,
`checkpoint_manifest.json` is written by rename. It lists the files and their sizes. A run never
resumes from a checkpoint without this file or with other sizes, and no checkpoint is removed before
the next one is complete.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import IntervalStrategy

from rewards.verifiers.tally import TALLY
from trainer.runtime.manifests import read_json, write_json
from trainer.runtime.processes import is_main_process
from trainer.runtime.verdict_counts import verdicts_of_all_ranks
from trainer.training.batch_size import sequences_per_update

CHECKPOINT_MANIFEST = "checkpoint_manifest.json"
# How the processes hold the optimizer's states.
PLAIN, ZERO_2 = "every process holds all of it", "DeepSpeed ZeRO-2"


def latest_checkpoint(folder: str | Path) -> Path | None:
    """The newest complete `checkpoint-N` in `folder`; None if there is none."""
    whole = [path for path in _checkpoints(Path(folder)) if is_whole(path)]
    return whole[-1] if whole else None


def is_whole(checkpoint: Path) -> bool:
    manifest = read_json(checkpoint / CHECKPOINT_MANIFEST)
    return manifest is not None and all(
        (checkpoint / name).is_file() and (checkpoint / name).stat().st_size == size
        for name, size in manifest["bytes"].items()
    )


def remove_partial_checkpoints(folder: str | Path) -> list[str]:
    """Delete the incomplete `checkpoint-N` folders, and return their names."""
    partial = [path for path in _checkpoints(Path(folder)) if not is_whole(path)]
    for path in partial:
        shutil.rmtree(path)
    return [path.name for path in partial]


class CheckpointManifest(TrainerCallback):
    """Marks each saved checkpoint as complete, and removes incomplete ones when the trainer is
    built. It also applies `save_total_limit`, because the Trainer would remove the last complete
    checkpoint before the next one is marked."""

    limit: int | None = None

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.limit, args.save_total_limit = args.save_total_limit, None
        if is_main_process():
            for name in remove_partial_checkpoints(args.output_dir):
                print(f"{name} in {args.output_dir} was not written to its end: removed")
        _wait_for_everyone()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log before every save. A checkpoint does not hold the losses since the last log, so a
        resumed run would log the mean of fewer steps."""
        if control.should_save and args.logging_strategy != IntervalStrategy.NO:
            control.should_log = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        _wait_for_everyone()  # every rank saves the state of its random generator
        verdicts = verdicts_of_all_ranks()
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if is_main_process() and checkpoint.is_dir():
            batch = sequences_per_update(args)
            mark_whole(
                checkpoint, state.global_step, args.world_size, batch=batch, verdicts=verdicts
            )
            if self.limit:
                for path in _checkpoints(Path(args.output_dir))[: -self.limit]:
                    shutil.rmtree(path)


def mark_whole(
    checkpoint: Path,
    step: int,
    processes: int,
    *,
    verdicts: Mapping[str, int],
    batch: int | None = None,
) -> None:
    """Force the files of a fully written checkpoint to the disk, and write its manifest. Only the
    main process may call this. `batch` is the number of sequences per update. `verdicts` are the
    counts of all ranks since the stage began."""
    sizes: dict[str, int] = {}
    for path in sorted(checkpoint.rglob("*")):
        if path.is_file() and path.name != CHECKPOINT_MANIFEST:
            with path.open("rb") as file:
                os.fsync(file.fileno())
            sizes[path.relative_to(checkpoint).as_posix()] = path.stat().st_size
    manifest = {
        "step": step,
        "processes": processes,
        "batch": batch,
        "optimizer": optimizer_sharding(),
        "verdicts": dict(verdicts),
        "bytes": sizes,
    }
    write_json(checkpoint / CHECKPOINT_MANIFEST, manifest)


def optimizer_sharding() -> str:
    """`PLAIN`; or with DeepSpeed the name and stage, for example "DeepSpeed ZeRO-3"."""
    from accelerate.state import AcceleratorState

    plugin = AcceleratorState().deepspeed_plugin if AcceleratorState._shared_state else None
    return PLAIN if plugin is None else f"DeepSpeed ZeRO-{plugin.zero_stage}"


def resume_from(arguments: Any) -> str | None:
    """The checkpoint from which a trainer with these arguments continues, or None if it starts from
    the beginning. Prints what is restored. Call it once the trainer is built: only then are partial
    checkpoints removed. Raises ValueError for a checkpoint that this run cannot continue
    (`check_resumable`)."""
    checkpoint = latest_checkpoint(arguments.output_dir)
    if checkpoint is None:
        return None
    made = check_resumable(checkpoint, arguments.world_size, sequences_per_update(arguments))
    if is_main_process():
        TALLY.add(made.get("verdicts", {}))
        parts = "weights, optimizer, schedule, data position"
        made_by = made["processes"]
        same = made_by == arguments.world_size
        rest = "random state" if same else f"not the random state, which is that of {made_by}"
        print(
            f"resumed after step {made['step']} from {checkpoint} on {arguments.world_size} "
            f"processes: {parts}, {rest}",
            flush=True,
        )
    return str(checkpoint)


def train_to_the_end(
    trainer: Any,
    *,
    count_tokens: bool = True,
    restore: Callable[[Path], None] = lambda checkpoint: None,
) -> None:
    """Train with a transformers trainer from the newest whole checkpoint, if there is one, which
    `restore` gets first. `count_tokens` counts the tokens of every batch, without padding, in
    `trainer.state.num_input_tokens_seen`; a checkpoint keeps the count.

    A checkpoint of the last update is restored and nothing more is trained: the Trainer itself
    takes a step before it compares their number with `max_steps`. Raises ValueError for a
    checkpoint that this run cannot continue (`check_resumable`).
    """
    if count_tokens:
        trainer.args.include_num_input_tokens_seen = "non_padding"
    checkpoint = resume_from(trainer.args)
    if checkpoint is not None:
        restore(Path(checkpoint))
    if checkpoint is not None and _is_of_the_last_update(Path(checkpoint)):

        def no_update(**_: Any) -> None:
            trainer.control.should_training_stop = True

        trainer._run_epoch = no_update
    trainer.train(resume_from_checkpoint=checkpoint)


def _is_of_the_last_update(checkpoint: Path) -> bool:
    """Also where a callback ended the training before `max_steps`."""
    state = read_json(checkpoint / TRAINER_STATE_NAME) or {}
    control = state.get("stateful_callbacks", {}).get("TrainerControl", {}).get("args", {})
    ended = bool(control.get("should_training_stop"))
    return ended or ("max_steps" in state and state["global_step"] >= state["max_steps"])


def check_resumable(checkpoint: Path, processes: int, batch: int | None = None) -> dict[str, Any]:
    """The checkpoint's manifest, if this run can continue from the checkpoint.

    Raises ValueError in three cases. The optimizer was held in another way. DeepSpeed divided the
    optimizer among another number of processes, and cannot divide it anew. An update took another
    number of sequences, so that the position in the data would be another. `batch` is the number
    of sequences per update; None where it is not recorded.
    """
    made = read_json(checkpoint / CHECKPOINT_MANIFEST) or {}
    now = optimizer_sharding()
    then = made.get("optimizer", now)
    begin = f"or remove {checkpoint.parent} to start from the beginning"
    if then != now:
        raise ValueError(
            f"{checkpoint} was saved with another optimizer layout ({then}; now: {now}): launch "
            f"with the accelerate config of the first launch, {begin}"
        )
    if now != PLAIN and made["processes"] != processes:
        raise ValueError(
            f"{checkpoint} was saved by {made['processes']} processes under {now}, which cannot "
            f"continue with {processes}: launch with --num_processes {made['processes']}, {begin}"
        )
    if made.get("batch") not in (None, batch):
        raise ValueError(
            f"{checkpoint} was saved with {made['batch']} sequences per update, but this run takes "
            f"{batch}: set global_batch_size to {made['batch']}, {begin}"
        )
    return made


def _checkpoints(folder: Path) -> list[Path]:
    found = [
        path
        for path in folder.glob("checkpoint-*")
        if path.is_dir() and path.name.removeprefix("checkpoint-").isdigit()
    ]
    return sorted(found, key=lambda path: int(path.name.removeprefix("checkpoint-")))


def _wait_for_everyone() -> None:
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
