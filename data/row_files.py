"""JSON lines that another process may still be writing."""

from __future__ import annotations

import os
from pathlib import Path


def read_whole_lines(path: Path) -> list[str]:
    """The complete lines of a file that grows. A last line without a newline is cut off the file.
    A file that does not exist has no lines."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
    return content[:whole].decode("utf-8").splitlines()
