"""Reads pairs of steps from files of the export stage, and from other rows of prompt, chosen and
rejected. Text is tokenised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from data.formats.base import as_list, as_text, problem_id_of, shown
from data.sources import Row, take_in
from data.token_text import TokenText
from data.types import StepPair

FILES = ("step_pairs.jsonl", "solution_pairs.jsonl")
IDS = ("prompt_token_ids", "chosen_token_ids", "rejected_token_ids")


def pair_sources(name: str) -> list[str]:
    """The pair files of a folder of the export stage, without empty ones; or the source
    (`data.sources`) itself."""
    files = [Path(name) / file for file in FILES if (Path(name) / file).is_file()]
    return [str(file) for file in files if file.stat().st_size] if files else [name]


def read_pairs(names: Sequence[str], tokenizer: Any) -> list[StepPair]:
    """The pairs of every folder or source. Raises ValueError for a bad row, with file, line and
    reason."""
    pairs: list[StepPair] = []
    text = TokenText(tokenizer)
    for source in [source for name in names for source in pair_sources(name)]:
        made, bad = take_in(source, lambda row, _: _pair(row, text))
        if bad:
            raise ValueError(f"{bad[0]} ({len(bad)} bad rows in all)")
        pairs += made
    return pairs


def fitting(pairs: Sequence[StepPair], max_length: int | None) -> list[StepPair]:
    """The pairs whose two sequences both have at most `max_length` tokens (None: all pairs)."""
    return [
        p
        for p in pairs
        if max_length is None
        or len(p.prompt_token_ids) + max(len(p.chosen_token_ids), len(p.rejected_token_ids))
        <= max_length
    ]


def _pair(row: Row, text: TokenText) -> StepPair:
    """The pair of a row. Text is encoded step by step, as search joins steps. `finished` means that
    both continuations end their solution. Raises ValueError with only the reason."""
    columns = row.columns
    with_ids = columns.get(IDS[1]) is not None
    prompt, chosen, rejected = (
        as_text(columns.get(name), name, blank=with_ids)
        for name in ("prompt", "chosen", "rejected")
    )
    if with_ids:
        ids = [_ids(columns.get(name), name, len(text.tokenizer)) for name in IDS]
    else:
        ids = [text.encode_prompt(prompt), text.encode(chosen), text.encode(rejected)]
        if columns.get("finished") is True:
            end: Any = text.end_token_id
            ids[1:] = [(*continuation, end) for continuation in ids[1:]]
    if ids[1] == ids[2]:
        raise ValueError("chosen and rejected are the same")
    known_id = columns.get("problem_id")
    return StepPair(
        problem_id=problem_id_of(prompt) if known_id is None else as_text(known_id, "problem_id"),
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        prompt_token_ids=ids[0],
        chosen_token_ids=ids[1],
        rejected_token_ids=ids[2],
        chosen_value=_number(columns.get("chosen_value"), "chosen_value", 1.0, most=1.0),
        rejected_value=_number(columns.get("rejected_value"), "rejected_value", 0.0, most=1.0),
        weight=_weight(columns.get("weight")),
    )


def _ids(value: object, name: str, size: int) -> tuple[int, ...]:
    ids = as_list(value, name)
    for token in ids:
        if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < size:
            raise ValueError(f"{name} holds {shown(token)}; it must hold token ids below {size}")
    if not ids:
        raise ValueError(f"{name} is empty; it must hold at least one token")
    return tuple(cast("list[int]", ids))


def _number(value: object, name: str, absent: float, most: float) -> float:
    if value is None:
        return absent
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= most:
        raise ValueError(f"{name} is {shown(value)}; it must be a number in [0, {most:g}]")
    return float(value)


def _weight(value: object) -> float:
    weight = _number(value, "weight", 1.0, most=math.inf)
    if not 0 < weight < math.inf:
        raise ValueError(f"weight is {shown(value)}; it must be positive")
    return weight
