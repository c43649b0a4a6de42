"""The search trees of a page: an index of all trees, and compressed chunks with their nodes.

The page reads the index at once, and a chunk when a reader opens one of its trees. All trees of a
problem lie in one chunk, so two searches of a problem are compared without another read. A chunk is
gzip of JSON in base64. Page and chunk hold data only: a browser never runs them.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

CHUNK_CHARACTERS = 400_000  # of JSON: a chunk is read in some tens of milliseconds
DIGITS = 4  # significant digits of a node's numbers
NODE_COLUMNS = (
    "parent",
    "text",
    "prior",
    "logprob",
    "visit_count",
    "value",
    "score",
    "terminal",
    "verdict",
    "simulations",
    "proposals",
    "expansions",
    "beside",
)


@dataclass(frozen=True, kw_only=True)
class TreeData:
    """What a page holds of its trees.

    `searches` are pairs of a policy and a search's name. `prompts` holds one prompt per problem.
    A row of `trees` is: index of the problem, index of the search, verdict of the answer or null,
    number of nodes, index of the chunk, place in the chunk. `given` counts the problems that there
    were to show; `prompts` may hold fewer.
    """

    searches: list[tuple[str, str]]
    prompts: list[str]
    trees: list[tuple[int, int, str | None, int, int, int]]
    chunks: list[str]
    given: int

    def index(self) -> dict[str, Any]:
        """The content of the page's index."""
        return {
            "searches": self.searches,
            "prompts": self.prompts,
            "trees": self.trees,
            "chunks": len(self.chunks),
            "given": self.given,
        }


@dataclass(frozen=True, kw_only=True)
class _Packed:
    search: int
    outcome: str | None
    nodes: int
    json: str


def pack_trees(rows: Iterable[Mapping[str, Any]], most_bytes: int) -> TreeData:
    """Pack rows of tree files, which may have two more keys: `search`, the search's name in
    results.json (default: `strategy`), and `outcome`, the verdict on the answer.

    The problems keep the order of their first rows. As many are packed as fit into `most_bytes` of
    chunks.
    """
    searches: dict[tuple[str, str], int] = {}
    problems: dict[tuple[str, str], list[_Packed]] = {}
    for row in rows:
        problem = row.get("problem") or {}
        prompt = str(problem.get("prompt") or problem.get("id") or "")
        name = (str(row.get("policy") or ""), str(row.get("search") or row.get("strategy") or ""))
        packed = _Packed(
            search=searches.setdefault(name, len(searches)),
            outcome=row.get("outcome"),
            nodes=len(row["nodes"]),
            json=_dumps(_content(row)),
        )
        problems.setdefault((str(problem.get("id") or prompt), prompt), []).append(packed)
    prompts: list[str] = []
    trees: list[tuple[int, int, str | None, int, int, int]] = []
    chunks: list[str] = []
    free = most_bytes
    for group in _groups(problems):
        text = "[" + ",".join(tree.json for _, trees_of in group for tree in trees_of) + "]"
        chunk = base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()
        free -= len(chunk)
        if free < 0:
            break
        place = 0
        for prompt, trees_of in group:
            for tree in trees_of:
                trees.append(
                    (len(prompts), tree.search, tree.outcome, tree.nodes, len(chunks), place)
                )
                place += 1
            prompts.append(prompt)
        chunks.append(chunk)
    return TreeData(
        searches=list(searches), prompts=prompts, trees=trees, chunks=chunks, given=len(problems)
    )


def _groups(
    problems: Mapping[tuple[str, str], list[_Packed]],
) -> Iterator[list[tuple[str, list[_Packed]]]]:
    """The problems in groups of about `CHUNK_CHARACTERS`, one group per chunk."""
    group: list[tuple[str, list[_Packed]]] = []
    size = 0
    for (_, prompt), trees in problems.items():
        more = sum(len(tree.json) for tree in trees)
        if group and size + more > CHUNK_CHARACTERS:
            yield group
            group, size = [], 0
        group.append((prompt, trees))
        size += more
    if group:
        yield group


def _content(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the explorer shows of a tree. Columns of nodes are smaller than rows; the id of a node
    is its index. A column of equal values is that value alone."""
    columns: dict[str, Any] = {}
    for key in NODE_COLUMNS:
        values = [_short(node.get(key)) for node in row["nodes"]]
        equal = key not in ("parent", "text") and all(value == values[0] for value in values)
        columns[key] = values[0] if equal else values
    usage = row.get("usage") or {}
    flops = sum((usage.get(model) or {}).get("flops") or 0 for model in ("policy", "reward"))
    answers = [[taken["budget"], taken["answer_node"]] for taken in row.get("snapshots") or []]
    simulations = [
        [done, nodes, [[node, _short(value)] for node, value in backups]]
        for done, nodes, backups in row.get("simulations") or []
    ]
    return {
        "nodes": columns,
        "answer": row.get("answer"),
        "answers": answers,
        "simulations": simulations,
        "flops": flops,
    }


def _short(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def _dumps(content: Any) -> str:
    return json.dumps(content, separators=(",", ":"), allow_nan=False)
