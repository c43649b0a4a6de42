"""Searches in which the reward model has the policy's trunk: the same trees, and what they cost."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from data.types import ModelUsage, Outcome, Problem, Usage, Verdict
from rewards.models.prm import ProcessRewardModel
from search.base import SearchResult
from search.batcher import run_searches
from search.engines.transformers_engine import TransformersEngine
from search.read_prefixes import ScoredEnds
from search.scorer import RewardScorer
from search.settings import SearchSettings
from search.strategies.beam import BeamConfig
from search.strategies.by_name import bind
from search.strategies.mcts.config import MCTSConfig
from search.strategies.particles import ParticleConfig
from search.strategies.solutions import SolutionsConfig
from trainer.models.loading import reward_model_from_policy, save_model
from trainer.searching.engines import load_engine, open_engine
from trainer.searching.shared_trunk import same_trunk, share_trunk

from ...search.engines.test_transformers_engine import PROMPTS, Meter

CONFIGS = {
    "beam": BeamConfig(budgets=(2,)),
    "particles": ParticleConfig(budgets=(4,)),
    "rollouts": MCTSConfig(budgets=(6,), expand_by_rollouts=True),
    "best_of_n": SolutionsConfig(budgets=(4,)),
}


@pytest.fixture
def folders(tiny_policy: Any, tmp_path: Path) -> tuple[Any, Any, str]:
    """A policy, its tokenizer, and the folder of a reward model with the policy's trunk."""
    save_model(*tiny_policy, tmp_path / "policy")
    torch.manual_seed(0)
    save_model(
        reward_model_from_policy(str(tmp_path / "policy")), tiny_policy[1], tmp_path / "reward"
    )
    return copy.deepcopy(tiny_policy[0]), tiny_policy[1], str(tmp_path / "reward")


def opened(
    model: Any, tokenizer: Any, reward_model: str, mib: int
) -> tuple[TransformersEngine, RewardScorer, ProcessRewardModel]:
    engine, scorer = open_engine(
        model, tokenizer, reward_model, seed=3, device="cpu", kept_prefixes_mib=mib
    )
    assert isinstance(scorer, RewardScorer)
    assert isinstance(scorer.reward_model, ProcessRewardModel)
    share_trunk(engine, scorer)
    return engine, scorer, scorer.reward_model


def search(engine: TransformersEngine, scorer: RewardScorer, config: Any) -> list[SearchResult]:
    return list(run_searches(
        [Problem(id=str(i), prompt=text, answer="5") for i, text in enumerate(PROMPTS)],
        bind(config),
        engine=engine,
        scorer=scorer,
        verify=lambda problem, text: Verdict(outcome=Outcome.WRONG),
        settings=SearchSettings(max_step_tokens=5, max_new_tokens=12, max_depth=3),
    ))  # fmt: skip


def without_repeats(usage: Usage) -> Usage:
    def plain(side: ModelUsage) -> ModelUsage:
        return replace(side, repeated_positions=0, repeated_flops=0.0)

    return Usage(policy=plain(usage.policy), reward=plain(usage.reward))


@pytest.mark.parametrize("name", CONFIGS)
def test_the_trees_are_the_same_and_cost_what_their_usage_says(
    folders: tuple[Any, Any, str], name: str
) -> None:
    """Against the same reward model as one of its own: equal trees, bit by bit, and equal usage but
    for what is known. `repeated_positions` are those that do not go through a model."""
    computed: dict[bool, int] = {}
    found: dict[bool, list[SearchResult]] = {}
    for shared in (False, True):
        engine, scorer, reward_model = opened(*folders, mib=8)
        assert scorer.shares_trunk
        if not shared:
            scorer.shares_trunk = False
            reward_model.keep_prefixes(8, bit_identical=True)
        with Meter(engine.model) as policys, Meter(reward_model.model) as own:
            found[shared] = search(engine, scorer, CONFIGS[name])
        usage = sum((result.usage for result in found[shared]), Usage())
        for side, meter, padding in (
            (usage.policy, policys, engine.padding_positions),
            (usage.reward, own, reward_model.padding_positions),
        ):
            assert meter.positions - padding == side.positions - side.repeated_positions
        computed[shared] = usage.reward.positions - usage.reward.repeated_positions
    for ours, theirs in zip(found[True], found[False], strict=True):
        assert ours.nodes == tuple(
            replace(node, usage=own.usage)
            for node, own in zip(theirs.nodes, ours.nodes, strict=True)
        )
        assert ours.snapshots[-1].answer == theirs.snapshots[-1].answer
        assert without_repeats(ours.usage) == without_repeats(theirs.usage)
    assert computed[True] < 0.7 * computed[False]


