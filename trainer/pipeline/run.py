"""Runs the stages of a recipe in order. It skips unchanged stages, resumes interrupted ones, and
records all of them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data.settings import read_yaml_mapping, suggestion
from trainer.pipeline.fingerprints import stage_fingerprint
from trainer.pipeline.launch import (
    busy_cores_note,
    child_environment,
    command_line,
    exclusive,
    launcher_words,
    run_logged,
    tail,
)
from trainer.pipeline.recipe import Pipeline, Stage, stage_words
from trainer.report.console import print_results
from trainer.runtime.manifests import (
    MANIFEST,
    hash_file,
    is_complete,
    read_json,
    read_manifest,
    write_json,
)
from trainer.runtime.progress import StatusLine

TAIL_LINES = 25


# ---------------------------------------------------------------- running


@dataclass(frozen=True, kw_only=True)
class Record:
    """The content of `<output_dir>/stages/<name>.json`. `seconds` is wall time over all attempts.
    `manifest` is the hash of the finished folder's manifest; it is empty before that."""

    fingerprint: str
    seconds: float = 0.0
    attempts: int = 0
    manifest: str = ""


def _record_path(pipeline: Pipeline, name: str) -> Path:
    return Path(pipeline.output_dir) / "stages" / f"{name}.json"


def stage_record(pipeline: Pipeline, name: str) -> Record | None:
    values = read_json(_record_path(pipeline, name))
    return Record(**values) if values else None


def _write_record(pipeline: Pipeline, name: str, record: Record) -> None:
    write_json(_record_path(pipeline, name), vars(record))


def stage_state(pipeline: Pipeline, stage: Stage) -> str:
    """'unchanged' (skip it), 'resume', 'replace' (other inputs, settings or code) or 'new'."""
    folder = pipeline.folder(stage.name)
    if not folder.exists():
        return "new"
    record = stage_record(pipeline, stage.name)
    if record is None or record.fingerprint != stage_fingerprint(pipeline, stage):
        return "replace"
    if not is_complete(folder):
        return "resume"
    same = record.manifest in ("", hash_file(folder / MANIFEST))
    return "unchanged" if same else "replace"


def selected_stages(
    pipeline: Pipeline, start: str | None, only: str | None, until: str | None = None
) -> tuple[Stage, ...]:
    """All stages, those from `start` on and up to `until`, or `only` one. Raises ValueError for an
    unknown name, and if no stage is left."""
    names = [stage.name for stage in pipeline.stages]
    for option, name in (("--from", start), ("--only", only), ("--until", until)):
        if name is not None and name not in names:
            raise ValueError(f"{option} {name!r} is not a stage; {suggestion(name, names)}")
    if only and (start or until):
        raise ValueError(f"give {'--from' if start else '--until'} or --only, not both")
    first = names.index(only or start or names[0])
    last = names.index(only or until or names[-1])
    if last < first:
        raise ValueError(f"--until {until} comes before --from {start}: no stage is left")
    return pipeline.stages[first : last + 1]


def settled(pipeline: Pipeline) -> Pipeline:
    """The pipeline without the rounds that do not run: those after `stop_after_refusals` rounds in
    a row that are done and whose gates kept the incumbent."""
    limit, refused = pipeline.stop_after_refusals, 0
    if limit is None:
        return pipeline
    by_name = {stage.name: stage for stage in pipeline.stages}
    for number, names in enumerate(pipeline.rounds, start=1):
        if any(stage_state(pipeline, by_name[name]) != "unchanged" for name in names):
            break
        refused = refused + 1 if _is_refused(pipeline, names) else 0
        if refused == limit and number < len(pipeline.rounds):
            return pipeline.shorter[number - limit]
    return pipeline


def _is_refused(pipeline: Pipeline, names: Sequence[str]) -> bool:
    """Whether a round has gates, and all of them kept the incumbent."""
    metrics = [read_manifest(pipeline.folder(name))["metrics"] for name in names]
    gates = [values["gate"]["accepted"] for values in metrics if "gate" in values]
    return bool(gates) and not any(gates)


def run_pipeline(pipeline: Pipeline, stages: Sequence[Stage], continue_line: str) -> int:
    """Run the stages that are not done. After each round, those of later rounds are left out if the
    rounds end early (`settled`). Returns 0, or the exit status of the failed stage."""
    waiting = [stage.name for stage in stages]
    ends = {names[-1] for names in pipeline.rounds}
    with exclusive(Path(pipeline.output_dir)) as lock:
        while waiting:
            by_name = {stage.name: stage for stage in pipeline.stages}
            stage = by_name[waiting.pop(0)]
            status = _run_stage(pipeline, stage, lock)
            if status != 0:
                log = log_path(pipeline, stage)
                print(f"\nstage {stage.name} failed (exit {status}). The end of {log}:\n")
                print(tail(log, TAIL_LINES))
                print(f"\nTo continue after a correction:\n  {continue_line}", flush=True)
                return status
            if stage.name in ends and (now := settled(pipeline)) is not pipeline:
                print(
                    f"[{stage.name}] the gates of the last {pipeline.stop_after_refusals} rounds "
                    f"kept the incumbent: no further round runs ({len(now.rounds)} of "
                    f"{len(pipeline.rounds)} are done)",
                    flush=True,
                )
                kept = {stage.name for stage in now.stages}
                pipeline, waiting = now, [name for name in waiting if name in kept]
    print_summary(pipeline)
    return 0


