"""Trees as JSON lines: one finished problem a line, so a crash costs only what was in flight."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from data.row_files import read_whole_lines
from data.types import Outcome, Problem, StopReason, Usage, Verdict, usage_from_json
from search.base import Node, SearchEnd, SearchResult, Snapshot

TREE_FORMAT = "thinktree-tree"
VERSION = 2


def result_to_json(result: SearchResult, policy: str) -> dict[str, Any]:
    """A row that `result_from_json` reads back: the fields of `SearchResult`, `Node` and
    `Snapshot`; `value` is a node's mean value, `reward` the verifier's word as a number where it
    was asked, `answer` the node of the last snapshot's answer."""
    last = result.snapshots[-1] if result.snapshots else None
    in_tree = {child for node in result.nodes for child in node.children}
    return {
        "format": TREE_FORMAT,
        "version": VERSION,
        "problem": dataclasses.asdict(result.problem),
        "strategy": result.strategy,
        "policy": policy,
        "end": result.end.value,
        "nodes": [
            _node_to_json(node, node.parent >= 0 and node.id not in in_tree)
            for node in result.nodes
        ],
        "answer": last.answer_node if last else None,
        "snapshots": [dataclasses.asdict(snapshot) for snapshot in result.snapshots],
        "usage": dataclasses.asdict(result.usage),
    }


def _node_to_json(node: Node, beside: bool) -> dict[str, Any]:
    return {
        "id": node.id,
        "parent": node.parent,
        "token_ids": list(node.token_ids),
        "text": node.text,
        "prior": node.prior,
        "logprob": node.logprob,
        "entropy": node.entropy,
        "visit_count": node.visit_count,
        "value": node.value_sum / node.visit_count if node.visit_count else node.score,
        "value_sum": node.value_sum,
        "value_max": node.value_max,
        "simulations": node.simulations,
        "score": node.score,
        "terminal": node.terminal.value if node.terminal else None,
        "bad_score": node.bad_score,
        "verdict": node.verdict.outcome.value if node.verdict else None,
        "reason": node.verdict.reason if node.verdict else "",
        "reward": float(node.verdict.correct) if node.verdict else None,
        "beside": beside,
        "revises": node.revises,
        "proposals": node.proposals,
        "expansions": node.expansions,
        "usage": _spent(node.usage),
    }


def _spent(usage: Usage) -> dict[str, Any]:
    """Only what is not 0: most nodes cost nothing of their own."""
    return {
        model: {key: value for key, value in counts.items() if value}
        for model, counts in dataclasses.asdict(usage).items()
        if any(counts.values())
    }


def result_from_json(row: dict[str, Any]) -> SearchResult:
    """Raises ValueError for another format or version."""
    if row.get("format") != TREE_FORMAT or row.get("version") != VERSION:
        raise ValueError(
            f"not a {TREE_FORMAT} of version {VERSION}: format {row.get('format')!r}, "
            f"version {row.get('version')!r}"
        )
    nodes: list[Node] = []
    for item in row["nodes"]:
        node = Node(
            id=item["id"],
            parent=item["parent"],
            token_ids=tuple(item["token_ids"]),
            text=item["text"],
            prior=item["prior"],
            logprob=item["logprob"],
            entropy=item["entropy"],
            visit_count=item["visit_count"],
            value_sum=item["value_sum"],
            value_max=item["value_max"],
            simulations=item["simulations"],
            score=item["score"],
            terminal=StopReason(item["terminal"]) if item["terminal"] else None,
            bad_score=item["bad_score"],
            verdict=(
                Verdict(outcome=Outcome(item["verdict"]), reason=item["reason"])
                if item["verdict"]
                else None
            ),
            proposals=item["proposals"],
            expansions=item["expansions"],
            revises=item["revises"],
            usage=usage_from_json(item["usage"]),
        )
        nodes.append(node)
        if node.parent >= 0 and not item["beside"]:
            nodes[node.parent].children.append(node.id)
    problem: dict[str, Any] = row["problem"] | {"numbers": tuple(row["problem"]["numbers"])}
    return SearchResult(
        problem=Problem(**problem),
        strategy=row["strategy"],
        nodes=tuple(nodes),
        snapshots=tuple(_snapshot_from_json(snapshot) for snapshot in row["snapshots"]),
        usage=usage_from_json(row["usage"]),
        end=SearchEnd(row["end"]),
    )


def _snapshot_from_json(row: dict[str, Any]) -> Snapshot:
    usage: Any = usage_from_json(row["usage"])
    return Snapshot(**row | {"usage": usage})


def read_trees(path: Path) -> list[SearchResult]:
    """All trees of a file that may still be written: a torn last line is cut off."""
    return [result_from_json(json.loads(line)) for line in read_whole_lines(path)]


def iterate_trees(path: Path) -> Iterator[SearchResult]:
    """The trees of a finished file, one at a time. Raises ValueError naming file and line for a
    row that is not a tree of this format and version."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield result_from_json(json.loads(line))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {number}: {error}") from error


def node_rows(result: SearchResult) -> Iterator[dict[str, Any]]:
    """A flat row a node, for tables: the columns of a tree's JSON row with the problem and the
    strategy in front; usage is the FLOPs and the generated tokens."""
    for node in result_to_json(result, "")["nodes"]:
        usage = usage_from_json(node.pop("usage"))
        yield {
            "problem_id": result.problem.id,
            "strategy": result.strategy,
            **node,
            "flops": usage.flops,
            "generated_tokens": usage.policy.generated_tokens,
        }


def append_trees(path: Path, results: Iterable[SearchResult], policy: str) -> int:
    """Append and flush each result as it comes; returns how many were written."""
    count = 0
    with path.open("a", encoding="utf-8") as file:
        for result in results:
            file.write(json.dumps(result_to_json(result, policy), separators=(",", ":")) + "\n")
            file.flush()
            count += 1
    return count
