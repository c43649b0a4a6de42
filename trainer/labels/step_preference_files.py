"""Reads step preferences of the export stage as pairs of token ids for DPO."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.base import Engine

STEP_PREFERENCES = "step_preferences"  # the export stage's kind


@dataclass(frozen=True, kw_only=True)
class TokenPair:
    """Two sampled continuations of one prompt; the chosen one is better."""

    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]


def read_step_preferences(source: str, engine: Engine, max_length: int | None) -> list[TokenPair]:
    """Read the pairs of a source. Only the tokenizer of the policy's `engine` is used. Raises
    ValueError for a missing source. Raises ValueError with file, row and reason for a row that is
    not a pair, that another tokenizer wrote, or that is longer than `max_length` tokens, because a
    truncated row would lose its steps."""
    path = _pairs_file(Path(source))
    pairs: list[TokenPair] = []
    for number, row in enumerate(_rows(path), start=1):
        try:
            pair = _pair(row, engine)
            longest = max(len(pair.chosen_ids), len(pair.rejected_ids)) + len(pair.prompt_ids)
            if max_length is not None and longest > max_length:
                raise ValueError(f"it has {longest} tokens; max_length is {max_length}")
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}, row {number}: not a pair of steps ({error!r})") from None
        pairs.append(pair)
    return pairs


def _pairs_file(source: Path) -> Path:
    candidates = [source] if source.is_file() else sorted(source.glob(f"{STEP_PREFERENCES}.*"))
    if len(candidates) != 1 or candidates[0].suffix not in (".jsonl", ".parquet"):
        raise ValueError(
            f"step_preferences holds {str(source)!r}, which has no {STEP_PREFERENCES}.jsonl or "
            ".parquet"
        )
    return candidates[0]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix == ".parquet":
        import pyarrow.parquet

        yield from pyarrow.parquet.read_table(path).to_pylist()
        return
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _pair(row: dict[str, Any], engine: Engine) -> TokenPair:
    prefix, chosen, rejected = (
        tuple(int(token) for token in row[name])
        for name in ("prefix_ids", "chosen_ids", "rejected_ids")
    )
    for name, ids in (("chosen", chosen), ("rejected", rejected)):
        if not ids:
            raise ValueError(f"{name}_ids is empty")
        if engine.decode(ids) != row[name]:
            raise ValueError(f"{name}_ids decode to {engine.decode(ids)!r} with this policy")
    prompt = engine.encode_prompt(row["problem_prompt"])
    return TokenPair(prompt_ids=prompt + prefix, chosen_ids=chosen, rejected_ids=rejected)
