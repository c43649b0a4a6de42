"""The strategy thinking with a real tiny model, its tokenizer of words, and the solve command."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from data.tasks.countdown import make_problem
from data.types import Usage
from rewards.verifiers.by_name import VERIFIERS
from search.base import SearchResult, solution_ids, solution_text
from search.batcher import run_searches
from search.settings import SearchSettings
from search.strategies.by_name import bind
from search.strategies.thinking import ThinkingConfig, thought_counts
from trainer.models.loading import build_policy, save_model
from trainer.searching.engines import load_engine
from trainer.searching.solve import SolveConfig, solve

MODEL = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip
# The prompts open the thought, so that the random model thinks.
PROBLEMS = [
    replace(problem, prompt=f"{problem.prompt}<think>\n")
    for problem in (make_problem((3, 4, 7, 12), 24), make_problem((1, 2, 5), 8))
]
SETTINGS = SearchSettings(answer="majority", guidance="likelihood")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("thinker")
    save_model(*build_policy(MODEL, "thoughts", 40), path)
    return str(path)


def run(engine: Any, **fields: Any) -> list[SearchResult]:
    return run_searches(
        PROBLEMS, bind(ThinkingConfig(answer_tokens=6, chains=5, **fields)), engine=engine,
        scorer=None, verify=VERIFIERS["countdown"]().verify, settings=SETTINGS,
    )  # fmt: skip


def plain(usage: Usage) -> Usage:
    """Without what an engine that keeps prefixes would save, which depends on earlier requests."""
    policy = replace(usage.policy, repeated_positions=0, repeated_flops=0.0)
    return replace(usage, policy=policy)


def test_budgets_cut_the_same_thoughts_and_every_cost_is_counted(folder: str) -> None:
    engine, _ = load_engine(folder, None, seed=2, device=torch.device("cpu"))
    found = list(run(engine, budgets=(1, 30, 60)))
    alone = list(run(engine, budgets=(30,)))
    cut = compared = 0
    for result, one in zip(found, alone, strict=True):
        assert result.usage == sum((node.usage for node in result.nodes), Usage())
        assert result.at(1).usage.flops < result.at(30).usage.flops < result.usage.flops
        forced = [n for n in one.nodes if n.proposals == 0 and "</think>" in n.text]
        if len(forced) == 5:  # an answer that crosses its limit is sampled on with other noise
            compared += 1
            assert one.at(30).answer == result.at(30).answer
            assert plain(one.at(30).usage) == plain(result.at(30).usage)
        assert plain(one.usage) == plain(one.at(30).usage)
        assert (result.at(1).answer or "").startswith("</think>\n")
        for node in result.nodes:
            if node.terminal is None:
                continue
            counts = thought_counts(result.nodes, node.id)
            cut += counts.cut
            assert counts.tokens <= 60
            # The nodes' texts join to their tokens' text. A space between nodes may be missing.
            text = solution_text(result.nodes, node.id)
            whole = engine.decode(solution_ids(result.nodes, node.id))
            assert whole.replace(" ", "") == text.replace(" ", "")
    assert cut > 10 and compared


def test_solve_says_what_became_of_the_thought(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = SolveConfig(
        model=folder, strategy="thinking", problem="3 4 7 -> 11", template="{problem}\n<think>\n"
    )
    [thought] = solve(config, SETTINGS, ThinkingConfig(budgets=(1,), answer_tokens=4))
    assert thought.budgeted is not None and thought.budgeted.cut
    assert "thought     0 tokens, cut at its budget" in capsys.readouterr().out
