"""Search trees as JSON lines, one line per finished problem. A crash loses only the problems that
were running."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from data.json_rows import numbered_rows
from data.row_files import read_whole_lines
from data.types import (
    Outcome,
    Problem,
    ServedTokens,
    StopReason,
    Usage,
    Verdict,
    usage_from_json,
)
from search.base import Node, SearchEnd, SearchResult, Simulations, Snapshot

TREE_FORMAT = "thinktree-tree"
VERSION = 2


def result_to_json(result: SearchResult, policy: str) -> dict[str, Any]:
    """A JSON row that `result_from_json` reads back. It has the fields of `SearchResult`, `Node`
    and `Snapshot`.

    Some keys are there only where they say something. `mass` of a node and `remaining_mass`: the
    search sampled without replacement. `answer_score` of a node: it has one. `served`: a server
    sampled. `verdicts`: a verifier that counts its verdicts was asked. `simulations`: a tree search
    made some; it is a list `[done, nodes, [[node, value], ...]]` for each of
    `SearchResult.simulations`.

    `value` of a node is its mean value, or its score when it has no visits. `reward` of a node is 1
    for a correct verdict, 0 for any other verdict and null without a verdict. `answer` is the node
    of the last snapshot's answer. `policy` is stored as given.
    """
    last = result.snapshots[-1] if result.snapshots else None
    in_tree = {child for node in result.nodes for child in node.children}
    row: dict[str, Any] = {
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
    if result.remaining_mass is not None:
        row["remaining_mass"] = result.remaining_mass
    if result.served is not None:
        row["served"] = dataclasses.asdict(result.served)
    if result.simulations:
        row["simulations"] = [
            [batch.done, batch.nodes, [list(backup) for backup in batch.backups]]
            for batch in result.simulations
        ]
    if result.verdicts:
        row["verdicts"] = dict(sorted(result.verdicts.items()))
    return row


def _node_to_json(node: Node, beside: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": node.id,
        "parent": node.parent,
        "token_ids": list(node.token_ids),
        "text": node.text,
        "prior": node.prior,
        "logprob": _known(node.logprob),
        "entropy": _known(node.entropy),
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
    sometimes = {"mass": node.mass, "answer_score": node.answer_score}
    return row | {key: value for key, value in sometimes.items() if value is not None}


def _known(value: float) -> float | None:
    """JSON has no NaN, which stands for what a server did not say."""
    return None if math.isnan(value) else value


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _spent(usage: Usage) -> dict[str, Any]:
    """The counts that are not 0. Most nodes have no cost, so this keeps the files small."""
    spent: dict[str, Any] = {}
    for model, counts in (("policy", usage.policy), ("reward", usage.reward)):
        spent[model] = {key: value for key, value in vars(counts).items() if value}
    return {model: counts for model, counts in spent.items() if counts}


def result_from_json(row: dict[str, Any]) -> SearchResult:
    """The result that a row of `result_to_json` holds. Raises ValueError for another format or
    version."""
    if row.get("format") != TREE_FORMAT or row.get("version") != VERSION:
        raise ValueError(
            f"the row is not a {TREE_FORMAT} of version {VERSION}: its format is "
            f"{row.get('format')!r} and its version is {row.get('version')!r}"
        )
    nodes: list[Node] = []
    for item in row["nodes"]:
        node = Node(
            id=item["id"],
            parent=item["parent"],
            token_ids=tuple(item["token_ids"]),
            text=item["text"],
            prior=item["prior"],
            logprob=_or_nan(item["logprob"]),
            entropy=_or_nan(item["entropy"]),
            visit_count=item["visit_count"],
            value_sum=item["value_sum"],
            value_max=item["value_max"],
            simulations=item["simulations"],
            score=item["score"],
            answer_score=item.get("answer_score"),
            terminal=StopReason(item["terminal"]) if item["terminal"] else None,
            bad_score=item["bad_score"],
            verdict=(
                Verdict(outcome=Outcome(item["verdict"]), reason=item["reason"])
                if item["verdict"]
                else None
            ),
            proposals=item["proposals"],
            mass=item.get("mass"),
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
        remaining_mass=row.get("remaining_mass"),
        served=ServedTokens(**row["served"]) if "served" in row else None,
        verdicts=row.get("verdicts", {}),
        simulations=tuple(
            Simulations(done=done, nodes=count, backups=tuple((id, value) for id, value in backups))
            for done, count, backups in row.get("simulations", ())
        ),
    )


def _snapshot_from_json(row: dict[str, Any]) -> Snapshot:
    usage: Any = usage_from_json(row["usage"])
    return Snapshot(**row | {"usage": usage})


def read_trees(path: Path) -> list[SearchResult]:
    """All trees of a file that may be unfinished. An incomplete last line is cut off the file."""
    return [result_from_json(json.loads(line)) for line in read_whole_lines(path)]


def iterate_trees(path: Path) -> Iterator[SearchResult]:
    """Yield the trees of a finished file one at a time.

    Raises ValueError for a row that is not a tree of this format and version. The message names the
    file and the line.
    """
    for number, row in numbered_rows(path):
        try:
            yield result_from_json(row)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from error


def node_rows(result: SearchResult) -> Iterator[dict[str, Any]]:
    """Yield one flat row per node, for tables.

    The columns are the problem id, the strategy and the fields of the node in `result_to_json`. In
    place of `usage` there are the columns `flops` and `generated_tokens`.
    """
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
    """Append each result to the file when it arrives, and flush the file. Returns the number of
    results."""
    count = 0
    with path.open("a", encoding="utf-8") as file:
        for result in results:
            file.write(json.dumps(result_to_json(result, policy), separators=(",", ":")) + "\n")
            file.flush()
            count += 1
    return count
