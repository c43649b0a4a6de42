"""The splits of every task whose problems are rows of files."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from data.sources import BadRow, Row, take_in
from data.tasks.base import Splits, check_sizes
from data.types import Demonstration, Problem


def group_of(text: str) -> str:
    """The group key of a question. Texts that differ only in case or spaces have the same key."""
    return " ".join(text.casefold().split())


def id_prefix(side: str, source: str) -> str:
    """The prefix of the ids of a source's rows. It includes `side`, because the training file and
    the test file may have the same name."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", source.rpartition("/")[2]).strip("-")
    return f"{side}-{name}"


def splits_of_sources(
    read: Callable[[Row, str], Demonstration],
    training: Sequence[str | None],
    testing: str | None,
    seed: int,
    *,
    demonstrations: int,
    train: int,
    validation: int,
    test: int,
) -> Splits:
    """`splits_of_rows` of the rows of `data.sources`; None is a source without rows. `read` gets a
    row and its id, and raises ValueError, the reason alone, for a bad row."""
    rows: list[Demonstration] = []
    bad_rows: list[BadRow] = []
    for number, source in enumerate(training, start=1):
        made, bad = _take(read, "train" if number == 1 else f"train{number}", source)
        rows, bad_rows = rows + made, bad_rows + bad
    test_rows, bad = _take(read, "test", testing)
    return splits_of_rows(
        rows,
        [d.problem for d in test_rows],
        bad_rows + bad,
        seed,
        demonstrations=demonstrations,
        train=train,
        validation=validation,
        test=test,
    )


def _take(
    read: Callable[[Row, str], Demonstration], side: str, source: str | None
) -> tuple[list[Demonstration], list[BadRow]]:
    if source is None:
        return [], []
    prefix = id_prefix(side, source)
    return take_in(source, lambda row, number: read(row, f"{prefix}-{number}"))


def splits_of_rows(
    training: Sequence[Demonstration],
    testing: Sequence[Problem],
    bad_rows: Sequence[BadRow],
    seed: int,
    *,
    demonstrations: int,
    train: int,
    validation: int,
    test: int,
) -> Splits:
    """Splits with exactly these numbers of problems.

    Test problems come from the test rows. Validation, train and demonstrations come from the
    training rows, in this order. Both are shuffled with the seed. Questions that appear twice are
    used once. A question that is in the test rows is never in another split, even if it is not
    in the test split.

    Raises ValueError for a negative size and for too few rows. The message names the split.
    """
    check_sizes(demonstrations=demonstrations, train=train, validation=validation, test=test)
    rng = random.Random(f"{seed} rows")
    held_out = _distinct(testing, frozenset())
    ours = {problem.group for problem in testing}
    pool = {d.problem.id: d for d in training}
    usable = _distinct([d.problem for d in training], frozenset(ours))
    for name, wanted, found in (
        ("test", test, len(held_out)),
        ("demonstrations, train and validation", demonstrations + train + validation, len(usable)),
    ):
        if wanted > found:
            raise ValueError(
                f"{name} ask for {wanted} problems; the rows hold {found} distinct ones"
            )
    rng.shuffle(held_out)
    rng.shuffle(usable)
    first, second = validation, validation + train
    return Splits(
        test=tuple(held_out[:test]),
        validation=tuple(usable[:first]),
        train=tuple(usable[first:second]),
        demonstrations=tuple(pool[p.id] for p in usable[second : second + demonstrations]),
        bad_rows=tuple(bad_rows),
    )


def _distinct(problems: Sequence[Problem], taken: frozenset[str]) -> list[Problem]:
    first: dict[str, Problem] = {}
    for problem in problems:
        if problem.group not in taken:
            first.setdefault(problem.group, problem)
    return list(first.values())
