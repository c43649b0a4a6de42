"""What an offline run of W&B has written into its file."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from wandb.proto.wandb_internal_pb2 import Record

SECONDS = 60.0  # for W&B's service, which writes the file


def wandb_records(written: bytes) -> Iterator[bytes]:
    """A file of W&B's: seven bytes, then LevelDB's log: blocks of 32 KiB of parts, each with a
    checksum, a length and a kind (1: whole, 2: first, 3: middle, 4: last)."""
    at, pending = 7, b""
    while at + 7 <= len(written):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", written, at + 4)
        pending += written[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield pending
            pending = b""


def logged_in(written: Path) -> dict[str, str]:
    """The logged values of a W&B file, as JSON, as far as it is written."""
    logged: dict[str, str] = {}
    for data in wandb_records(written.read_bytes()):
        record: Any = Record()
        try:
            record.ParseFromString(data)
        except DecodeError:  # the last record is not yet whole
            break
        for item in record.history.item:
            logged[item.key or "/".join(item.nested_key)] = item.value_json
    return logged


def logged_with(written: Path, name: str) -> dict[str, str]:
    """The logged values, once `name` is among them."""
    deadline = time.monotonic() + SECONDS
    while name not in (logged := logged_in(written)):
        assert time.monotonic() < deadline, f"W&B's file holds only {sorted(logged)}"
        time.sleep(0.2)
    return logged
