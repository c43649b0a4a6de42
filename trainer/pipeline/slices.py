"""Named slices of a split's problems replace offsets that the user would compute by hand:

    slices:
      train: {label_1: 2000, search_1: 1200}
      validation: {gate_1: 2000}
    stages:
      - {name: search_1, args: {slice: search_1, ...}, ...}
      - {name: round_1, args: {gate_slice: gate_1, ...}, ...}

The slices of a split follow one another, beginning at its first problem. The number is a slice's
number of problems. A stage with `slice: search_1` gets the `skip`, `num_problems` and `split` of
that slice. `gate_slice` sets `gate_skip` and `gate_problems`, and `evaluation_slice` sets
`evaluation_skip` and `evaluation_problems`. A key that the stage sets is not changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.settings import nearest, read_yaml_mapping
from trainer.runtime.stage_registry import entry_of_launcher

SPLITS = ("train", "validation", "test")
LEARNT_FROM = {"policy", "labels.jsonl", "trees.jsonl"}  # outputs that depend on the problems


@dataclass(frozen=True, kw_only=True)
class Slice:
    split: str
    start: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Use:
    """The stage `stage` uses problems start..end-1 of a split of the folder `data`."""

    stage: str
    data: str
    split: str
    start: int
    end: int

    def overlaps(self, other: Use) -> bool:
        same = (self.data, self.split) == (other.data, other.split)
        return same and max(self.start, other.start) < min(self.end, other.end)


def read_slices(value: Any) -> dict[str, Slice]:
    """The slices by name. Raises ValueError for another form, a size that is not an integer of at
    least 0, an unknown split, and a name that is used twice."""
    if not isinstance(value, dict) or not all(isinstance(v, dict) for v in value.values()):
        raise ValueError(f"slices must map each split to a mapping of sizes by name, got {value!r}")
    slices: dict[str, Slice] = {}
    for split, sizes in value.items():
        if split not in SPLITS:
            hint = nearest(str(split), SPLITS)
            raise ValueError(f"slices names the unknown split {split!r}; did you mean {hint!r}?")
        start = 0
        for name, size in sizes.items():
            if type(size) is not int or size < 0:
                raise ValueError(f"slice {name!r} has size {size!r}; allowed: 0 or more")
            if name in slices:
                raise ValueError(f"two slices have the name {name!r}")
            slices[name] = Slice(split=split, start=start, size=size)
            start += size
    return slices


def fill_in_slices(rows: Sequence[dict[str, Any]], slices: Mapping[str, Slice]) -> None:
    """Replace the names of slices in the arguments of `rows` by the keys of these slices.

    Raises ValueError for an unknown slice, for a split that is too small for a slice, and for a
    gate or an evaluation whose slice is not part of validation."""
    sizes = {f"{{{row['name']}}}": _settings(row) for row in rows if _makes_problems(row)}
    for row in rows:
        args = row["args"]
        for prefix in ("", "gate_", "evaluation_"):
            name = args.pop(f"{prefix}slice", None)
            if name is None:
                continue
            if name not in slices:
                hint = f"; did you mean {nearest(str(name), slices)!r}?" if slices else ""
                raise ValueError(f"stage {row['name']!r} names the unknown slice {name!r}{hint}")
            found = slices[name]
            problems = f"{prefix or 'num_'}problems"
            filled: dict[str, Any] = {f"{prefix}skip": found.start, problems: found.size}
            if prefix and found.split != "validation":
                raise ValueError(
                    f"{prefix}slice of stage {row['name']!r} is {name!r}, a slice of "
                    f"{found.split}; allowed: slices of validation"
                )
            if not prefix and found.split != "train":
                filled["split"] = found.split
            row["args"] = args = filled | args
            end = args[f"{prefix}skip"] + args[problems]
            there = sizes.get(args.get("data"), {}).get(found.split)
            if there is not None and end > there:
                raise ValueError(
                    f"slice {name!r} of stage {row['name']!r} ends at problem {end:,} of "
                    f"{found.split}, which has {there:,}"
                )


def check_overlaps(rows: Sequence[dict[str, Any]]) -> None:
    """Raises ValueError if a gate or an evaluation during training uses problems that a stage
    learns from, and if two gates use the same problems."""
    learnt = [use for row in rows if (use := _learnt(row))]
    gates = [use for row in rows if (use := _held_out(row, "gate_"))]
    evaluations = [use for row in rows if (use := _held_out(row, "evaluation_"))]
    for held_out in (*gates, *evaluations):
        for use in learnt:
            if held_out.overlaps(use):
                raise ValueError(
                    f"stage {use.stage!r} learns from problems of {use.split} on which stage "
                    f"{held_out.stage!r} is measured; name two slices that do not overlap"
                )
    for i, gate in enumerate(gates):
        for other in gates[i + 1 :]:
            if gate.overlaps(other):
                raise ValueError(
                    f"the gates of stages {gate.stage!r} and {other.stage!r} use the same problems "
                    "of validation; give each a different slice (gate_slice)"
                )


def _learnt(row: dict[str, Any]) -> Use | None:
    entry = entry_of_launcher(row["script"])
    if entry is None or not LEARNT_FROM.intersection(entry.writes):
        return None
    settings = entry.config_defaults() | _settings(row)
    # A stage without `split` reads no split. `problems` names a file instead of a split.
    if "split" not in settings or settings.get("problems"):
        return None
    start, size = settings["skip"], settings["num_problems"]
    end = start + size if size else 10**12  # for PPO, GRPO and RLOO, 0 means all problems
    return _use(row, settings, settings["split"], start, end)


def _held_out(row: dict[str, Any], prefix: str) -> Use | None:
    entry = entry_of_launcher(row["script"])
    if entry is None:
        return None
    settings = entry.config_defaults() | _settings(row)
    size = settings.get(f"{prefix}problems")
    if not size:
        return None
    start = settings[f"{prefix}skip"]
    return _use(row, settings, "validation", start, start + size)


def _use(row: dict[str, Any], settings: Mapping[str, Any], split: str, start: int, end: int) -> Use:
    data = str(settings.get("data"))
    return Use(stage=row["name"], data=data, split=split, start=start, end=end)


def _makes_problems(row: dict[str, Any]) -> bool:
    entry = entry_of_launcher(row["script"])
    return entry is not None and entry.makes_problems


def _settings(row: dict[str, Any]) -> dict[str, Any]:
    path = row.get("config")
    values = read_yaml_mapping(Path(path)) if path and Path(path).is_file() else {}
    return values | row["args"]