def log_path(pipeline: Pipeline, stage: Stage) -> Path:
    return Path(pipeline.output_dir) / "logs" / f"{stage.name}.log"


def _run_stage(pipeline: Pipeline, stage: Stage, lock: int) -> int:
    names = [other.name for other in pipeline.stages]
    prefix = f"[{names.index(stage.name) + 1}/{len(names)} {stage.name}]"
    fingerprint = stage_fingerprint(pipeline, stage)
    if fingerprint is None:
        missing = [name for name in stage.inputs if not is_complete(pipeline.folder(name))]
        raise ValueError(f"stage {stage.name!r} reads {missing[0]!r}, which is not complete")
    state = stage_state(pipeline, stage)
    record = stage_record(pipeline, stage.name)
    if state == "unchanged":
        print(f"{prefix} unchanged, skipped", flush=True)
        return 0
    if state == "replace":
        print(f"{prefix} changed: its old folder is now {_move_aside(pipeline, stage)}")
    if state != "resume" or record is None:
        record = Record(fingerprint=fingerprint)
        log_path(pipeline, stage).unlink(missing_ok=True)
    print(f"{prefix} {'resuming' if state == 'resume' else 'running'}")
    status, seconds = _launch(pipeline, stage, lock, prefix, record)
    manifest = pipeline.folder(stage.name) / MANIFEST
    if status == 0 and not is_complete(manifest.parent):
        print(f"{prefix} ended without an error but wrote no {MANIFEST}")
        status = 1
    if status == 0:
        finished = replace(record, seconds=seconds, attempts=record.attempts + 1)
        _write_record(pipeline, stage.name, replace(finished, manifest=hash_file(manifest)))
        print(f"{prefix} done in {seconds:.1f} s{_left_out(manifest.parent)}", flush=True)
    return status


def _left_out(folder: Path) -> str:
    """What a finished stage left out, for the line that says it is done."""
    bad_rows = read_manifest(folder).get("metrics", {}).get("bad_rows", 0)
    return f"; {bad_rows} bad rows left out: {folder / 'bad_rows.jsonl'}" if bad_rows else ""


def _launch(
    pipeline: Pipeline, stage: Stage, lock: int, prefix: str, record: Record
) -> tuple[int, float]:
    """Run the stage's process. Returns its exit status and the seconds of all attempts so far. The
    record gets these seconds every few seconds, so a killed run loses little."""
    seconds = record.seconds

    def keep_time(elapsed: float) -> None:
        nonlocal seconds
        seconds = record.seconds + elapsed
        attempt = replace(record, seconds=seconds, attempts=record.attempts + 1)
        _write_record(pipeline, stage.name, attempt)

    keep_time(0.0)
    launch_config = stage.accelerate_config or pipeline.accelerate_config
    launcher, typed = launcher_words(launch_config)
    words = stage_words(pipeline, stage)
    print(f"  {command_line(words, typed)}", flush=True)
    environment = child_environment(num_processes(launch_config))
    if note := busy_cores_note(environment):
        print(f"  {note}", flush=True)
    with StatusLine(prefix, record.seconds) as status_line:
        status = run_logged(
            [*launcher, *words],
            log=log_path(pipeline, stage),
            environment=environment,
            lock=lock,
            say=status_line.show,
            on_poll=keep_time,
        )
    return status, seconds


def num_processes(accelerate_config: str | None) -> int:
    values = read_yaml_mapping(Path(accelerate_config)) if accelerate_config else {}
    return int(values.get("num_processes") or 1)


def _move_aside(pipeline: Pipeline, stage: Stage) -> Path:
    root = Path(pipeline.output_dir) / "replaced"
    root.mkdir(exist_ok=True)
    number = 1
    while (root / f"{stage.name}-{number}").exists():
        number += 1
    target = root / f"{stage.name}-{number}"
    shutil.move(pipeline.folder(stage.name), target)
    return target


def print_summary(pipeline: Pipeline) -> None:
    """Print the seconds per stage over all attempts, the accuracies, and the report's path."""
    rows = [(stage.name, stage_record(pipeline, stage.name)) for stage in pipeline.stages]
    width = max(len(name) for name, _ in rows)
    print("\nseconds by stage (all attempts)")
    for name, record in rows:
        print(f"  {name:<{width}}  {record.seconds if record else 0.0:9.1f}")
    print(f"  {'total':<{width}}  {sum(r.seconds for _, r in rows if r):9.1f}")
    out = Path(pipeline.output_dir)
    results = read_json(out / "results.json")
    if results is not None:
        print_results(results)
    for report in (out / "report.html", *sorted(out.glob("*/report.html"))):
        if report.is_file():
            print(f"\nreport: {report}", flush=True)
            return
