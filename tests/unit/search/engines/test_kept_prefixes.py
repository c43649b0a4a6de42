"""Kept keys and values on real tiny models: they change no bit of a result, and every token of a
tree goes through the model about once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from data.types import Outcome, Problem, Usage, Verdict
from rewards.models.kept_prefixes import MIB, KeptPrefixes
from rewards.models.prm import process_reward_model
from rewards.models.row_cache import RowCache, has_equal_bits, row_attention
from search.base import SampleRequest, SampleResult, ScoreRequest, SearchResult
from search.batcher import run_searches
from search.engines.transformers_engine import EngineConfig, TransformersEngine
from search.scorer import RewardScorer
from search.settings import SearchSettings
from search.strategies.beam import BeamConfig
from search.strategies.by_name import bind
from search.strategies.mcts.config import MCTSConfig
from trainer.models.loading import reward_model_from_policy, save_model

from .test_transformers_engine import LONG, PROMPTS, Meter


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def grow_tree(engine: TransformersEngine, company: int) -> tuple[list[SampleResult], int]:
    """Four rounds of steps of three problems: each round continues the samples of the last round.
    Returns the results of the first problem's requests and the tokens of all problems' trees."""
    dice = random.Random(2)
    prefixes = {f"p{i}": [engine.encode(p)] for i, p in enumerate([*PROMPTS, LONG][:company])}
    tokens = sum(len(of_problem[0]) for of_problem in prefixes.values())
    found: list[SampleResult] = []
    for round_number in range(4):
        items = [
            (name, SampleRequest(
                node=10 * round_number + i, prefix=prefix, n=3, stop_at_step=True, max_new_tokens=9
            ))
            for name, of_problem in prefixes.items()
            for i, prefix in enumerate(of_problem)
        ]  # fmt: skip
        results = engine.sample_batch(items)
        found += [r for (name, _), r in zip(items, results, strict=True) if name == "p0"]
        prefixes = {name: [] for name in prefixes}
        for (name, request), result in zip(items, results, strict=True):
            for sample in result.samples:
                tokens += len(sample.token_ids)
                if (not sample.stop_reason.finished and dice.random() < 0.6) or name == "p0":
                    prefixes[name].append(request.prefix + sample.token_ids)
        prefixes = {name: of[:4] for name, of in prefixes.items() if of}
    return found, tokens


def test_kept_prefixes_change_no_bit(tiny_policy: Any, threads: int) -> None:
    model, tokenizer = tiny_policy
    plain = TransformersEngine(model, tokenizer, EngineConfig(seed=5))
    expected, _ = grow_tree(plain, 1)
    for company in (1, 4):
        kept = TransformersEngine(model, tokenizer, EngineConfig(seed=5, kept_prefixes_mib=8))
        assert grow_tree(kept, company)[0] == expected
        assert kept.loaded_positions > 0
        assert grow_tree(kept, company)[0] == expected  # everything is known now
        small = KeptPrefixes(1)
        small.capacity = 0
        kept.prefixes.kept = small
        make = small._make  # pyright: ignore[reportPrivateUsage]

        def make_small(cache: RowCache, small: Any = small, make: Any = make) -> None:
            make(cache)
            small._free = small._free[-60:]  # room for a part of the tree: entries are displaced

        small._make = make_small  # pyright: ignore[reportPrivateUsage]
        assert grow_tree(kept, company)[0] == expected
        assert len(small) <= 60


def test_every_token_goes_through_the_model_about_once(tiny_policy: Any) -> None:
    model, tokenizer = tiny_policy
    ratios: dict[int, float] = {}
    for mib in (0, 8):
        config = EngineConfig(seed=5, kept_prefixes_mib=mib)
        engine = TransformersEngine(model, tokenizer, config)
        with Meter(model) as meter:
            _, tokens = grow_tree(engine, 4)
        ratios[mib] = (meter.positions - engine.padding_positions) / tokens
        if mib == 0:
            assert engine.loaded_positions == 0
    assert ratios[0] > 2
    assert 0.9 < ratios[8] <= 1.0


def test_the_positions_that_are_loaded_and_computed_add_up(tiny_policy: Any) -> None:
    model, tokenizer = tiny_policy
    engine = TransformersEngine(model, tokenizer, EngineConfig(seed=5, kept_prefixes_mib=8))
    [first] = engine.sample_batch([("p", SampleRequest(
        node=0, prefix=engine.encode(LONG), n=2, stop_at_step=False, max_new_tokens=5
    ))])  # fmt: skip
    prefix = engine.encode(LONG) + first.samples[1].token_ids
    asked = SampleRequest(node=1, prefix=prefix, n=3, stop_at_step=False, max_new_tokens=4)
    before = engine.padding_positions
    with Meter(model) as meter:
        [second] = engine.sample_batch([("p", asked)])
    computed = meter.positions - (engine.padding_positions - before)
    assert engine.loaded_positions == len(prefix) - 1  # all but the last token
    assert computed == second.usage.positions - engine.loaded_positions
    assert computed == second.usage.generated_tokens


def step_scores(scorer: RewardScorer, seed: int) -> list[tuple[float, ...]]:
    """The scores of a tree of sequences, asked for in rounds of longer and longer sequences."""
    dice = random.Random(seed)
    found: list[tuple[float, ...]] = []
    sequences = [[1 + dice.randrange(40) for _ in range(20)] for _ in range(2)]
    for round_number in range(5):
        items: list[tuple[str, ScoreRequest]] = []
        for i, s in enumerate(sequences):
            ends = (*range(9, len(s) - 1, 7), len(s) - 1)
            request = ScoreRequest(node=round_number, sequence=tuple(s), step_ends=ends)
            items.append((f"p{i % 2}", request))
        found += [result.scores for result in scorer.score_batch(items)]
        sequences = [
            [*sequences[(2 * i + j) % len(sequences)], *(dice.randrange(1, 40) for _ in range(6))]
            for i in range(2) for j in range(2)
        ]  # fmt: skip
    return found


def test_kept_prefixes_change_no_bit_of_a_process_reward(
    tiny_policy: Any, tmp_path: Any, threads: int
) -> None:
    save_model(*tiny_policy, tmp_path)
    torch.manual_seed(0)
    model = reward_model_from_policy(str(tmp_path)).eval()
    plain = process_reward_model(model, 0)
    positions: list[int] = []
    for mib, identical in ((0, True), (4, True), (4, False)):
        kept = process_reward_model(model, 0)
        kept.keep_prefixes(mib, bit_identical=identical)
        assert kept.keeps_prefixes == bool(mib)
        with Meter(model) as meter:
            scores = step_scores(RewardScorer(kept), 1)
        positions.append(meter.positions - kept.padding_positions)
        assert kept.padding_positions > 0 or not identical
        expected = step_scores(RewardScorer(plain), 1)
        for again in (scores, step_scores(RewardScorer(kept), 1)):
            if identical:
                assert again == expected
            for ours, theirs in zip(again, expected, strict=True):
                assert ours == pytest.approx(theirs, abs=1e-6)
    # By hand: 2 sequences of 20, then rounds of 4 sequences, each with 6 new tokens.
    assert positions == [2 * 20 + 4 * (26 + 32 + 38 + 44), 2 * 20 + 4 * 4 * 6, 2 * 20 + 4 * 4 * 6]


CONFIGS = {"beam": BeamConfig(budgets=(2,)), "mcts": MCTSConfig(budgets=(6,))}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_search_stays_the_same_and_costs_what_its_usage_says(
    tiny_policy: Any, tmp_path: Any, name: str
) -> None:
    """The trees are equal to the bit, and `repeated_positions` are those that are not computed."""
    model, tokenizer = tiny_policy
    save_model(model, tokenizer, tmp_path)
    torch.manual_seed(0)
    reward = reward_model_from_policy(str(tmp_path)).eval()
    found: list[list[SearchResult]] = []
    for mib in (0, 8):
        engine = TransformersEngine(model, tokenizer, EngineConfig(seed=3, kept_prefixes_mib=mib))
        scorer = process_reward_model(reward, 0)
        scorer.keep_prefixes(mib, bit_identical=True)
        with Meter(model) as policy_meter, Meter(reward) as reward_meter:
            results = list(run_searches(
                [Problem(id=str(i), prompt=text, answer="5") for i, text in enumerate(PROMPTS)],
                bind(CONFIGS[name]),
                engine=engine,
                scorer=RewardScorer(scorer),
                verify=lambda problem, text: Verdict(outcome=Outcome.WRONG),
                settings=SearchSettings(max_step_tokens=5, max_new_tokens=12, max_depth=3),
            ))  # fmt: skip
        found.append(results)
        usage = sum((result.usage for result in results), Usage())
        for side, meter, padding in (
            (usage.policy, policy_meter, engine.padding_positions),
            (usage.reward, reward_meter, scorer.padding_positions),
        ):
            saved = side.repeated_positions if mib else 0
            assert meter.positions - padding == side.positions - saved
            assert side.repeated_positions > 0.2 * side.positions
    assert found[0] == found[1]


def filled(model: Any, sequences: list[list[int]], room: int) -> tuple[KeptPrefixes, RowCache]:
    """A memory with room for `room` tokens, and the cache of these sequences."""
    length = max(map(len, sequences))
    ids_RT = torch.tensor([s + [0] * (length - len(s)) for s in sequences])
    with torch.inference_mode(), row_attention(model):
        cache = RowCache(model, len(sequences), length)
        cache.forward(ids_RT, torch.zeros(len(sequences), dtype=torch.long), length)
    per_token = sum(
        t[0, :, 0].numel() * 4 for layer in cache.layers for t in (layer.keys, layer.values)
    )
    kept = KeptPrefixes(-(-room * per_token // MIB))
    kept._make(cache)  # pyright: ignore[reportPrivateUsage]
    kept._free = kept._free[-room:]  # pyright: ignore[reportPrivateUsage]
    return kept, cache


def test_the_least_recently_used_leaf_goes_first(tiny_policy: Any) -> None:
    kept, cache = filled(tiny_policy[0], [[1, 2, 3], [1, 2, 4], [5, 6, 7]], room=5)
    kept.keep(cache, [(0, [1, 2, 3]), (1, [1, 2, 4])])
    assert len(kept) == 4
    assert len(kept.find([1, 2, 3, 9])) == 3  # used after [1, 2, 4]
    kept.keep(cache, [(2, [5, 6, 7])])  # one free entry, then 4, then 3
    assert len(kept) == 5
    assert [len(kept.find(s)) for s in ([5, 6, 7], [1, 2, 4], [1, 2, 3])] == [3, 2, 2]
    long, cache = filled(tiny_policy[0], [[1, 2, 3, 4, 5]], room=3)
    long.keep(cache, [(0, [1, 2, 3, 4, 5])])  # more than there is room for: the beginning stays
    assert len(long.find([1, 2, 3, 4, 5])) == 3


def test_the_memory_against_brute_force(tiny_policy: Any) -> None:
    """What is found is right to the bit, and the memory never holds more than it has room for."""
    model = tiny_policy[0]
    dice = random.Random(4)
    sequences = [[dice.randrange(1, 3) for _ in range(1 + dice.randrange(8))] for _ in range(16)]
    kept, cache = filled(model, sequences, room=12)
    for _ in range(200):
        row = dice.randrange(16)
        if dice.random() < 0.5:
            kept.keep(cache, [(row, sequences[row])])
        entries = kept.find(sequences[row])
        assert len(kept) <= 12
        again = RowCache(model, 1, 16)
        kept.load(again, [entries])
        if entries:
            for ours, theirs in zip(again.layers, cache.layers, strict=True):
                n = len(entries)
                assert torch.equal(ours.keys[0, :, :n], theirs.keys[row, :, :n])
                assert torch.equal(ours.values[0, :, :n], theirs.values[row, :, :n])


def test_this_machine_gives_kept_prefixes_equal_bits(tiny_policy: Any, threads: int) -> None:
    assert has_equal_bits(tiny_policy[0])


def test_bad_memory_is_named(tiny_policy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="kept_prefixes_mib is -1"):
        EngineConfig(seed=0, kept_prefixes_mib=-1)
    monkeypatch.setattr("rewards.models.prefix_reader.has_equal_bits", lambda model: False)
    config = EngineConfig(seed=0, kept_prefixes_mib=1)
    with pytest.raises(ValueError, match="kernels of this machine"):
        TransformersEngine(*tiny_policy, config)
    TransformersEngine(*tiny_policy, EngineConfig(seed=0, kept_prefixes_mib=1, bit_identical=False))
