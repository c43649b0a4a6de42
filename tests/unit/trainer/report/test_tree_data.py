"""The trees of a page: packed, chunked, and cut to a size."""

from __future__ import annotations

import base64
import gzip
import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from data.types import Problem, StopReason, Usage
from search.base import Node, SearchResult, Snapshot
from search.trees.files import result_to_json
from trainer.report.page import write_report
from trainer.report.results import ReportConfig, report_trees
from trainer.report.tree_data import CHUNK_CHARACTERS, pack_trees


def tree(problem: str, text: str = "4 - 3 = 1 | 1", **more: Any) -> dict[str, Any]:
    nodes = [
        {"id": 0, "parent": -1, "text": "", "prior": 1.0, "value": 0.123456, "verdict": None},
        {"id": 1, "parent": 0, "text": text, "prior": 0.25, "value": None, "verdict": "wrong"},
    ]
    return {
        "problem": {"id": problem, "prompt": f"{problem} -> 1\n"}, "policy": "sft",
        "strategy": "mcts", "nodes": nodes, "answer": 1, "outcome": "wrong",
        "snapshots": [{"budget": 2, "answer_node": 1, "answer": text}],
        "usage": {"policy": {"flops": 2.0}, "reward": {"flops": 3.0}}, **more,
    }  # fmt: skip


def unpacked(chunk: str) -> Any:
    return json.loads(gzip.decompress(base64.b64decode(chunk)))


def test_trees_of_a_problem_share_a_chunk() -> None:
    rows = [tree("a"), tree("b"), tree("a", search="control", outcome="correct")]
    data = pack_trees(rows, 10_000)
    assert data.searches == [("sft", "mcts"), ("sft", "control")]
    assert data.prompts == ["a -> 1\n", "b -> 1\n"] and data.given == 2
    assert data.trees == [
        (0, 0, "wrong", 2, 0, 0),
        (0, 1, "correct", 2, 0, 1),
        (1, 0, "wrong", 2, 0, 2),
    ]
    [chunk] = data.chunks
    first = unpacked(chunk)[0]
    assert first["answer"] == 1 and first["answers"] == [[2, 1]] and first["flops"] == 5.0
    assert first["simulations"] == []
    nodes = first["nodes"]
    assert nodes["parent"] == [-1, 0] and nodes["text"] == ["", "4 - 3 = 1 | 1"]
    assert nodes["prior"] == [1.0, 0.25] and nodes["value"] == [0.1235, None]
    assert nodes["terminal"] is None  # one value for all nodes
    assert pack_trees(rows, 10_000) == data
    played = pack_trees([tree("a", simulations=[[1, 2, [[1, 0.123456]]]])], 10_000)
    assert unpacked(played.chunks[0])[0]["simulations"] == [[1, 2, [[1, 0.1235]]]]


def test_as_many_problems_as_fit_are_packed() -> None:
    random_text = random.Random(0).randbytes
    rows = [tree(str(i), random_text(CHUNK_CHARACTERS // 4).hex()) for i in range(6)]
    whole = pack_trees(rows, 10_000_000)
    assert len(whole.prompts) == 6 and len(whole.chunks) == 6
    size = len(whole.chunks[0])
    part = pack_trees(rows, int(2.5 * size))
    assert part.prompts == whole.prompts[:2] and part.given == 6
    assert part.chunks == whole.chunks[:2]
    assert pack_trees([], 0).index() == {
        "searches": [], "prompts": [], "trees": [], "chunks": 0, "given": 0,
    }  # fmt: skip


def test_a_page_keeps_its_size_and_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    write_report({"schema_version": 1}, [], path)
    most = path.stat().st_size + 300_000
    monkeypatch.setattr("trainer.report.page.MAX_PAGE_BYTES", most)
    random_text = random.Random(0).randbytes
    rows = (tree(str(i), random_text(CHUNK_CHARACTERS // 4).hex()) for i in range(6))
    write_report({"schema_version": 1}, rows, path)
    page = path.read_text()
    assert path.stat().st_size < most
    assert page.count('<script type="text/plain" id="trees-') == 1 and '"given":6' in page


def test_trees_of_an_evaluation_have_verdicts(tmp_path: Path) -> None:
    problem = Problem(id="p", prompt="3 4 -> 1\n", answer="1", group="3 4", numbers=(3, 4))

    def search(strategy: str, answer: str | None, truncated: bool = False) -> str:
        root = Node(id=0, parent=-1, token_ids=(), text="", children=[1])
        leaf = Node(
            id=1, parent=0, token_ids=(5,), text=answer or "4", terminal=StopReason.END_OF_SOLUTION
        )
        taken = Snapshot(budget=1, answer=answer, answer_node=1, truncated=truncated, usage=Usage())
        found = SearchResult(
            problem=problem, strategy=strategy, nodes=(root, leaf), snapshots=(taken,),
            usage=Usage(),
        )  # fmt: skip
        return json.dumps(result_to_json(found, "round_1")) + "\n"

    right, wrong = "4 - 3 = 1 | 1", "4 + 3 = 7 | 7"
    (tmp_path / "round_1_mcts.jsonl").write_text(search("mcts", right) + search("mcts", wrong))
    (tmp_path / "round_1_best_of_n.jsonl").write_text(search("solutions", right, truncated=True))
    too_long = json.loads(search("mcts", None)) | {"snapshots": [], "end": "long_prompt"}
    (tmp_path / "sft_mcts_control.jsonl").write_text(
        search("mcts", None) + json.dumps(too_long) + "\n"
    )
    config = ReportConfig(
        stages=[], evaluation=str(tmp_path), verifier="countdown", judged_problems=1
    )
    evaluation: Any = SimpleNamespace(
        accuracy=[SimpleNamespace(policy="sft"), SimpleNamespace(policy="round_1")]
    )
    rows = list(report_trees(config, evaluation))
    assert [(row["search"], row["outcome"], row["nodes"][1]["verdict"]) for row in rows] == [
        ("mcts", "correct", "correct"),
        ("mcts", "wrong", None),  # its solutions are not among those that are judged
        ("best_of_n_weighted", "unverifiable", "correct"),  # an answer that was cut off
        ("mcts_uniform_control", "unverifiable", rows[3]["nodes"][1]["verdict"]),
        ("mcts_uniform_control", "unverifiable", None),  # a search that had no answer
    ]
