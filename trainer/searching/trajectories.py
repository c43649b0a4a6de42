"""Reads the verified trajectories of the search stage as rows of token ids."""

from __future__ import annotations

from pathlib import Path

from data.json_rows import numbered_rows
from data.types import TokenRow


def read_trajectories(path: Path) -> list[TokenRow]:
    """Raises ValueError for a bad row, with file, line and reason."""
    rows: list[TokenRow] = []
    for number, row in numbered_rows(path):
        try:
            rows.append(
                TokenRow(
                    prompt_ids=tuple(row["prompt_ids"]),
                    completion_ids=tuple(row["completion_ids"]),
                )
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {number}: not a trajectory ({error!r})") from None
    return rows