def test_a_step_costs_the_reward_model_one_position(folders: tuple[Any, Any, str]) -> None:
    """Particles take a step each, and every new step is scored: its last token is all that the
    policy has not read."""
    engine, scorer, _ = opened(*folders, mib=8)
    for result in search(engine, scorer, CONFIGS["particles"]):
        reward = result.usage.reward
        steps = {node.id for node in result.nodes[1:] if node.score is not None}
        assert reward.positions - reward.repeated_positions <= len(steps)


def test_a_whole_solution_costs_the_reward_model_one_position(
    folders: tuple[Any, Any, str],
) -> None:
    """The last step decides, so the ends of the steps before it are not scored."""
    engine, scorer, _ = opened(*folders, mib=8)
    for result in search(engine, scorer, CONFIGS["best_of_n"]):
        reward = result.usage.reward
        solutions = {node.token_ids for node in result.nodes if node.score is not None}
        assert reward.positions - reward.repeated_positions == len(solutions)


def test_without_kept_prefixes_everything_is_computed(folders: tuple[Any, Any, str]) -> None:
    engine, scorer, reward_model = opened(*folders, mib=0)
    assert scorer.shares_trunk  # and the ledger says what keeping would save
    with Meter(reward_model.model) as own:
        results = search(engine, scorer, CONFIGS["beam"])
    usage = sum((result.usage for result in results), Usage()).reward
    assert own.positions - reward_model.padding_positions == usage.positions
    assert usage.repeated_positions > 0.5 * usage.positions


def test_the_weights_are_there_once(folders: tuple[Any, Any, str]) -> None:
    engine, _, reward_model = opened(*folders, mib=8)
    ours = dict(reward_model.model.base_model.named_parameters())
    for name, weights in engine.model.base_model.named_parameters():
        assert ours[name] is weights


def test_a_policy_that_is_trained_does_not_take_the_reward_model_along(
    folders: tuple[Any, Any, str], tmp_path: Path
) -> None:
    """PPO and GRPO open their engine over the model that they train."""
    policy, tokenizer, reward = folders
    _, scorer = open_engine(policy, tokenizer, reward, seed=3, device="cpu")
    assert isinstance(scorer, RewardScorer)
    sequence, before = [5, 6, 7, 8], scorer.reward_model.score([[5, 6, 7, 8]], [[3]])[0]
    with torch.no_grad():
        for weights in policy.parameters():
            weights += 0.1
    assert scorer.reward_model.score([sequence], [[3]])[0] == before
    assert not scorer.shares_trunk
    # A search loads its policy, which nobody trains.
    _, scorer = load_engine(str(tmp_path / "policy"), reward, seed=3, device="cpu")
    assert scorer is not None and scorer.shares_trunk


def test_another_trunk_is_not_shared(folders: tuple[Any, Any, str]) -> None:
    policy, tokenizer, reward = folders
    with torch.no_grad():
        policy.base_model.norm.weight[0] += 1e-3
    engine, scorer, reward_model = opened(policy, tokenizer, reward, mib=8)
    assert not scorer.shares_trunk
    assert not same_trunk(engine.model.base_model, reward_model.model.base_model)


def test_a_step_end_is_scored_once() -> None:
    scored = ScoredEnds()
    assert scored.first_new((1, 2, 3, 4), (1, 3)) == 1
    scored.add((1, 2, 3, 4), (1,))
    assert scored.first_new((1, 2, 3, 4), (1, 3)) == 3
    assert scored.first_new((1, 2, 5), (1,)) == 3
    assert scored.first_new((1, 9, 5), (1,)) == 1
