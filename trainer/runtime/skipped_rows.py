"""Reports the bad rows that a stage leaves out: prints, writes and counts them, and limits them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from data.sources import BadRow
from trainer.runtime.stage import StageRecord

BAD_ROWS_PRINTED = 20


def report_bad_rows(
    bad_rows: Sequence[BadRow], most: int, folder: Path, record: StageRecord
) -> None:
    """Print, write and count the bad rows. Raises ValueError if there are more than the limit."""
    record.metrics["bad_rows"] = len(bad_rows)
    said = "left out" if len(bad_rows) <= most else "bad row"
    for row in bad_rows[:BAD_ROWS_PRINTED]:
        print(f"{said}: {row}", flush=True)
    if len(bad_rows) > BAD_ROWS_PRINTED:
        print(f"{said}: {len(bad_rows) - BAD_ROWS_PRINTED} more", flush=True)
    if bad_rows:
        with (folder / "bad_rows.jsonl").open("w", encoding="utf-8") as file:
            for row in bad_rows:
                file.write(json.dumps(asdict(row)) + "\n")
    if len(bad_rows) > most:
        raise ValueError(
            f"{len(bad_rows)} rows are bad, and max_bad_rows is {most}; the first is {bad_rows[0]}"
        )
    if bad_rows:
        print(f"{len(bad_rows)} bad rows left out, {most} allowed", flush=True)
