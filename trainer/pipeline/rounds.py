"""Stages of a recipe that run in every round of it.

    rounds: 3
    stop_after_refusals: 2
    stages:
      - {name: data, args: {slices: {train: {"label_<1..n>": 1000}}}, ...}
      - {name: policy_0, ...}
      - each_round:
          - {name: label_<i>, args: {policy: "{policy_<i-1>}", slice: label_<i>}, ...}
          - {name: prm_<i>, args: {labels: ["{label_<1..i>}"]}, ...}
          - {name: policy_<i>, args: {policy: "{policy_<i-1>}", ...}, ...}
      - {name: evaluate, args: {policies: all, reward_model: "{prm_<n>}"}, ...}

`<i>` is the number of the round, from 1, and `<n>` the number of rounds. A number may be added or
taken away: `<i-1>`. An item of a list, or a key of a mapping, with `<1..i>` stands for one such
item per number.

With `stop_after_refusals` the rounds end early after as many rounds in a row whose gate kept the
incumbent. `<n>` is then the last round that ran, for the stages behind the rounds.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

EACH_ROUND = "each_round"
NUMBER = r"(?:[in](?:[+-]\d+)?|\d+)"
ONE = re.compile(rf"<({NUMBER})>")
RANGE = re.compile(rf"<({NUMBER})\.\.({NUMBER})>")


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """What `i` and `n` stand for. `i` is None outside the rounds."""

    i: int | None
    n: int

    def value(self, text: str) -> int:
        """The number that `i-1`, `n` or `2` stands for. Raises ValueError for `i` outside the
        rounds."""
        if text.isdigit():
            return int(text)
        start = self.i if text[0] == "i" else self.n
        if start is None:
            raise ValueError(f"<{text}> is the number of a round: use it in {EACH_ROUND} only")
        return start + int(text[1:] or 0)


def expand_rounds(
    rows: Sequence[Any], rounds: Any, ran: int | None = None
) -> tuple[list[Any], tuple[tuple[str, ...], ...]]:
    """The stages with those of `each_round` repeated, and the names of the stages of each round.

    `ran` is how many of the `rounds` are in the result, by default all; behind them `<n>` is `ran`.
    Without `rounds` the rows stay as they are. Raises ValueError for `each_round` without `rounds`,
    for `rounds` without `each_round`, and for a second `each_round`.
    """
    groups = [row for row in rows if isinstance(row, dict) and EACH_ROUND in row]
    if rounds is None:
        if groups:
            raise ValueError(f"{EACH_ROUND} needs the key rounds: how often its stages run")
        return list(rows), ()
    if type(rounds) is not int or rounds < 1:
        raise ValueError(f"rounds must be a whole number of at least 1, got {rounds!r}")
    if len(groups) != 1:
        raise ValueError(f"rounds needs one {EACH_ROUND} among the stages, not {len(groups)}")
    inner = groups[0][EACH_ROUND]
    if len(groups[0]) > 1 or not isinstance(inner, list) or not inner:
        raise ValueError(f"{EACH_ROUND} must be an entry of its own, with a list of stages")
    at, ran = rows.index(groups[0]), rounds if ran is None else ran
    each = [[_filled(row, Numbers(i=i, n=rounds)) for row in inner] for i in range(1, ran + 1)]
    before = [_filled(row, Numbers(i=None, n=rounds)) for row in rows[:at]]
    behind = [_filled(row, Numbers(i=None, n=ran)) for row in rows[at + 1 :]]
    return [*before, *(row for own in each for row in own), *behind], tuple(map(_names, each))


def of_every_round(
    pairs: Sequence[tuple[str, Any]], rounds: int, absent: Collection[str]
) -> list[tuple[str, Any]]:
    """Settings as (target, value). A target with `<i>`, such as `label_<i>.solutions`, is written
    out for every round. Settings of the stages `absent` are left out."""
    written: list[tuple[str, Any]] = []
    for pair in pairs:
        if "<i" in pair[0] and rounds:
            filled = (Numbers(i=i, n=rounds) for i in range(1, rounds + 1))
            written += [(_filled(pair[0], n), _filled(pair[1], n)) for n in filled]
        else:
            written.append(pair)
    return [pair for pair in written if pair[0].partition(".")[0] not in absent]


def _names(rows: Sequence[Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(row.get("name")) for row in rows if isinstance(row, dict)))


def _filled(value: Any, numbers: Numbers) -> Any:
    """The value with all numbers filled in, and its ranges written out."""
    if isinstance(value, str):
        return ONE.sub(lambda found: str(numbers.value(found[1])), value)
    if isinstance(value, list):
        return [_filled(part, numbers) for item in value for part in _written_out(item, numbers)]
    if isinstance(value, dict):
        return {
            _filled(key, numbers): _filled(item, numbers)
            for pair in value.items()
            for key, item in _written_out(pair, numbers)
        }
    return value


def _written_out(item: Any, numbers: Numbers) -> list[Any]:
    """A list's item once per number of its range. Of a mapping's pair the key has the range, and
    the same range in its value gets the key's number."""
    key = item[0] if isinstance(item, tuple) else item
    found = RANGE.search(key) if isinstance(key, str) else None
    if found is None:
        return [item]
    first, last = numbers.value(found[1]), numbers.value(found[2])
    return [_replaced(item, found[0], str(number)) for number in range(first, last + 1)]


def _replaced(value: Any, old: str, new: str) -> Any:
    if isinstance(value, str):
        return value.replace(old, new)
    if isinstance(value, list | tuple):
        return type(value)(_replaced(item, old, new) for item in value)
    if isinstance(value, Mapping):
        return {_replaced(k, old, new): _replaced(v, old, new) for k, v in value.items()}
    return value
