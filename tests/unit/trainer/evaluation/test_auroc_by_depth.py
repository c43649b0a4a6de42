"""AUROC by depth, worked out by hand on one Countdown problem: 1 2 4 50 -> 400."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sklearn.metrics import roc_auc_score

from data.tasks.countdown import make_problem
from data.types import Outcome, Problem, StopReason, Usage, Verdict
from search.base import Node, SearchResult
from search.measurements.prefix_success import ProbeConfig
from search.settings import SearchSettings
from trainer.evaluation.auroc_by_depth import (
    SAMPLES,
    auroc_metrics,
    estimated_reach_rows,
    finished_rows,
    pooled_prefixes,
    pooled_solutions,
    probed_prefixes,
    reach_rows,
    success_rows,
)
from trainer.evaluation.probed_reward_model import probe_reward_model
from trainer.evaluation.reward_model_samples import TRUTHS
from trainer.measures.results import AurocRow

PROBLEM = make_problem((1, 2, 4, 50), 400)
TASK = TRUTHS["countdown"]
# In reach: 8 x 50, 200 x 2. Out of reach: from 46, 2 and 1 at most 138.
A, B, C = "2 * 4 = 8 | 1 50 8\n", "50 * 4 = 200 | 1 2 200\n", "50 - 4 = 46 | 1 2 46\n"
# In reach: 50 x 8, 200 x 2. Out of reach: 408, 59 and 43 (of 51, 8); 600, 203 and 197 (of 200, 3).
A_YES, A_NO = "8 * 1 = 8 | 50 8\n", "50 + 1 = 51 | 8 51\n"
B_YES, B_NO = "200 * 1 = 200 | 2 200\n", "2 + 1 = 3 | 200 3\n"
SCORES = {A: 0.6, B: 0.9, C: 0.7, A_YES: 0.4, A_NO: 0.4, B_YES: 0.8, B_NO: 0.1}
CUT = "46 + 2 ="

Row = tuple[tuple[str, ...], float, int, bool]  # steps, score of the last one, samples, correct


def pool(*rows: Row) -> SearchResult:
    """A pool of solutions, whose steps share the nodes of equal prefixes."""
    nodes = [Node(id=0, parent=-1, token_ids=(), text="")]
    known: dict[tuple[str, ...], int] = {(): 0}
    for steps, score, count, correct in rows:
        for depth, step in enumerate(steps, start=1):
            parent = known[steps[: depth - 1]]
            if steps[:depth] not in known:
                known[steps[:depth]] = len(nodes)
                nodes[parent].children.append(len(nodes))
                nodes.append(
                    Node(
                        id=len(nodes), parent=parent, text=step, score=SCORES.get(step, score),
                        token_ids=tuple(map(ord, step)),
                    )
                )  # fmt: skip
        end = nodes[known[steps]]
        end.proposals += count
        end.terminal = StopReason.LENGTH if steps[-1] == CUT else StopReason.END_OF_SOLUTION
        if end.finished:
            end.verdict = Verdict(outcome=Outcome.CORRECT if correct else Outcome.WRONG)
    return SearchResult(
        problem=PROBLEM, strategy="pool", nodes=tuple(nodes), snapshots=(), usage=Usage()
    )


FEW = pool(
    ((A, A_YES, "50 * 8 = 400 | 400"), 0.9, 1, True),
    ((A, A_NO, "51 * 8 = 408 | 408"), 0.5, 1, False),
    ((B, B_YES, "200 * 2 = 400 | 400"), 0.4, 1, True),
    ((B, B_NO, "200 * 3 = 600 | 600"), 0.2, 1, False),
    ((C, CUT), 0.0, 1, False),
)
MANY = pool(
    ((A, A_YES, "50 * 8 = 400 | 400"), 0.9, 3, True),
    ((A, A_YES, "50 + 8 = 58 | 58"), 0.3, 1, False),
    ((A, A_NO, "51 * 8 = 408 | 408"), 0.5, 2, False),
    ((B, B_YES, "200 * 2 = 400 | 400"), 0.4, 1, True),
    ((B, B_NO, "200 * 3 = 600 | 600"), 0.2, 3, False),
    ((C, CUT), 0.0, 2, False),
    (("50 + 4 = 54 | 1 2 54\n", CUT), 0.0, 9, False),  # not among the few
)


def numbers(rows: Sequence[AurocRow]) -> dict[str, tuple[float | None, int, int]]:
    """AUROC, pairs and prefixes by the kind of steps."""
    return {r.steps: (r.auroc.value if r.auroc else None, r.pairs, r.prefixes) for r in rows}


def test_reach_by_the_solver_by_hand() -> None:
    prefixes = pooled_prefixes([FEW], [MANY])
    rows = reach_rows(prefixes, TASK, None, seed=0)
    assert numbers(rows) == {
        # A, B, A_YES and B_YES against C, A_NO and B_NO: 2, 3, 1.5 and 3 of 3 each
        "unfinished": (9.5 / 12, 12, 7),
        "depth 1": (0.5, 2, 3),  # 0.6 and 0.9 against 0.7
        "depth 2": (3.5 / 4, 4, 4),  # 0.4 and 0.8 against 0.4 (half) and 0.1
    }
    assert {(r.truth, r.evidence) for r in rows} == {("reach", "exhaustive solver")}
    assert [r.mean for r in rows] == [4 / 7, 2 / 3, 0.5]
    # Within one problem it is the AUROC of the library.
    truths = [TASK.in_reach(PROBLEM, p.text, None) for p in prefixes]
    assert truths == [True, True, False, True, True, False, False]
    scores = [p.scored.score for p in prefixes]
    assert rows[0].auroc and rows[0].auroc.value == pytest.approx(roc_auc_score(truths, scores))
    # With results up to 100, 400 is out of reach everywhere: no pair differs.
    assert numbers(reach_rows(prefixes, TASK, 100, seed=0))["unfinished"] == (None, 0, 7)
    assert auroc_metrics(rows) == {
        "auroc_reach_unfinished": 9.5 / 12,
        "auroc_reach_depth_1": 0.5,
        "auroc_reach_depth_2": 3.5 / 4,
    }


def test_success_is_the_share_of_all_samples_that_pass_by_hand() -> None:
    prefixes = pooled_prefixes([FEW], [MANY])
    shares = {p.text: (p.scored.correct, p.scored.count, p.depth) for p in prefixes}
    assert shares == {
        A: (3, 6, 1), A + A_YES: (3, 4, 2), A + A_NO: (0, 2, 2),
        B: (1, 4, 1), B + B_YES: (1, 1, 2), B + B_NO: (0, 3, 2), C: (0, 2, 1),
    }  # fmt: skip
    rows = numbers(success_rows(prefixes, "share of 21 samples", seed=0))
    # 1/2, 1/4 and 0 with the scores 0.6, 0.9 and 0.7: only B against C has the right order
    assert rows["depth 1"] == (1 / 3, 3, 3)
    # 3/4, 0, 1 and 0 with 0.4, 0.4, 0.8 and 0.1: one tie, four in the right order
    assert rows["depth 2"] == (0.9, 5, 4)


def test_prefixes_that_only_the_few_samples_have_keep_their_outcomes() -> None:
    fewer = pool(((A, A_YES, "50 * 8 = 400 | 400"), 0.9, 1, True))
    shares = {p.text: (p.scored.correct, p.scored.count) for p in pooled_prefixes([FEW], [fewer])}
    assert shares[A] == (1, 1) and shares[B] == (1, 2) and shares[A + A_NO] == (0, 1)


def test_finished_solutions_by_hand() -> None:
    rows = finished_rows(pooled_solutions([FEW]), seed=0)
    # 0.9 and 0.4 are right, 0.5 and 0.2 are wrong; what was cut off is no solution
    assert [(r.truth, r.steps, r.evidence) for r in rows] == [
        ("reach", "finished", "verdict"), ("success", "finished", "verdict"),
    ]  # fmt: skip
    assert numbers(rows)["finished"] == (0.75, 4, 4) and rows[0].mean == 0.5
    assert numbers(finished_rows([], seed=0))["finished"] == (None, 0, 0)


def test_what_is_thought_is_no_step() -> None:
    thinking = "<think>\n50 - 4 = 46 | 1 2 46\n"
    assert TASK.in_reach(PROBLEM, thinking, None)
    assert TASK.in_reach(PROBLEM, f"{thinking}</think>\n{A}", None)
    assert not TASK.in_reach(PROBLEM, f"{thinking}</think>\n{C}", None)


def probed(rows: Sequence[tuple[str, float, int]]) -> SearchResult:
    """Prefixes with their scores and the number of correct ones of 4 rollouts."""
    nodes = [Node(id=0, parent=-1, token_ids=(), text="")]
    for text, score, correct in rows:
        nodes.append(
            Node(
                id=len(nodes), parent=0, token_ids=tuple(map(ord, text)), text=text, score=score,
                visit_count=4, value_sum=float(correct),
            )
        )  # fmt: skip
    return replace(FEW, strategy="probe", nodes=tuple(nodes))


def ends(token_ids: Sequence[int]) -> list[int]:
    return [i for i, token in enumerate(token_ids) if token == ord("\n")]


PROBED = probed([(A, 0.6, 2), (B, 0.9, 1), (C, 0.7, 0), (B + B_YES, 0.5, 4)])


def test_reach_without_a_solver_is_any_of_the_rollouts() -> None:
    prefixes = probed_prefixes([PROBED], ends)
    assert [p.depth for p in prefixes] == [1, 1, 1, 2]
    rows = estimated_reach_rows(prefixes, 4, seed=0)
    assert {r.evidence for r in rows} == {"any of 4 rollouts"}
    # 0.6, 0.9 and 0.5 against 0.7
    assert numbers(rows) == {
        "unfinished": (1 / 3, 3, 4), "depth 1": (0.5, 2, 3), "depth 2": (None, 0, 1),
    }  # fmt: skip


class Right:
    def verify(self, problem: Problem, solution: str) -> Verdict:
        right = solution.endswith("right")
        return Verdict(outcome=Outcome.CORRECT if right else Outcome.WRONG)


@pytest.mark.parametrize("verifier", ["countdown", "math"])
def test_the_reward_model_of_an_evaluation(verifier: str, tmp_path: Path) -> None:
    texts = ["a right", "b wrong", "a right", *["c wrong"] * (SAMPLES - 3), "d right"]
    scores = {"a right": 0.8, "b wrong": 0.9, "c wrong": 0.1, "d right": 0.0}
    nodes = [Node(id=0, parent=-1, token_ids=(), text="")]
    for text in texts:
        nodes.append(
            Node(
                id=len(nodes), parent=0, token_ids=(1,), text=text, score=scores[text],
                terminal=StopReason.END_OF_SOLUTION,
            )
        )  # fmt: skip
    bench: Any = SimpleNamespace(
        search=lambda *given, **named: [PROBED], verifier=Right(),
        engine=SimpleNamespace(step_ends=ends),
    )  # fmt: skip

    def measure(settings: SearchSettings) -> dict[tuple[str, str], AurocRow]:
        quality = probe_reward_model(
            bench, [PROBLEM], ProbeConfig(rollouts=4), settings,
            solutions=[replace(FEW, nodes=tuple(nodes))], verifier=verifier, max_value=None,
            folder=tmp_path, seed=0,
        )  # fmt: skip
        assert quality is not None
        rows = {(r.truth, r.steps): r for r in quality.auroc_by_depth}
        success = rows["success", "unfinished"].auroc
        assert success is not None and success.value == quality.auroc
        return rows

    rows = measure(SearchSettings())
    said = {"countdown": "exhaustive solver", "math": "any of 4 rollouts"}
    assert rows["reach", "depth 1"].evidence == said[verifier]
    finished = rows["reach", "finished"]
    # a against b and c; d is not among the first samples
    assert finished.auroc and (finished.auroc.value, finished.pairs) == (0.5, 2)
    assert finished.prefixes == 3
    # Other scores than the reward model's of the last step are not measured.
    for other in (SearchSettings(aggregate="min"), SearchSettings(guidance="likelihood")):
        assert ("reach", "finished") not in measure(other)
