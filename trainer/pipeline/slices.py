"""Named slices of problems in a recipe of many stages, checked before a stage runs:

    stages:
      - {name: data, args: {slices: {train: {search_1: 1200}, validation: {gate_1: 2000}}}, ...}
      - {name: search_1, args: {data: "{data}", slice: search_1, ...}, ...}
      - {name: round_1, args: {data: "{data}", gate_slice: gate_1, ...}, ...}

The data stage writes the slices (data/slices.py), and a stage that names a slice reads it there. If
the stage's arguments do not give its number of problems (`num_problems`, for `gate_slice`
`gate_problems`, for `evaluation_slice` `evaluation_problems`), the stage takes the whole slice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.settings import read_yaml_mapping, suggestion
from data.slices import Slice, check_fits, read_slices
from trainer.runtime.stage_registry import entry_of_launcher

LEARNT_FROM = {"policy", "labels.jsonl", "trees.jsonl"}  # outputs that depend on the problems
EVERY = 10**12  # as a size: all problems


@dataclass(frozen=True, kw_only=True)
class Use:
    """The problems of the folder `data` that the stage `stage` uses."""

    stage: str
    data: str
    part: Slice

    def overlaps(self, other: Use) -> bool:
        return self.data == other.data and self.part.overlaps(other.part)


@dataclass(frozen=True, kw_only=True)
class ProblemFolder:
    """The problems that a data stage of a recipe writes."""

    slices: Mapping[str, Slice]
    sizes: Mapping[str, int | None]  # problems by split; None: not in the recipe


def problem_folders(rows: Sequence[dict[str, Any]]) -> dict[str, ProblemFolder]:
    """The folders by the placeholder of their stage, such as "{data}". Raises ValueError for slices
    of a wrong form, and for a slice that is longer than its split."""
    folders: dict[str, ProblemFolder] = {}
    for row in rows:
        if not _makes_problems(row):
            continue
        settings = _settings(row)
        try:
            slices = read_slices(settings.get("slices") or {})
            sizes = {split: settings.get(split) for split in ("train", "validation", "test")}
            for name, part in slices.items():
                size = sizes[part.split]
                if size is not None:
                    check_fits(name, part, size)
        except ValueError as error:
            raise ValueError(f"stage {row['name']!r}: {error}") from None
        folders[f"{{{row['name']}}}"] = ProblemFolder(slices=slices, sizes=sizes)
    return folders


def fill_in_sizes(rows: Sequence[dict[str, Any]], folders: Mapping[str, ProblemFolder]) -> None:
    """Give each stage that names a slice the slice's size, if its arguments have no size.

    Raises ValueError for a slice that the data stage does not name, and for a gate or an
    evaluation whose slice is not part of validation."""
    for row in rows:
        args = row["args"]
        for prefix in ("", "gate_", "evaluation_"):
            name = args.get(f"{prefix}slice")
            if name is None or args.get("data") not in folders:
                continue  # the stage itself reads the slices of a folder that was there before
            part = _slice_of(row, str(name), folders[args["data"]])
            if prefix and part.split != "validation":
                raise ValueError(
                    f"{prefix}slice of stage {row['name']!r} is {name!r}, a slice of "
                    f"{part.split}; allowed: slices of validation"
                )
            args.setdefault(_size_key(prefix), part.size)


def check_overlaps(rows: Sequence[dict[str, Any]], folders: Mapping[str, ProblemFolder]) -> None:
    """Raises ValueError if a gate or an evaluation during training uses problems that a stage
    learns from, if two gates use the same problems, and if a gate uses those on which its candidate
    was evaluated during training, as a learner may keep the weights that were best on them."""
    learnt = [use for row in rows if (use := _learnt(row, folders))]
    gates = [use for row in rows if (use := _held_out(row, "gate_", folders))]
    evaluations = [use for row in rows if (use := _held_out(row, "evaluation_", folders))]
    for held_out in (*gates, *evaluations):
        for use in learnt:
            if held_out.overlaps(use):
                raise ValueError(
                    f"stage {use.stage!r} learns from problems of {use.part.split} on which stage "
                    f"{held_out.stage!r} is measured; name two slices that do not overlap"
                )
    candidates = {row["name"]: str(row["args"].get("candidate")) for row in rows}
    for gate in gates:
        for use in evaluations:
            if candidates[gate.stage] == f"{{{use.stage}}}" and gate.overlaps(use):
                raise ValueError(
                    f"the gate of stage {gate.stage!r} uses problems of validation on which "
                    f"{use.stage!r} was evaluated during its training; give the two different "
                    "slices (gate_slice, evaluation_slice)"
                )
    for i, gate in enumerate(gates):
        for other in gates[i + 1 :]:
            if gate.overlaps(other):
                raise ValueError(
                    f"the gates of stages {gate.stage!r} and {other.stage!r} use the same problems "
                    "of validation; give each a different slice (gate_slice)"
                )


def _learnt(row: dict[str, Any], folders: Mapping[str, ProblemFolder]) -> Use | None:
    entry = entry_of_launcher(row["script"])
    if entry is None or not LEARNT_FROM.intersection(entry.writes):
        return None
    settings = entry.config_defaults() | _settings(row)
    # A stage without `split` reads no split. `problems` names a file instead of a split.
    if "split" not in settings or settings.get("problems"):
        return None
    return _use(row, settings, "", settings["split"], folders)


def _held_out(row: dict[str, Any], prefix: str, folders: Mapping[str, ProblemFolder]) -> Use | None:
    entry = entry_of_launcher(row["script"])
    if entry is None:
        return None
    settings = entry.config_defaults() | _settings(row)
    if not settings.get(_size_key(prefix)):
        return None
    return _use(row, settings, prefix, "validation", folders)


def _use(
    row: dict[str, Any],
    settings: Mapping[str, Any],
    prefix: str,
    split: str,
    folders: Mapping[str, ProblemFolder],
) -> Use | None:
    """None for a slice of a folder that was there before: the stage itself checks it."""
    size = settings[_size_key(prefix)] or EVERY  # PPO, GRPO and RLOO: 0 stands for all
    if not prefix and "most_solved" in settings and settings.get("labels"):
        size = EVERY  # the search looks at all problems until it has found enough hard ones
    data, name = str(settings.get("data")), settings.get(f"{prefix}slice")
    if name is None:
        part = Slice(split=split, start=settings[f"{prefix}skip"], size=size)
    elif data in folders:
        whole = _slice_of(row, str(name), folders[data])
        part = Slice(split=whole.split, start=whole.start, size=min(size, whole.size))
    else:
        return None
    return Use(stage=row["name"], data=data, part=part)


def _slice_of(row: dict[str, Any], name: str, folder: ProblemFolder) -> Slice:
    if name not in folder.slices:
        hint = f"; {suggestion(name, folder.slices)}" if folder.slices else ""
        raise ValueError(f"stage {row['name']!r} names the unknown slice {name!r}{hint}")
    return folder.slices[name]


def _size_key(prefix: str) -> str:
    return f"{prefix or 'num_'}problems"


def _makes_problems(row: dict[str, Any]) -> bool:
    entry = entry_of_launcher(row["script"])
    return entry is not None and entry.makes_problems


def _settings(row: dict[str, Any]) -> dict[str, Any]:
    path = row.get("config")
    values = read_yaml_mapping(Path(path)) if path and Path(path).is_file() else {}
    return values | {key: value for key, value in row["args"].items() if value is not None}
