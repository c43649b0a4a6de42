"""Beam search, DVTS, lookahead and particle filtering on small trees, each for one rule."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest

from search.base import SearchResult, path_to, solution_text
from search.batcher import run_searches
from search.noise import uniform
from search.settings import SearchSettings
from search.strategies.beam import BeamConfig, DVTSConfig
from search.strategies.by_name import bind
from search.strategies.particles import ParticleConfig, normalised, systematic
from search.strategies.revision import RevisionConfig, filled_template


def search(
    toys: Any, config: Any, letters: Any, value: Any, settings: SearchSettings | None = None
) -> tuple[SearchResult, Any]:
    engine = toys.Engine(letters)
    [result] = run_searches(
        [toys.problem("p", "")], bind(config), engine=engine, scorer=toys.Scorer(value),
        verify=toys.verify, settings=settings or SearchSettings(),
    )  # fmt: skip
    return result, engine


def even(*options: str) -> dict[str, float]:
    return dict.fromkeys(options, 1 / len(options))


def test_the_best_beams_go_on_and_each_below_its_own_prefix(toys: Any) -> None:
    """Words of three letters over a..d. A beam of 2 keeps the two best prefixes of each length."""

    def letters(text: str) -> dict[str, float]:
        return {".": 1.0} if len(text) == 3 else even(*"abcd")

    rank = {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4}

    def value(text: str) -> float:
        return sum(rank[letter] for letter in text) / 2

    result, engine = search(toys, BeamConfig(budgets=(2,), expansions=24), letters, value)
    # 24 samples of 4 letters show every letter, so: c, d; dc, dd; ddc, ddd.
    asked = [sorted(toys.text(r.prefix) for _, r in batch) for batch in engine.batches]
    assert asked == [[""], ["c", "d"], ["dc", "dd"], ["ddc", "ddd"]]
    assert result.snapshots[0].answer == "ddd"
    for node in result.nodes[1:]:  # every continuation was sampled from its parent
        assert len(solution_text(result.nodes, node.id)) == len(path_to(result.nodes, node.id)) or (
            node.terminal is not None
        )


def test_a_beam_that_finishes_early_keeps_its_place_and_nothing_is_put_below_it(toys: Any) -> None:
    """There are two beams. x ends after one letter with a fair score, and y goes on to a better
    score. When only y is expanded, its continuations must be below y and not below x."""

    def letters(text: str) -> dict[str, float]:
        if text.startswith("x"):
            return {".": 1.0}
        return {".": 1.0} if len(text) == 4 else even(*("xy" if not text else "pq"))

    def value(text: str) -> float:
        return 0.6 if text.startswith("x") else {0: 0.0, 1: 0.5, 2: 0.55, 3: 0.58}.get(
            len(text), 0.9 if text == "yppp" else 0.61
        )  # fmt: skip

    result, engine = search(toys, BeamConfig(budgets=(2,), expansions=16), letters, value)
    asked = [[toys.text(r.prefix) for _, r in batch] for batch in engine.batches]
    assert asked[1] == ["x", "y"] or asked[1] == ["y", "x"]
    # "x" is finished with 0.6 and keeps one place. Below "y", the best step of each round goes on.
    assert all(prefix.startswith("y") for batch in asked[2:] for prefix in batch)
    assert result.snapshots[0].answer == "yppp"
    texts = {solution_text(result.nodes, n.id) for n in result.nodes if n.terminal}
    assert "x" in texts and all(text == "x" or text.startswith("y") for text in texts)


def test_lookahead_changes_the_choice_where_it_must(toys: Any) -> None:
    """The step b has a lower score than a but leads to a good end. A lookahead of one step sees
    this."""

    def letters(text: str) -> dict[str, float]:
        return {".": 1.0} if len(text) == 2 else (even("a", "b") if not text else {"z": 1.0})

    scores = {"a": 0.6, "b": 0.4, "az": 0.2, "bz": 0.9}

    def value(text: str) -> float:
        return scores[text]

    blind, _ = search(toys, BeamConfig(budgets=(1,), expansions=8), letters, value)
    ahead, engine = search(
        toys, BeamConfig(budgets=(1,), expansions=8, lookahead=1), letters, value
    )
    assert blind.snapshots[0].answer == "az" and ahead.snapshots[0].answer == "bz"
    greedy = [r for batch in engine.batches for _, r in batch if r.temperature == 0]
    assert {toys.text(r.prefix) for r in greedy[:2]} == {"a", "b"}
    assert ahead.usage.policy.sequences > blind.usage.policy.sequences  # and its cost is counted


def test_dvts_subtrees_stay_apart(toys: Any) -> None:
    """The continuations of the best first step would fill a beam of 4. DVTS has one path below each
    of four different first steps."""

    def letters(text: str) -> dict[str, float]:
        return {".": 1.0} if len(text) == 3 else even(*"abcd")

    def value(text: str) -> float:
        return {"a": 0.9, "b": 0.5, "c": 0.4, "d": 0.3}[text[0]] - 0.01 * text.count("d")

    dvts, engine = search(toys, DVTSConfig(budgets=(32,), expansions=8), letters, value)
    rounds = [[toys.text(r.prefix) for _, r in batch] for batch in engine.batches]
    for prefixes in rounds[1:]:
        assert sorted(prefix[0] for prefix in prefixes) == ["a", "b", "c", "d"]
    beam, engine = search(toys, BeamConfig(budgets=(4,), expansions=32), letters, value)
    rounds = [[toys.text(r.prefix) for _, r in batch] for batch in engine.batches]
    assert {prefix[0] for prefix in rounds[2]} == {"a"}
    assert dvts.snapshots[0].answer and dvts.snapshots[0].answer[0] == "a"
    assert beam.snapshots[0].answer and beam.snapshots[0].answer[0] == "a"
    with pytest.raises(ValueError, match="multiple of expansions"):
        DVTSConfig(budgets=(6,), expansions=4)


def test_systematic_resampling_by_hand() -> None:
    # points 0.125, 0.375, 0.625, 0.875 against cumulative 0.5, 0.75, 1.0
    assert systematic([0.5, 0.25, 0.0, 0.25], 0.5) == [0, 0, 1, 3]
    assert systematic([0.0, 1.0], 0.9) == [1, 1]
    weights = [0.37, 0.05, 0.28, 0.3]
    for i in range(50):
        counts = Counter(systematic(weights, uniform(1, "p", 0, i)))
        for j, weight in enumerate(weights):
            assert math.floor(4 * weight) <= counts[j] <= math.ceil(4 * weight)
    assert normalised([math.log(3), 0.0, -math.inf]) == pytest.approx([0.75, 0.25, 0.0])
    assert normalised([-math.inf, -math.inf]) is None


def test_particles_follow_the_odds(toys: Any) -> None:
    """Two equally likely first letters have the values 0.8 and 0.2. Their odds are 4 and 1/4, so
    the better letter gets 16 of 17 particles. With the ratio it gets 4 of 5."""

    def letters(text: str) -> dict[str, float]:
        return {".": 1.0} if len(text) == 2 else (even("a", "b") if not text else {"z": 1.0})

    def value(text: str) -> float:
        return 0.8 if text.startswith("a") else 0.2

    def second_round(config: ParticleConfig) -> dict[str, int]:
        _, engine = search(toys, config, letters, value)
        return {toys.text(r.prefix): r.n for _, r in engine.batches[1]}

    n = 1000
    odds = second_round(ParticleConfig(budgets=(n,)))
    ratio = second_round(ParticleConfig(budgets=(n,), weighting="ratio"))
    # The first round draws a or b evenly: 1000 fair coins, 4 standard deviations are 0.063.
    assert odds["a"] / n == pytest.approx(16 / 17, abs=0.02)
    assert ratio["a"] / n == pytest.approx(4 / 5, abs=0.05)
    # A high temperature removes the effect of the guidance. Without resampling, the coins stay
    # fair.
    flat = second_round(ParticleConfig(budgets=(n,), sharpness_temperature=1e6))
    none = second_round(ParticleConfig(budgets=(n,), resample_below=0.0))
    assert flat["a"] / n == pytest.approx(1 / 2, abs=0.065)
    assert none["a"] / n == pytest.approx(1 / 2, abs=0.065)


def test_a_revision_sees_the_attempt_before_it(toys: Any) -> None:
    """The policy answers with the letter after the letter of its last attempt."""

    def letters(text: str) -> dict[str, float]:
        *_, tail = text.split(">")
        if tail:
            return {".": 1.0}
        seen = [letter for letter in text if letter in "abcd"]
        return {chr(ord(seen[-1]) + 1): 1.0} if seen else {"a": 1.0}

    config = RevisionConfig(
        budgets=(4,), revision_prompt="{prompt}{attempts}{prompt}", attempt_template="{attempt}"
    )
    result, engine = search(toys, config, letters, lambda text: "abcd".index(text[0]) / 4)
    assert [node.text for node in result.nodes[1:]] == ["a", "b", "c", "d"]
    assert [node.revises for node in result.nodes[1:]] == [-1, 1, 2, 3]
    assert result.snapshots[0].answer == "d"
    prompts = [toys.text(r.prefix) for batch in engine.batches for _, r in batch]
    assert prompts == ["", "a?>", "b?>", "c?>"]
    # Two chains of two attempts, the hybrid. Each chain sees only its own attempts.
    config = RevisionConfig(budgets=(4,), chains=2, revision_prompt="{prompt}{attempts}{prompt}")
    hybrid, engine = search(toys, config, letters, lambda _: 0.5)
    assert [node.revises for node in hybrid.nodes[1:]] == [-1, -1, 1, 2]
    assert [len(batch) for batch in engine.batches] == [2, 2]


def test_templates_take_ids_and_name_unknown_fields(toys: Any) -> None:
    async def strategy(session: Any) -> SearchResult:
        filled = filled_template(session, "{x}-{prompt}!", {"x": (7, 0)})
        assert filled == (7, 0, ord("-"), *session.prompt_ids, ord("!"))
        with pytest.raises(ValueError, match=r"has \{y\}; allowed: prompt, x"):
            filled_template(session, "{y}", {"x": ()})
        return SearchResult(
            problem=session.problem, strategy="x", nodes=(), snapshots=(), usage=session.usage
        )

    list(
        run_searches(
            [toys.problem("p", "")], strategy, engine=toys.Engine(even), scorer=None,
            verify=toys.verify,
        )
    )  # fmt: skip
    for wrong in (
        {"chains": 3},
        {"critique": "x"},
        {"revision_prompt": "{prompt}"},
        {"seen_attempts": 0},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            RevisionConfig(budgets=(4,), **wrong)
