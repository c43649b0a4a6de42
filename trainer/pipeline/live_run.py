"""What a running recipe has done so far, read from its files: stages, losses, held-out accuracies,
gate decisions and the last solutions. Nothing is written, and no stage knows that it is watched."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.json_rows import parse_row
from trainer.pipeline.recipe import Pipeline, Stage
from trainer.pipeline.run import log_path, stage_record
from trainer.runtime.manifests import is_complete, read_manifest

MOST_LOG_BYTES = 4_000_000  # of a log's end that are read
SAMPLE_BYTES = 1_000_000  # of the end of a file of solutions
MOST_SAMPLES = 5
SAMPLE_FILES = (
    "completions.jsonl", "*.rank*.jsonl", "trajectories.jsonl", "labels.jsonl", "trees.jsonl",
    "*_greedy.jsonl", "*_mcts.jsonl", "*_best_of_n.jsonl",
)  # fmt: skip
STEP = re.compile(r"\d+%\|.*\| *(\d+)/\d+ \[")  # without words in front: the bar of the updates
SHARE = re.compile(r"(\d+)%|\((\d+)%\)")
LEFT = re.compile(r"(?:, |^)([0-9][0-9a-z ]*) left|<([0-9:]+),")


@dataclass(frozen=True, kw_only=True)
class Point:
    """`value` at the update or the cycle `step`."""

    step: int
    value: float


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A solution, and what is known of it: a verdict, step values, or nothing."""

    prompt: str
    text: str
    note: str


@dataclass(frozen=True, kw_only=True)
class LiveStage:
    """`state` is 'waiting', 'running' or 'done'. `seconds` counts all attempts. `line` is the
    newest line of the log, and `share` (0 to 1) and `left` are what it says of the progress.
    `gate` is the reason why a round's policy was kept or refused."""

    name: str
    kind: str
    state: str
    seconds: float
    line: str
    share: float | None
    left: str
    losses: tuple[Point, ...]
    accuracies: tuple[Point, ...]
    gate: str
    samples: tuple[Sample, ...]


@dataclass(frozen=True, kw_only=True)
class LiveRun:
    """A run at one moment."""

    name: str
    recipe: str
    stages: tuple[LiveStage, ...]


def read_live_run(pipeline: Pipeline, stages: Sequence[Stage], recipe: str) -> LiveRun:
    """The state of `stages`, which a pipeline is running in this order."""
    live: list[LiveStage] = []
    running = False
    for stage in stages:
        folder = pipeline.folder(stage.name)
        state = "done" if is_complete(folder) else "waiting" if running else "running"
        running = running or state == "running"
        live.append(_read_stage(pipeline, stage, state))
    return LiveRun(name=pipeline.run_name, recipe=recipe, stages=tuple(live))


def _read_stage(pipeline: Pipeline, stage: Stage, state: str) -> LiveStage:
    folder, record = pipeline.folder(stage.name), stage_record(pipeline, stage.name)
    log = b"" if state == "waiting" else _end_of(log_path(pipeline, stage), MOST_LOG_BYTES)
    text = log.decode(errors="replace").replace("\r", "\n")
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    line = lines[-1] if lines and state == "running" else ""
    share, left = progress_of(line)
    return LiveStage(
        name=stage.name,
        kind=Path(stage.script).stem,
        state=state,
        seconds=record.seconds if record and state != "waiting" else 0.0,
        line=line,
        share=1.0 if state == "done" else share,
        left=left,
        losses=() if state == "waiting" else losses_of(lines),
        accuracies=() if state == "waiting" else tuple(_accuracies(folder)),
        gate=_gate(folder) if state == "done" else "",
        samples=() if state == "waiting" else last_samples(folder),
    )


def progress_of(line: str) -> tuple[float | None, str]:
    """The share that is done and the time left, as a progress line or a bar of tqdm says them;
    None and '' where it does not."""
    share, left = SHARE.search(line), LEFT.search(line)
    done = int(share[1] or share[2]) / 100 if share else None
    return done, (left[1] or left[2]) if left else ""


