"""The strategy that draws distinct solutions: exact probabilities, exhaustion, early exit."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import pytest
import torch

from data.types import Problem, StopReason
from search.base import SearchEnd, SearchResult
from search.batcher import run_searches
from search.engines.transformers_engine import EngineConfig, TransformersEngine
from search.settings import SearchSettings
from search.strategies.by_name import bind
from search.strategies.without_replacement import WithoutReplacementConfig

SHARES = {"a": 0.5, "b": 0.3, "c": 0.2}


def two_letters(text: str) -> dict[str, float]:
    return {".": 1.0} if len(text) == 2 else SHARES


ALL_NINE = {a + b: SHARES[a] * SHARES[b] for a in SHARES for b in SHARES}


def search(
    toys: Any, config: WithoutReplacementConfig, names: Any = ("p",), letters: Any = two_letters,
    **settings: Any,
) -> list[SearchResult]:  # fmt: skip
    results = run_searches(
        [toys.problem(name, "ca") for name in names], bind(config), engine=toys.Engine(letters),
        scorer=toys.Scorer(lambda text: 0.5), verify=toys.verify,
        settings=SearchSettings(**{"answer": "first"} | settings), max_concurrent=10_000,
        final_answer=lambda _, text: text[0],
    )  # fmt: skip
    return list(results)


@pytest.mark.parametrize("round_size", [1, 3])
def test_first_and_second_have_the_probabilities_of_sampling_without_replacement(
    toys: Any, round_size: int
) -> None:
    """P(x, then y) = p(x) p(y) / (1 - p(x)) for solutions of one letter and of two. All problems
    are independent."""
    n = 600
    shares = {"a": 0.5, "b": 0.3, "ca": 0.2 * 0.6, "cb": 0.2 * 0.4}

    def letters(text: str) -> dict[str, float]:
        return {"": SHARES, "c": {"a": 0.6, "b": 0.4}}.get(text, {".": 1.0})

    config = WithoutReplacementConfig(budgets=(2,), round_size=round_size)
    results = search(toys, config, range(n), letters)
    found = Counter(tuple(node.text for node in result.nodes[1:]) for result in results)
    expected = {
        (x, y): n * shares[x] * shares[y] / (1 - shares[x])
        for x, y in itertools.permutations(shares, 2)
    }
    assert set(found) <= set(expected)
    chi_square = sum((found[pair] - e) ** 2 / e for pair, e in expected.items())
    assert chi_square < 24.7  # 99 % of a chi-square distribution with 11 degrees of freedom


@pytest.mark.parametrize(("temperature", "round_size"), [(1.0, 1), (0.7, 2), (1.5, 50)])
def test_all_solutions_are_drawn_once_and_then_the_search_ends(
    toys: Any, temperature: float, round_size: int
) -> None:
    config = WithoutReplacementConfig(budgets=(3, 9, 50), round_size=round_size, stop_mass=0)
    [result] = search(toys, config, temperature=temperature)
    assert result.end is SearchEnd.EXHAUSTED and result.remaining_mass == 0.0
    assert sorted(node.text for node in result.nodes[1:]) == sorted(ALL_NINE)
    total = sum(p ** (1 / temperature) for p in ALL_NINE.values())
    for node in result.nodes[1:]:
        assert node.mass == pytest.approx(ALL_NINE[node.text] ** (1 / temperature) / total)
        assert node.logprob == pytest.approx(math.log(ALL_NINE[node.text]))
        assert node.terminal is StopReason.END_OF_SOLUTION
    assert [snapshot.budget for snapshot in result.snapshots] == [3, 9, 50]


def test_no_two_samples_of_a_search_share_their_noise(toys: Any) -> None:
    """The draws of a round leave the trie at several places, which become requests of their own."""
    engine = toys.Engine(two_letters)
    config = WithoutReplacementConfig(budgets=(9,), round_size=4, stop_mass=0)
    [result] = run_searches(
        [toys.problem("p", "ca")], bind(config), engine=engine, scorer=None, verify=toys.verify,
        settings=SearchSettings(answer="first"),
    )  # fmt: skip
    requests = [request for batch in engine.batches for _, request in batch]
    assert max(len(batch) for batch in engine.batches) > 1 and len(result.nodes) == 10
    used = [r.first_index + i for r in requests for i in range(r.n)]
    assert {request.node for request in requests} == {0}
    assert sorted(used) == list(range(len(used)))


def test_the_mass_that_is_left_is_reported_and_ends_the_search(toys: Any) -> None:
    for stop_mass in (0.205, 0.515, 0.925):
        config = WithoutReplacementConfig(budgets=(9,), stop_mass=stop_mass)
        for result in search(toys, config, range(20)):
            drawn = [ALL_NINE[node.text] for node in result.nodes[1:]]
            assert result.remaining_mass == pytest.approx(1 - sum(drawn))
            assert 1 - sum(drawn) <= stop_mass < 1 - sum(drawn[:-1])
            assert result.end is SearchEnd.EXHAUSTED
    [result] = search(toys, WithoutReplacementConfig(budgets=(2,)))
    assert result.end is SearchEnd.COMPLETE and 0 < (result.remaining_mass or 0) < 1


def test_a_smaller_budget_takes_the_first_draws(toys: Any) -> None:
    [both] = search(toys, WithoutReplacementConfig(budgets=(2, 5)), answer="majority",
                    temperature=1.3)  # fmt: skip
    [small] = search(toys, WithoutReplacementConfig(budgets=(2,)), answer="majority",
                     temperature=1.3)  # fmt: skip
    assert both.snapshots[0] == small.snapshots[0]
    assert both.snapshots[1].usage.policy.generated_tokens == both.usage.policy.generated_tokens


def test_a_vote_ends_when_the_mass_that_is_left_cannot_change_it(toys: Any) -> None:
    """The answers are first letters, with the masses .5, .3 and .2. Every search must elect a, and
    end when a leads by more than what is left."""
    config = WithoutReplacementConfig(budgets=(9,))
    for answer in ("majority", "weighted_vote"):
        results = search(toys, config, range(30), answer=answer)
        for result in results:
            assert result.end in (SearchEnd.SETTLED, SearchEnd.EXHAUSTED)
            assert (result.snapshots[-1].answer or "").startswith("a")
            # The scores are all 0.5, and a solution to come may have the score 1.
            factor = 1.0 if answer == "majority" else 0.5
            masses = dict.fromkeys("abc", 0.0)
            for node in result.nodes[1:-1]:
                masses[node.text[0]] += ALL_NINE[node.text]
            second, first = sorted(masses.values())[1:]
            assert factor * (first - second) <= 1 - sum(masses.values()) + 1e-9
        assert any(result.end is SearchEnd.SETTLED for result in results)
        never = WithoutReplacementConfig(budgets=(9,), stop_when_settled=False)
        assert all(len(r.nodes) == 10 for r in search(toys, never, range(5), answer=answer))


def test_greedy_has_one_solution(toys: Any) -> None:
    [result] = search(toys, WithoutReplacementConfig(budgets=(5,)), temperature=0.0)
    assert [node.text for node in result.nodes[1:]] == ["aa"]
    assert result.end is SearchEnd.EXHAUSTED and result.remaining_mass == 0.0


def test_a_cut_off_solution_is_drawn_once_too(toys: Any) -> None:
    """At most two letters. The nine prefixes of two letters are all there is."""
    config = WithoutReplacementConfig(budgets=(20,), stop_mass=0)
    [result] = search(toys, config, letters=lambda text: SHARES, max_new_tokens=2)
    assert len(result.nodes) == 10 and result.end is SearchEnd.EXHAUSTED
    assert {node.terminal for node in result.nodes[1:]} == {StopReason.LENGTH}
    assert result.snapshots[-1].truncated


def test_masses_of_a_real_model_are_its_probabilities(tiny_policy: Any) -> None:
    """The masses come from many forward passes over parts of solutions. One pass over each whole
    solution gives the same. The search does not depend on its company, or on kept prefixes."""
    model, tokenizer = tiny_policy
    engine = TransformersEngine(model, tokenizer, EngineConfig(seed=4))
    keeping = TransformersEngine(model, tokenizer, EngineConfig(seed=4, kept_prefixes_mib=8))
    problems = [Problem(id=str(i), prompt=f"{i} {i + 1} -> 3\n", answer="3") for i in range(3)]
    settings = SearchSettings(answer="first", temperature=0.3, max_new_tokens=5)

    def run(some: list[Problem], engine: TransformersEngine = engine) -> list[SearchResult]:
        config = WithoutReplacementConfig(budgets=(24,), round_size=4)
        return list(
            run_searches(
                some, bind(config), engine=engine, scorer=None, settings=settings,
                verify=lambda *_: pytest.fail("nothing is verified"),
            )
        )  # fmt: skip

    for result in run(problems):
        prompt = engine.encode(result.problem.prompt)
        solutions = [node.token_ids for node in result.nodes[1:]]
        assert len(set(solutions)) == len(solutions) == 24
        for node in result.nodes[1:]:
            ids = torch.tensor([prompt + node.token_ids])
            with torch.inference_mode():
                logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].double()
            chosen = torch.tensor(node.token_ids)[:, None]
            tempered = (logits / 0.3).log_softmax(-1).gather(1, chosen)
            assert node.mass == pytest.approx(tempered.sum().exp().item(), rel=1e-3)
            assert node.logprob == pytest.approx(
                logits.log_softmax(-1).gather(1, chosen).sum().item(), abs=1e-3
            )
        masses = math.fsum(node.mass or 0.0 for node in result.nodes[1:])
        assert result.remaining_mass == pytest.approx(1 - masses, abs=1e-3)
        assert run([result.problem]) == [result] == run([result.problem], keeping)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="stop_mass is 2; it must be in"):
        WithoutReplacementConfig(stop_mass=2)
    with pytest.raises(ValueError, match="round_size is 0; it must be at least 1"):
        WithoutReplacementConfig(round_size=0)
