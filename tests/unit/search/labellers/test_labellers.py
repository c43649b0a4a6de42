"""Labellers on engines with scripted completions: values, costs and budgets, computed by hand."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from data.tasks.countdown import make_problem
from data.types import ModelUsage, Outcome, Sample, StepLabels, StopReason, Usage, Verdict
from rewards.verifiers.countdown import CountdownVerifier
from search.base import AUDIT_INDEX, Node, SearchEnd, SearchResult
from search.batcher import run_searches
from search.journal import Journal
from search.labellers.binary_search import BinarySearchConfig, State, rollout_value, select
from search.labellers.by_name import (
    LABELLERS,
    LabelSettings,
    bind_labeller,
    first_error,
    labeller_entry,
)
from search.labellers.evidence import Evidence
from search.labellers.monte_carlo import (
    EveryStepConfig,
    MonteCarloConfig,
    _without,
    pool,
    step_labels,
)
from search.labellers.solutions import Labelled, VerifiedRollout
from search.labellers.solver import SolverConfig
from search.labellers.tree_solutions import TreeSolutionsConfig
from search.labellers.tree_values import TreeConfig, label_tree_q
from search.measurements.prefix_success import RelabelConfig, relabel_prefixes
from search.settings import SearchSettings
from search.strategies.mcts.config import MCTSConfig
from search.strategies.mcts.loop import search_mcts
from search.trees.files import append_trees

Complete = Callable[[str, int], str]


def scripted(toys: Any, complete: Complete) -> Any:
    """An engine whose sample `index` after `text` is `complete(text, index)`, cut at the limit."""

    class Scripted(toys.Engine):
        def _sample(self, problem: str, request: Any, index: int) -> Sample:
            text = complete(toys.text(request.prefix), index)
            ids = [0 if letter == "." else ord(letter) for letter in text]
            cut = len(ids) > request.max_new_tokens
            ids = ids[: request.max_new_tokens]
            return Sample(
                token_ids=tuple(ids),
                step_logprobs=(0.0,) * len(ids),
                step_entropies=(0.0,) * len(ids),
                stop_reason=StopReason.LENGTH if cut else StopReason.END_OF_SOLUTION,
            )

    return Scripted(lambda text: {})


def label(
    toys: Any,
    engine: Any,
    config: Any,
    *,
    answer: str = "aaaaaaa",
    names: Sequence[str] = ("p",),
    settings: LabelSettings | None = None,
    journal: Journal | None = None,
) -> dict[str, Labelled]:
    found: dict[str, Labelled] = {}

    async def strategy(session: Any) -> SearchResult:
        found[session.problem.id] = await bind_labeller(config)(session)
        return SearchResult(
            problem=session.problem, strategy="", nodes=(), snapshots=(), usage=session.usage
        )

    results = run_searches(
        [toys.problem(name, answer) for name in names], strategy, engine=engine, scorer=None,
        verify=toys.verify, settings=(settings or LabelSettings()).of_a_search(), journal=journal,
    )  # fmt: skip
    for result in results:
        assert found[result.problem.id].usage == result.usage
    return found


def asked(toys: Any, engine: Any) -> list[tuple[str, int]]:
    """The prefix and the number of samples of every request, in order."""
    return [(toys.text(r.prefix), r.n) for batch in engine.batches for _, r in batch]


# "aaaaaaa." is right. Only the fourth letter can be wrong, and a wrong one makes the solution
# wrong. Before it, every other rollout is right. After it, all rollouts are right or none is.
def fourth(text: str, index: int) -> str:
    rest = "aaaaaaa"[len(text) :]
    if len(text) > 3:
        return rest + "."
    return rest[: 3 - len(text)] + "xyaa"[index % 4] + "aaa."


ROW = ("a", "a", "a", "x", "a", "a", "a", "")


def test_every_step_by_hand(toys: Any) -> None:
    engine = scripted(toys, fourth)
    [row] = label(toys, engine, EveryStepConfig(solutions=1, rollouts=4))["p"].rows
    assert row.completions == ROW and row.prompt_ids == (63, 62)
    # of 4 rollouts from before the x, two are right; the solution itself does not count
    assert row.labels == (0.5, 0.5, 0.5, 0, 0, 0, 0, 0)
    assert row.counts == (4,) * 7 + (1,)
    # Laplace: sqrt(1/2 x 1/2 / 4), sqrt(1/6 x 5/6 / 4); a verdict has no error
    before, after = 0.25, math.sqrt(5) / 12
    assert row.standard_errors == pytest.approx((before,) * 3 + (after,) * 4 + (0.0,))
    assert asked(toys, engine) == [("", 1), *(("aaaxaaa"[:i], 4) for i in range(1, 8))]
    # a solution of 8, and 4 rollouts of 7, 6, 5, 4, 3, 2 and 1 tokens
    assert sum(len(s) for s in ROW) + 1 == 8
    cost = label(toys, engine, EveryStepConfig(solutions=1, rollouts=4))["p"].usage
    assert cost.policy.generated_tokens == 8 + 4 * 28
    hard = label(toys, engine, EveryStepConfig(solutions=1, rollouts=4, hard_labels=True))[
        "p"
    ].rows[0]
    assert hard.labels == (1, 1, 1, 0, 0, 0, 0, 0) and hard.completions == ROW
    # P(at least one of 4 is right) is 15/16 at V = 1/2, and 1 - (5/6)^4 at V = 1/6
    missed = (5 / 6) ** 4
    assert hard.standard_errors[0] == pytest.approx(math.sqrt(15) / 16)
    assert hard.standard_errors[3] == pytest.approx(math.sqrt(missed * (1 - missed)))


def test_stopping_at_the_first_error_by_hand(toys: Any) -> None:
    engine = scripted(toys, fourth)
    config = EveryStepConfig(solutions=1, rollouts=4, stop_at_first_error=True)
    found = label(toys, engine, config)["p"]
    [row] = found.rows
    # The steps after the first error have no evidence, so they are one completion with the verdict.
    assert row.completions == ("a", "a", "a", "x", "aaa")
    assert row.labels == (0.5, 0.5, 0.5, 0, 0) and row.counts == (4, 4, 4, 4, 1)
    assert row.completion_ids[-1] == (97, 97, 97, 0)
    assert found.usage.policy.generated_tokens == 8 + 4 * (7 + 6 + 5 + 4)
    config = EveryStepConfig(solutions=1, rollouts=4, stop_at_first_error=True, hard_labels=True)
    [row] = label(toys, engine, config)["p"].rows
    assert row.completions == ROW and row.labels == (1, 1, 1, 0, 0, 0, 0, 0)
    assert row.counts == (4,) * 7 + (1,) and first_error(row) == 3


def test_more_rollouts_after_the_first_steps_by_hand(toys: Any) -> None:
    engine = scripted(toys, fourth)
    config = EveryStepConfig(solutions=1, rollouts=4, rollouts_by_depth=(8, 2))
    found = label(toys, engine, config)["p"]
    [row] = found.rows
    assert asked(toys, engine) == [
        ("", 1), ("a", 8), ("aa", 2), *(("aaaxaaa"[:i], 4) for i in range(3, 8)),
    ]  # fmt: skip
    # of 8 rollouts four are right, of the first 2 none, of 4 two
    assert row.labels == (0.5, 0, 0.5, 0, 0, 0, 0, 0) and row.counts == (8, 2, 4, 4, 4, 4, 4, 1)
    assert found.usage.policy.generated_tokens == 8 + 8 * 7 + 2 * 6 + 4 * (5 + 4 + 3 + 2 + 1)
    stopped = EveryStepConfig(
        solutions=1, rollouts=4, rollouts_by_depth=(8, 2), stop_at_first_error=True
    )
    [row] = label(toys, scripted(toys, fourth), stopped)["p"].rows
    assert row.completions == ("a", "a", "axaaa") and row.counts == (8, 2, 1)


def two_ways(text: str, index: int) -> str:
    """Two solutions in turn; every beginning is completed as it began."""
    whole = ["abc", "def"][index % 2] if not text else "def" if text[0] == "d" else "abc"
    return whole[len(text) :] + "."


@pytest.mark.parametrize("stop", [False, True])
def test_further_solutions_get_labels_at_their_first_steps_only(toys: Any, stop: bool) -> None:
    engine = scripted(toys, two_ways)
    config = EveryStepConfig(
        solutions=1, early_solutions=1, early_depth=1, rollouts=3, stop_at_first_error=stop
    )
    rows = label(toys, engine, config, answer="def")["p"].rows
    deeper = [] if stop else [("ab", 3), ("abc", 3)]
    assert asked(toys, engine) == [("", 2), ("a", 3), *deeper, ("d", 3)]
    assert rows[0].labels == ((0, 0) if stop else (0, 0, 0, 0))
    # The steps after d have no rollouts, so they are one completion with the verdict.
    assert (rows[1].completions, rows[1].labels, rows[1].counts) == (("d", "ef"), (1, 1), (3, 1))
    # A solution that is among the first ones has all its labels, however often it is sampled.
    config = EveryStepConfig(solutions=2, early_solutions=2, early_depth=1, rollouts=3)
    rows = label(toys, scripted(toys, two_ways), config, answer="def")["p"].rows
    assert [row.labels for row in rows] == [(0, 0, 0, 0), (1, 1, 1, 1)]


def test_labels_by_the_solver_by_hand(toys: Any) -> None:
    first, reaching, missing = (
        "2 * 4 = 8 | 1 50 8\n", "8 * 1 = 8 | 50 8\n", "50 + 1 = 51 | 8 51\n"
    )  # fmt: skip
    solutions = [
        f"{first}{missing}51 * 8 = 408 | 408.",
        "50 - 4 = 46 | 1 2 46\n46 + 2 = 48 | 1 48\n48 + 1 = 49 | 49.",  # at most 138 from 46
        f"{first}{reaching}50 * 8 = 400 | 400.",
    ]
    engine = scripted(toys, lambda text, index: solutions[index % 3])

    def step_ends(token_ids: Sequence[int]) -> list[int]:
        last = len(token_ids) - 1
        return [i for i, token in enumerate(token_ids) if token == ord("\n") or i == last]

    engine.step_ends = step_ends
    problem = make_problem((1, 2, 4, 50), 400)
    found: list[Labelled] = []

    def run(config: SolverConfig) -> list[tuple[float, ...]]:
        async def strategy(session: Any) -> SearchResult:
            found.append(await bind_labeller(config)(session))
            return SearchResult(
                problem=problem, strategy="", nodes=(), snapshots=(), usage=session.usage
            )

        verify = CountdownVerifier().verify
        list(run_searches([problem], strategy, engine=engine, scorer=None, verify=verify))
        return [row.labels for row in found[-1].rows]

    assert run(SolverConfig(solutions=4)) == [(1, 0, 0), (0, 0, 0), (1, 1, 1)]
    assert [r.n for batch in engine.batches for _, r in batch] == [4]  # no rollout
    [row, *_] = found[0].rows
    assert row.completions == (first, missing, "51 * 8 = 408 | 408")
    assert row.counts == (1, 1, 1) and row.standard_errors == (0, 0, 0)
    # With results up to 100 nothing reaches 400. The verdict stays the verifier's.
    assert run(SolverConfig(solutions=4, tree_max_value=100))[2] == (0, 0, 1)
    with pytest.raises(ValueError, match="solutions is 0"):
        SolverConfig(solutions=0)


def test_binary_search_by_hand(toys: Any) -> None:
    engine = scripted(toys, fourth)
    config = BinarySearchConfig(solutions=1, rollouts=4, searches=1, search_unsolved=True)
    found = label(toys, engine, config)["p"]
    # between 0 and 8: at 4 none is right, at 2 some are, at 3 some are
    assert asked(toys, engine) == [("", 1), ("aaax", 4), ("aa", 4), ("aaa", 4)]
    assert found.usage.policy.generated_tokens == 8 + 4 * (4 + 6 + 5)
    [row] = found.rows
    # Edges between the states that were rolled out.
    assert row.completions == ("aa", "a", "x", "aaa")
    assert row.labels == (0.5, 0.5, 0, 0) and row.counts == (4, 4, 4, 1)
    hard = BinarySearchConfig(
        solutions=1, rollouts=4, searches=1, search_unsolved=True, hard_labels=True
    )
    [row] = label(toys, engine, hard)["p"].rows
    # 1 before a state with a correct rollout, 0 after one without
    assert row.completions == ROW and row.labels == (1, 1, 1, 0, 0, 0, 0, 0)
    assert first_error(row) == 3
    assert found.end is SearchEnd.COMPLETE


def test_rollouts_found_on_the_way_are_searched_too(toys: Any) -> None:
    engine = scripted(toys, fourth)
    config = BinarySearchConfig(solutions=3, rollouts=4)
    found = label(toys, engine, config)["p"]
    # Solutions x, y, a: MC is 1/3, and both wrong ones wait. The first goes first: aaax, aa, aaa.
    # aa and aaa keep an x and a y each. The best Q is now that of aaa (MC 1/2, the shortest rest),
    # whose x is searched already; its y, between 3 and 8, asks at 5 and at 4. The rest is the same.
    assert asked(toys, engine) == [
        ("", 3), ("aaax", 4), ("aa", 4), ("aaa", 4), ("aaaya", 4), ("aaay", 4),
    ]  # fmt: skip
    assert ["".join(row.completions) for row in found.rows] == ["aaaxaaa", "aaayaaa", "aaaaaaa"]
    assert found.rows[1].completions == ("aa", "a", "y", "a", "aa")
    assert found.rows[2].completions == ("aa", "a", "aaaa") and found.rows[2].labels[-1] == 1.0

    def later(text: str, index: int) -> str:  # a z that only rollouts from "aa" reach
        return "az" + "aaa." if text == "aa" and index == 2 else fourth(text, index)

    engine = scripted(toys, later)
    found = label(toys, engine, BinarySearchConfig(solutions=3, rollouts=4))["p"]
    assert "aaazaaa" in ["".join(row.completions) for row in found.rows]
    few = BinarySearchConfig(solutions=3, rollouts=4, searches=1)
    assert len(label(toys, scripted(toys, later), few)["p"].rows) == 3


def test_unsolved_problems_are_left_out_as_in_the_paper(toys: Any) -> None:
    engine = scripted(toys, fourth)
    found = label(toys, engine, BinarySearchConfig(solutions=2, rollouts=4))["p"]
    assert asked(toys, engine) == [("", 2)]
    assert [row.labels for row in found.rows] == [(0.0,), (0.0,)]


def wrong(text: str, origin: int) -> VerifiedRollout:
    return VerifiedRollout(steps=tuple((ord(c),) for c in text), origin=origin, correct=False)


def test_which_rollout_is_searched_by_hand() -> None:
    config = BinarySearchConfig(length_scale=10.0, exploration=0.1)
    long, short, deep = wrong("abcdefghij", 0), wrong("abcde", 0), wrong("abcdefg", 2)
    root = State(steps=(), evidence=Evidence(correct=6, count=8), waiting=[long, short])
    low = State(steps=deep.steps[:2], evidence=Evidence(correct=1, count=4), waiting=[deep])
    # 0.5^(1 - 3/4) 0.9^(10/10), 0.9^(5/10); 0.5^(1 - 1/4) 0.9^(5/10)
    assert rollout_value(root, long, config) == pytest.approx(0.5**0.25 * 0.9)
    assert rollout_value(root, short, config) == pytest.approx(0.5**0.25 * 0.9**0.5)
    assert rollout_value(low, deep, config) == pytest.approx(0.5**0.75 * 0.9**0.5)
    assert select([root, low], config) == (root, short)
    # 0.798 + c sqrt(9) / 10 against 0.564 + c sqrt(9) / 1: equal at c = 0.0866
    root.selections = 9
    assert select([root, low], BinarySearchConfig(length_scale=10.0, exploration=0.08))[0] is root  # type: ignore[index]
    assert select([root, low], BinarySearchConfig(length_scale=10.0, exploration=0.09))[0] is low  # type: ignore[index]
    root.waiting.clear()
    low.waiting.clear()
    assert select([root, low], config) is None


def test_hard_monte_carlo_labels(toys: Any) -> None:
    engine = scripted(toys, fourth)
    rows = label(toys, engine, MonteCarloConfig(solutions=3, hard_labels=True))["p"].rows
    assert [row.labels[:4] for row in rows] == [(1, 1, 1, 0), (1, 1, 1, 0), (1, 1, 1, 1)]
    assert rows[0].counts == (3, 3, 3, 1, 1, 1, 1, 1)


def test_leaving_the_own_rollout_out_by_hand(toys: Any) -> None:
    engine = scripted(toys, fourth)
    config = MonteCarloConfig(solutions=4, own_rollout="leave_out")
    rows = label(toys, engine, config)["p"].rows
    # x, y, a, a: beside a wrong one 2 of 3 are right, beside a right one 1 of 3
    assert [row.labels for row in rows] == [
        (2 / 3, 2 / 3, 2 / 3, 0),
        (2 / 3, 2 / 3, 2 / 3, 0),
        (1 / 3, 1 / 3, 1 / 3, 1, 1, 1, 1, 1),
        (1 / 3, 1 / 3, 1 / 3, 1, 1, 1, 1, 1),
    ]
    assert rows[0].counts == (3, 3, 3, 1)
    assert rows[0].completions == ("a", "a", "a", "xaaa")  # no other rollout passed aaax
    # A rollout from a prefix is left out of the label of this prefix, not of shorter prefixes.
    a, b, c = (1,), (2,), (3,)
    rollouts = [
        VerifiedRollout(steps=(a, b, c), origin=0, correct=True),
        VerifiedRollout(steps=(a, b, a), origin=2, correct=False),
        VerifiedRollout(steps=(a, b, c), origin=2, correct=True),
    ]
    left = [_without(pool(rollouts), own) for own in rollouts]
    assert left[0] == {(a, b): Evidence(correct=1, count=2)}
    assert left[1] == {
        (a,): Evidence(correct=1, count=1),
        (a, b): Evidence(correct=2, count=2),
    }


# Two letters after the prefix "p": c is right, d and e are wrong, with these probabilities.
CHANCES = {"c": 0.5, "d": 0.25, "e": 0.25}


def mean_errors(
    n: int, weigh: Callable[[list[VerifiedRollout]], list[tuple[float, float]]]
) -> float:
    """E[sum(weight x error)] / E[sum(weight)], exact over all outcomes of n samples. The sums are
    over the (weight, label) of the prefix p, whose true success rate is 1/2."""
    total = weight = 0.0
    for outcome in itertools.product(CHANCES, repeat=n):
        chance = math.prod(CHANCES[letter] for letter in outcome)
        rollouts = [
            VerifiedRollout(steps=((112,), (ord(x), 0)), origin=0, correct=x == "c")
            for x in outcome
        ]
        for w, value in weigh(rollouts):
            total += chance * w * (value - 0.5)
            weight += chance * w
    return total / weight


def rows_of(rollouts: list[VerifiedRollout]) -> list[StepLabels]:
    return step_labels("p", "?", (9,), rollouts, str)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_which_means_of_labels_are_unbiased_by_enumeration(n: int) -> None:
    # Each prefix counts once, whatever followed it: unbiased.
    assert mean_errors(n, lambda r: [(1.0, rows_of(r)[0].labels[0])]) == pytest.approx(0, abs=1e-12)
    # Each prefix counts once per distinct solution: right solutions are equal more often than
    # wrong.
    by_rows = mean_errors(n, lambda r: [(1.0, row.labels[0]) for row in rows_of(r)])
    assert by_rows < -0.02
    if n == 2:
        # E[D (k/2 - V)] = 1/4 x 1 x 1/2 + 2/4 x 2 x 0 - 1/8 x 2 x 1/2 - 1/8 x 1 x 1/2 = -1/16;
        # E[D] = 1/4 + 1 + 1/4 + 1/8 = 13/8
        assert by_rows == pytest.approx(-1 / 26)

    def left_out(
        rollouts: list[VerifiedRollout], verdict: bool | None
    ) -> list[tuple[float, float]]:
        totals = pool(rollouts)
        return [
            (1.0, _without(totals, own)[own.steps[:1]].label(hard=False))
            for own in rollouts
            if verdict is None or own.correct == verdict
        ]

    def counted(rollouts: list[VerifiedRollout]) -> list[tuple[float, float]]:
        return [(1.0, pool(rollouts)[r.steps[:1]].label(hard=False)) for r in rollouts if r.correct]

    # One row per sample, without the sample's own rollout: unbiased, whatever the verdict is.
    for verdict in (None, True, False):
        assert mean_errors(n, lambda r, v=verdict: left_out(r, v)) == pytest.approx(0, abs=1e-12)
    # With distinct rows, the rows of c have the bias -(1 - V) P(m >= 2) / ((n - 1) P(m >= 1)).
    seen, twice = 1 - 0.5**n, 1 - 0.5**n - n * 0.5**n
    lean = mean_errors(n, lambda r: left_out(r, True)[:1])
    assert lean == pytest.approx(-0.5 * twice / ((n - 1) * seen))
    # With the own rollout, the rows of right solutions have the bias (1 - V) / n.
    assert mean_errors(n, counted) == pytest.approx(0.5 / n)


def walk(text: str) -> dict[str, float]:
    """Six letters. Each letter is an error with probability 0.1."""
    return {".": 1.0} if len(text) == 6 else {"a": 0.9, "x": 0.1}


CONFIGS = [
    MonteCarloConfig(solutions=6, rollouts_per_step=4, prefixes=4),
    MonteCarloConfig(solutions=6, rollouts_per_step=4, prefixes=4, own_rollout="leave_out"),
    EveryStepConfig(solutions=4, rollouts=4),
    EveryStepConfig(solutions=3, rollouts=2, rollouts_by_depth=(4,), early_solutions=3),
    EveryStepConfig(solutions=4, rollouts=4, stop_at_first_error=True, hard_labels=True),
    BinarySearchConfig(solutions=6, rollouts=4, searches=6),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_a_budget_is_kept_but_for_what_is_in_flight(toys: Any, config: Any) -> None:
    unlimited = LabelSettings(max_new_tokens=7)
    free = label(toys, toys.Engine(walk), config, answer="aaaaaa", settings=unlimited)["p"]
    assert free.end is SearchEnd.COMPLETE
    whole = free.usage.policy.generated_tokens
    spent: list[int] = []
    for budget in sorted((1, 20, 30, 50, 75, whole // 2, whole)):
        settings = LabelSettings(max_new_tokens=7, max_generated_tokens=budget)
        found = label(toys, toys.Engine(walk), config, answer="aaaaaa", settings=settings)["p"]
        tokens = found.usage.policy.generated_tokens
        spent.append(tokens)
        assert tokens < budget + 4 * 7  # at most 4 rollouts of the 7 tokens of a solution
        assert (found.end is SearchEnd.TOKENS) == (tokens < whole)
        for row in found.rows:
            assert len(row.completions) == len(row.completion_ids) == len(row.labels)
            assert len(row.labels) == len(row.counts) == len(row.standard_errors)
            assert row.labels[-1] == float("".join(row.completions) == "aaaaaa")
    assert spent == sorted(spent) and spent[0] == 7 and spent[-1] == whole
    # Without a limit, the samples and the labels are the same.
    assert found.rows == free.rows


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_company_and_interruptions_change_nothing(toys: Any, config: Any, tmp_path: Path) -> None:
    names = ["p", "q", "r"]
    together = label(toys, toys.Engine(walk), config, answer="aaaaaa", names=names)
    for name in names:
        alone = label(toys, toys.Engine(walk), config, answer="aaaaaa", names=[name])
        assert alone[name] == together[name]

    class Stops(toys.Engine):
        def sample_batch(self, items: Any) -> Any:
            if len(self.batches) == 2:
                raise KeyboardInterrupt
            return super().sample_batch(items)

    settings = LabelSettings(max_generated_tokens=10**6)  # one prefix at a time: many calls
    path = tmp_path / "journal.jsonl"
    with pytest.raises(KeyboardInterrupt):
        label(
            toys, Stops(walk), config, answer="aaaaaa", names=names, settings=settings,
            journal=Journal(path),
        )  # fmt: skip
    again = toys.Engine(walk)
    resumed = label(
        toys, again, config, answer="aaaaaa", names=names, settings=settings, journal=Journal(path)
    )
    assert resumed == label(
        toys, toys.Engine(walk), config, answer="aaaaaa", names=names, settings=settings
    )
    assert {n: r.rows for n, r in resumed.items()} == {n: r.rows for n, r in together.items()}
    before = Counter((name, r.node, r.first_index) for name, r in again.batches[0])
    assert all((name, 0, 0) not in before for name in names)  # not sampled again


def test_a_rollout_is_no_longer_than_a_solution(toys: Any) -> None:
    engine = scripted(toys, fourth)
    settings = LabelSettings(max_new_tokens=8)
    config = EveryStepConfig(solutions=3, rollouts=4)
    label(toys, engine, config, settings=settings)
    for _, request in itertools.chain.from_iterable(engine.batches):
        assert request.max_new_tokens == 8 - len(toys.text(request.prefix))
    # A solution that is cut off is not correct, whatever its text is.
    rows = label(toys, engine, config, settings=LabelSettings(max_new_tokens=7))["p"].rows
    assert {value for row in rows for value in row.labels} == {0.0}


def test_labelling_again_shares_no_noise_and_no_longer_limit(toys: Any) -> None:
    engine = toys.Engine(walk)
    prefixes = {"p": [(97,), (97, 97, 97)]}
    [result] = run_searches(
        [toys.problem("p", "aaaaaa")],
        partial(relabel_prefixes, config=RelabelConfig(prefixes=prefixes, rollouts=400)),
        engine=engine,
        scorer=None,
        verify=toys.verify,
        settings=SearchSettings(max_new_tokens=9, temperature=1.0),
    )
    assert [(n.token_ids, n.visit_count) for n in result.nodes[1:]] == [
        ((97,), 400), ((97, 97, 97), 400),
    ]  # fmt: skip
    assert result.nodes[1].value_sum / 400 == pytest.approx(0.9**5, abs=0.07)
    assert result.nodes[2].value_sum / 400 == pytest.approx(0.9**3, abs=0.07)
    requests = [r for batch in engine.batches for _, r in batch]
    assert [r.max_new_tokens for r in requests] == [8, 6]
    # The sample indices of labellers begin at 0.
    assert {r.first_index for r in requests} == {AUDIT_INDEX}


def test_values_of_a_tree_become_labels(toys: Any, tmp_path: Path) -> None:
    def coin(text: str) -> dict[str, float]:
        return {".": 1.0} if len(text) == 3 else {"a": 0.6, "b": 0.4}

    results = list(
        run_searches(
            [toys.problem("p", "aba")],
            partial(search_mcts, config=MCTSConfig(budgets=(24,), proposals=3)),
            engine=toys.Engine(coin),
            scorer=toys.Scorer(lambda text: len(text) / 10 + text.count("b") / 10),
            verify=toys.verify,
            settings=SearchSettings(),
        )
    )
    append_trees(tmp_path / "trees.jsonl", results, "toy")
    config = TreeConfig(trees=str(tmp_path), min_visits=2)
    found: dict[str, Labelled] = {}

    async def strategy(session: Any) -> SearchResult:
        found[session.problem.id] = await label_tree_q(session, config)
        return SearchResult(
            problem=session.problem, strategy="", nodes=(), snapshots=(), usage=session.usage
        )

    done = list(
        run_searches(
            [toys.problem("p", "aba"), toys.problem("unknown", "aba")], strategy,
            engine=toys.Engine(coin), scorer=None, verify=toys.verify,
        )
    )  # fmt: skip
    assert all(result.usage.policy.generated_tokens == 0 for result in done)
    assert found["unknown"].rows == () and found["p"].usage == results[0].usage
    nodes = {n.token_ids: n for n in results[0].nodes if n.parent == 0}
    finished = [row for row in found["p"].rows if row.completion_ids[-1][-1] == 0]
    assert finished
    for row in found["p"].rows:
        top = nodes[row.completion_ids[0]]
        assert row.labels[0] == top.value_sum / top.visit_count
        assert row.counts[0] == top.visit_count
    for row in finished:
        assert row.labels[-1] == float("".join(row.completions) == "aba")
        assert row.standard_errors[-1] == 0.0
    with pytest.raises(ValueError, match="there is no file"):
        label(toys, toys.Engine(coin), TreeConfig(trees=str(tmp_path / "no")))


def test_verdicts_of_a_trees_solutions_are_balanced(toys: Any, tmp_path: Path) -> None:
    """Three right texts of the letters a and b end in a; a search of the tree finds all of them."""
    end = StopReason.END_OF_SOLUTION
    found = [("xa", 0.1), ("yb", 0.9), ("xb", 0.8), ("xa", 0.1), ("za", 0.2), ("zb", 0.7)]
    nodes = toys.tree(*({"parent": 0, "terminal": end, "score": score} for _, score in found))
    for node, (text, _) in zip(nodes[1:], found, strict=True):
        node.text, node.token_ids = text, (*map(ord, text), 0)
    nodes += [Node(id=7, parent=0, token_ids=(113,), text="q", terminal=StopReason.LENGTH)]
    tree = SearchResult(
        problem=toys.problem("p", ""), strategy="mcts", nodes=tuple(nodes), snapshots=(),
        usage=Usage(policy=ModelUsage(generated_tokens=9)),
    )  # fmt: skip
    append_trees(tmp_path / "trees.jsonl", [tree], "toy")

    def rows(**settings: Any) -> list[tuple[str, float]]:
        config = TreeSolutionsConfig(trees=str(tmp_path), **settings)
        labelled: list[Labelled] = []

        async def strategy(session: Any) -> SearchResult:
            labelled.append(await bind_labeller(config)(session))
            return SearchResult(
                problem=session.problem, strategy="", nodes=(), snapshots=(), usage=session.usage
            )

        def verify(_: Any, text: str) -> Verdict:
            return Verdict(outcome=Outcome.CORRECT if text.endswith("a") else Outcome.WRONG)

        problems = [toys.problem("p", ""), toys.problem("unknown", "")]
        list(run_searches(
            problems, strategy, engine=toys.Engine(walk), scorer=None, verify=verify
        ))  # fmt: skip
        assert labelled[0].usage == tree.usage and labelled[1].rows == ()
        for row in labelled[0].rows:
            assert (row.prompt_ids, row.counts, row.standard_errors) == ((63, 62), (1,), (0,))
            assert row.completion_ids[0][-1] == 0
        return [(row.completions[0], row.labels[0]) for row in labelled[0].rows]

    # Two distinct right ones and three wrong ones: two of each, whatever their scores are.
    assert rows() == [("xa", 1), ("za", 1), ("yb", 0), ("xb", 0)]
    assert rows(per_side=1) == [("xa", 1), ("yb", 0)]
    assert rows(balanced=False) == [("xa", 1), ("za", 1), ("yb", 0), ("xb", 0), ("zb", 0)]
    assert rows(balanced=False, per_side=1) == [("xa", 1), ("yb", 0)]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: MonteCarloConfig(solutions=0), "solutions is 0"),
        (lambda: MonteCarloConfig(own_rollout="drop"), "allowed: count, leave_out"),
        (lambda: EveryStepConfig(rollouts=0), "rollouts is 0"),
        (lambda: EveryStepConfig(rollouts_by_depth=(8, 0)), r"rollouts_by_depth is \[8, 0\]; each"),
        (lambda: EveryStepConfig(early_solutions=-1), "early_solutions is -1"),
        (lambda: EveryStepConfig(early_depth=0), "early_depth is 0"),
        (lambda: BinarySearchConfig(alpha=0.0), r"alpha is 0.0; it must be in \(0, 1\]"),
        (lambda: BinarySearchConfig(length_scale=0.0), "length_scale is 0"),
        (lambda: BinarySearchConfig(exploration=-1.0), "exploration is -1"),
        (lambda: TreeConfig(trees="x", min_visits=0), "min_visits is 0"),
        (lambda: TreeSolutionsConfig(trees="x", per_side=0), "per_side is 0"),
        (lambda: LabelSettings(max_generated_tokens=-1), "max_generated_tokens is -1"),
        (lambda: labeller_entry("montecarlo"), "allowed: monte_carlo, every_step"),
        (lambda: bind_labeller(3), "no labeller takes a int"),
    ],
)
def test_wrong_settings_are_named(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_every_labeller_is_bound_by_its_config() -> None:
    assert {entry.config for entry in LABELLERS.values()} == {
        MonteCarloConfig, EveryStepConfig, BinarySearchConfig, TreeConfig, SolverConfig,
        TreeSolutionsConfig,
    }  # fmt: skip