def losses_of(lines: Sequence[str]) -> tuple[Point, ...]:
    """The training losses that transformers writes into a log. Their updates are those of the bar
    before them; lines in front of the first bar are left out."""
    points: list[Point] = []
    step = None
    for line in lines:
        if line.startswith("{'loss'"):
            if step is not None and (loss := _loss(line)) is not None:
                points.append(Point(step=step, value=loss))
        elif bar := STEP.match(line):
            step = int(bar[1])
    return tuple(points)


def _loss(line: str) -> float | None:
    try:
        return float(ast.literal_eval(line)["loss"])
    except (ValueError, SyntaxError, KeyError, TypeError):
        return None  # a line that is not whole yet


def _accuracies(folder: Path) -> Iterator[Point]:
    for row in _rows_at_end(folder / "evaluations.jsonl"):
        if isinstance(row.get("accuracy"), float) and isinstance(row.get("cycle"), int):
            yield Point(step=row["cycle"], value=row["accuracy"])


def _gate(folder: Path) -> str:
    gate = read_manifest(folder).get("metrics", {}).get("gate")
    if not gate:
        return ""
    return f"{'kept' if gate['accepted'] else 'refused'}: {gate['reason']}"


def last_samples(folder: Path) -> tuple[Sample, ...]:
    """The last solutions in the newest of the folder's files that hold solutions."""
    files = [path for pattern in SAMPLE_FILES for path in folder.glob(pattern)]
    for path in sorted(files, key=lambda path: path.stat().st_mtime, reverse=True):
        samples: list[Sample] = []
        for row in _rows_at_end(path):
            with suppress(KeyError, TypeError, ValueError):  # a row of another kind
                samples += [sample] if (sample := _sample(row)) else []
        if samples:
            return tuple(samples[-MOST_SAMPLES:])
    return ()


def _sample(row: Mapping[str, Any]) -> Sample | None:
    """A row of PPO's completions, of trees, of labels or of trajectories."""
    if "nodes" in row and row.get("answer") is not None:
        return Sample(prompt=str(row["problem"]["prompt"]), text=_answer(row), note=row["strategy"])
    if isinstance(row.get("completions"), list):
        values = ", ".join(f"{value:.2f}" for value in row.get("labels", ()))
        return Sample(
            prompt=str(row.get("prompt", "")),
            text="".join(row["completions"]),
            note=f"values of the steps: {values}",
        )
    if "text" in row and "correct" in row:
        verdict = "right" if row["correct"] else "wrong"
        return Sample(
            prompt=str(row.get("problem", "")),
            text=str(row["text"]),
            note=f"cycle {row.get('cycle')}, {verdict}",
        )
    if "completion" in row:
        return Sample(prompt=str(row.get("prompt", "")), text=str(row["completion"]), note="")
    return None


def _answer(tree: Mapping[str, Any]) -> str:
    nodes = {node["id"]: node for node in tree["nodes"]}
    steps: list[str] = []
    at = tree["answer"]
    while at in nodes and nodes[at]["parent"] >= 0:
        steps.append(nodes[at]["text"])
        at = nodes[at]["parent"]
    return "".join(reversed(steps))


def _rows_at_end(path: Path) -> list[dict[str, Any]]:
    """The whole rows at the end of a file of JSON lines. A stage may still be writing it."""
    rows: list[dict[str, Any]] = []
    for line in _end_of(path, SAMPLE_BYTES).split(b"\n")[:-1]:
        with suppress(ValueError):  # the first line may be the end of one
            rows.append(parse_row(line))
    return rows


def _end_of(path: Path, size: int) -> bytes:
    """At most the last `size` bytes; none if the file is not there (yet, or any more)."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            return file.read()
    except FileNotFoundError:
        return b""
