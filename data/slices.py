"""Named slices of the problems of a split. The recipe of the data stage gives their sizes, and the
data stage writes them to slices.json. The recipe of another stage names the slice that it uses.

    slices:
      train: {label_1: 2000, learning: {search_1: 1200, search_2: 1200}}
      validation: {gate_1: 2000}

The slices of a split follow one another from its first problem. A slice that is a mapping, such as
`learning`, consists of the slices in it. Here, `learning` has the problems 2000..4399 of train.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from data.json_records import record_from_json
from data.problems import read_problems
from data.settings import suggestion
from data.types import Problem

SLICES = "slices.json"
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Problems start..start+size-1 of a split."""

    split: str
    start: int
    size: int

    @property
    def end(self) -> int:
        return self.start + self.size

    def overlaps(self, other: Slice) -> bool:
        return self.split == other.split and max(self.start, other.start) < min(self.end, other.end)


def read_slices(value: object) -> dict[str, Slice]:
    """The slices by name, from the mapping in a recipe.

    Raises ValueError for a value of another form, for a size that is not a whole number of at least
    0, for an unknown split and for a name that is used twice.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"slices must be a mapping of sizes by name, per split, got {value!r}")
    slices: dict[str, Slice] = {}
    for split, sizes in cast("Mapping[str, object]", value).items():
        if split not in SPLITS:
            raise ValueError(f"slices of {split!r}; {suggestion(str(split), SPLITS)}")
        if not isinstance(sizes, Mapping):
            raise ValueError(f"slices of {split} must be a mapping of sizes by name, got {sizes!r}")
        for name, part in _parts(split, 0, cast("Mapping[str, object]", sizes)):
            if name in slices:
                raise ValueError(f"two slices have the name {name!r}")
            slices[name] = part
    return slices


def _parts(split: str, start: int, sizes: Mapping[str, object]) -> Iterator[tuple[str, Slice]]:
    for name, size in sizes.items():
        if isinstance(size, Mapping):
            inner = list(_parts(split, start, cast("Mapping[str, object]", size)))
            end = max((part.end for _, part in inner), default=start)
            yield from inner
        elif type(size) is int and size >= 0:
            end = start + size
        else:
            raise ValueError(f"slice {name!r} has size {size!r}; allowed: 0 or more")
        yield name, Slice(split=split, start=start, size=end - start)
        start = end


def write_slices(folder: Path, slices: Mapping[str, Slice], sizes: Mapping[str, int]) -> None:
    """Write the slices to slices.json in `folder`. `sizes` are the numbers of problems of the
    splits. Raises ValueError for a slice that ends after its split."""
    for name, part in slices.items():
        check_fits(name, part, sizes[part.split])
    content = {name: asdict(part) for name, part in slices.items()}
    (folder / SLICES).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def check_fits(name: str, part: Slice, size: int) -> None:
    if part.end > size:
        raise ValueError(
            f"slice {name!r} ends at problem {part.end:,} of {part.split}, which has {size:,}"
        )


def slice_named(folder: Path, name: str) -> Slice:
    """The slice of that name in the data stage's folder. Raises ValueError when the folder has no
    slice of this name, and the message gives the nearest name."""
    path = folder / SLICES
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if name not in found:
        hint = suggestion(name, found) if found else "it has none"
        raise ValueError(f"{str(folder)!r} has no slice {name!r}; {hint}")
    return record_from_json(Slice, found[name])


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which problems of a data stage's folder a stage uses.

    They are the problems of the slice `name`, or without a name the split without its first `skip`
    problems. `size` is the largest number of problems; None: all.
    """

    split: str
    skip: int = 0
    size: int | None = None
    name: str | None = None

    def resolve(self, folder: Path) -> Slice:
        """The problems as a slice, which may end after the end of the split. Raises ValueError for
        an unknown slice, and when both a slice and `skip` are given."""
        if self.name is None:
            size = 10**12 if self.size is None else self.size
            return Slice(split=self.split, start=self.skip, size=size)
        if self.skip:
            raise ValueError(f"slice {self.name!r} and skip {self.skip} are given; give one")
        part = slice_named(folder, self.name)
        size = part.size if self.size is None else min(part.size, self.size)
        return Slice(split=part.split, start=part.start, size=size)

    def read(self, folder: str | Path) -> list[Problem]:
        """The problems, in the order of the file. Raises the errors of `resolve`."""
        part = self.resolve(Path(folder))
        return read_problems(Path(folder) / f"{part.split}.jsonl")[part.start : part.end]

    def read_file(self, path: str | Path) -> list[Problem]:
        """The problems of another file than the folder's, without the first `skip`."""
        return read_problems(Path(path))[self.skip :][: self.size]


def check_file_or_slice(problems: str | None, name: str | None) -> None:
    """Raises ValueError when both a file of problems and a slice are given."""
    if name and problems:
        raise ValueError(f"slice {name!r} and problems {problems!r} are given; give one")


def validation_problems(
    folder: str | Path, skip: int, size: int, name: str | None
) -> list[Problem]:
    """The validation problems that measure a policy. Raises ValueError for a slice of another
    split, and the errors of `Choice`."""
    choice = Choice(split="validation", skip=skip, size=size, name=name)
    found = choice.resolve(Path(folder)).split
    if found != "validation":
        raise ValueError(f"slice {name!r} is one of {found}; allowed: slices of validation")
    return choice.read(folder)
