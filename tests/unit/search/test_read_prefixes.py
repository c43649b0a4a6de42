"""What a search repeats: against brute force, by hand on a real search, and after a resumption."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.types import ModelUsage, Usage
from search.base import SearchResult
from search.batcher import run_searches
from search.journal import Journal
from search.read_prefixes import ReadPrefixes
from search.settings import SearchSettings
from search.strategies.beam import BeamConfig
from search.strategies.by_name import bind
from search.strategies.solutions import SolutionsConfig


def brute_force(read: list[list[int]], sequence: list[int]) -> int:
    return max(
        (n for other in read for n in range(len(sequence) + 1) if other[:n] == sequence[:n]),
        default=0,
    )


def test_the_known_prefix_is_the_longest_that_was_read() -> None:
    dice = random.Random(3)
    for _ in range(60):
        prefixes, read = ReadPrefixes(), []
        for _ in range(25):
            sequence = [dice.randrange(2) for _ in range(dice.randrange(7))]
            assert prefixes.known(sequence) == brute_force(read, sequence)
            prefixes.add(sequence)
            read.append(sequence)


def test_a_batch_reads_what_its_sequences_share_once() -> None:
    prefixes = ReadPrefixes()
    assert prefixes.known_of_batch([(1, 2, 3, 4), (1, 2, 5), (1, 2, 5, 6)]) == [0, 2, 2]
    prefixes.add((1, 2, 5, 9))
    assert prefixes.known_of_batch([(1, 2, 3, 4), (1, 2, 5), (1, 2, 5, 6)]) == [2, 3, 3]
    assert prefixes.known_of_batch([]) == []


def costly(toys: Any, letters: Any) -> tuple[Any, Any]:
    """An engine and a scorer that count one FLOP per position."""

    class Engine(toys.Engine):
        def sample_usage(self, prefix_length: int, lengths: Any) -> ModelUsage:
            positions = prefix_length - 1 + sum(lengths)
            usage = super().sample_usage(prefix_length, lengths)
            return replace(usage, positions=positions, flops=float(positions))

        def prefix_flops(self, length: int) -> float:
            return float(length)

    class Scorer(toys.Scorer):
        def score_batch(self, items: Any) -> Any:
            results = super().score_batch(items)
            return [
                replace(r, usage=replace(r.usage, flops=float(r.usage.positions))) for r in results
            ]

        def prefix_flops(self, length: int) -> float:
            return float(length)

    return Engine(letters), Scorer(lambda text: 0.5)


def searched(toys: Any, config: Any, settings: SearchSettings, **options: Any) -> SearchResult:
    engine, scorer = costly(
        toys, lambda prefix: {"a": 0.5, "b": 0.5} if len(prefix) < 3 else {".": 1}
    )
    [result] = run_searches(
        [toys.problem("p", "aaa")],
        bind(config),
        engine=engine,
        scorer=scorer,
        verify=toys.verify,
        settings=settings,
        **options,
    )
    return result


@pytest.mark.parametrize("round_size", [0, 1])
def test_the_cost_of_best_of_n_by_hand(toys: Any, round_size: int) -> None:
    """A prompt of 2 tokens and solutions of 4: the policy reads 1 + 4 per sample in one round, and
    1 more per further round, which is known. The reward model reads 6 per distinct solution."""
    config = SolutionsConfig(budgets=(1, 3), round_size=round_size)
    result = searched(toys, config, SearchSettings())
    policy, reward = result.usage.policy, result.usage.reward
    repeats = 2 if round_size else 0
    assert policy.positions == 1 + 3 * 4 + repeats
    assert policy.repeated_positions == policy.repeated_flops == repeats
    texts = {node.text for node in result.nodes[1:]}
    assert reward.positions == 6 * len(texts) == 18
    distinct = {(text + ".")[:n] for text in texts for n in range(1, 5)}
    assert reward.positions - reward.repeated_positions <= 2 + len(distinct) + 2
    assert reward.repeated_positions >= 2 * 2
    assert result.snapshots[-1].usage == result.usage
    assert result.snapshots[0].usage.repeated_flops == 0


def test_a_search_by_steps_repeats_nearly_everything(toys: Any, tmp_path: Path) -> None:
    """With kept prefixes each token costs one position per model."""
    config = BeamConfig(budgets=(2,))
    result = searched(toys, config, SearchSettings())
    tokens = sum(len(node.token_ids) for node in result.nodes)
    policy, reward = result.usage.policy, result.usage.reward
    assert policy.repeated_positions > 10 and reward.repeated_positions > 10
    # By hand: once the prompt without its last token, then one position per generated token.
    assert policy.positions - policy.repeated_positions == 1 + policy.generated_tokens
    # The prompt of 2 tokens and every token of the tree, once.
    assert reward.positions - reward.repeated_positions == 2 + tokens
    assert sum((node.usage for node in result.nodes), Usage()) == result.usage
    journal = Journal(tmp_path / "journal.jsonl")
    assert searched(toys, config, SearchSettings(), journal=journal) == result
    journal.close()
    resumed = Journal(tmp_path / "journal.jsonl")
    assert searched(toys, config, SearchSettings(), journal=resumed) == result
