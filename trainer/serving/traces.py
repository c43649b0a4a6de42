"""Search trees of past requests, in bounded memory."""

from __future__ import annotations

import json
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class _Trace:
    owner: str
    content: bytes


class TraceStore:
    """Keeps the trees of the last requests, compressed: at most `most` of them in at most `bytes`
    bytes. The oldest ones make room."""

    def __init__(self, *, most: int, bytes: int) -> None:
        self._most, self._bytes = most, bytes
        self._traces: OrderedDict[str, _Trace] = OrderedDict()
        self.size = 0

    def add(self, trace_id: str, owner: str, trees: Sequence[dict[str, Any]]) -> None:
        """Keep the trees of one request, unless they alone need more memory than there is."""
        rows = {"trace_id": trace_id, "trees": list(trees)}
        content = zlib.compress(json.dumps(rows, separators=(",", ":")).encode(), level=1)
        if not self._most or len(content) > self._bytes:
            return
        self._traces[trace_id] = _Trace(owner=owner, content=content)
        self.size += len(content)
        while len(self._traces) > self._most or self.size > self._bytes:
            _, oldest = self._traces.popitem(last=False)
            self.size -= len(oldest.content)

    def get(self, trace_id: str, owner: str) -> bytes | None:
        """The JSON of a request's trees; None if they are not kept, or are another client's."""
        found = self._traces.get(trace_id)
        return None if found is None or found.owner != owner else zlib.decompress(found.content)
