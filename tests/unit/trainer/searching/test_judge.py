"""A judge in a recipe: what it may be, what does not fit, and a stage whose answers it chooses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from data.problems import write_problems
from data.tasks.countdown import make_problem
from data.types import Outcome, Problem, Verdict
from rewards.models.opening import open_reward_model
from search.base import SearchResult, solution_ids
from search.batcher import run_searches
from search.settings import SearchSettings
from search.strategies.by_name import bind
from search.strategies.mcts.config import MCTSConfig
from search.strategies.routed import RoutedConfig
from search.strategies.solutions import SolutionsConfig
from trainer.evaluation.controls import random_tree
from trainer.models.loading import reward_model_from_policy, save_model
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.judge_settings import check_judge
from trainer.runtime.manifests import read_manifest
from trainer.searching.models import SearchModels, load_models
from trainer.searching.solve import SolveConfig, solve
from trainer.stages.compare import CompareConfig
from trainer.stages.search import TreesConfig, run_trees

CPU = torch.device("cpu")
SETTINGS = SearchSettings(
    answer_guidance="judge", max_step_tokens=8, max_new_tokens=24, max_depth=3
)
MCTS = MCTSConfig(budgets=(2, 6), expand_by_rollouts=True, proposals=3, widening=0.9)


@pytest.fixture(scope="module")
def folders(tiny_policy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy, a reward model, a judge, and the judge in text."""
    root = tmp_path_factory.mktemp("models")
    save_model(*tiny_policy, root / "policy")
    for i, name in enumerate(("prm", "judge")):
        torch.manual_seed(i)
        save_model(reward_model_from_policy(str(root / "policy")), tiny_policy[1], root / name)
    text = {"convention": "thinktree_text", "model": str(root / "judge")}
    (root / "text.yaml").write_text(json.dumps(text))
    (root / "data").mkdir()
    problems = [make_problem((1, 2, 3 + i), 6 + i) for i in range(3)]
    write_problems(root / "data" / "train.jsonl", problems)
    return root


def unverified(problem: Problem, solution: str) -> Verdict:
    return Verdict(outcome=Outcome.UNVERIFIABLE)


def searched(models: SearchModels, settings: SearchSettings = SETTINGS) -> list[SearchResult]:
    problems = [Problem(id=str(i), prompt=f"1 2 {i} -> 6\n", answer="6") for i in range(3)]
    results = run_searches(
        problems, bind(MCTS), engine=models.engine, scorer=models.scorer, judge=models.judge,
        verify=unverified, settings=settings,
    )  # fmt: skip
    return sorted(results, key=lambda result: result.problem.id)


def load(folders: Path, judge: str, **options: Any) -> SearchModels:
    policy, prm = str(folders / "policy"), str(folders / "prm")
    return load_models(policy, prm, judge, seed=1, device=CPU, **options)


def scores_of(results: list[SearchResult]) -> list[list[float | None]]:
    return [[node.answer_score for node in result.nodes] for result in results]


def test_a_judge_scores_the_last_tokens_of_finished_solutions(folders: Path) -> None:
    models = load(folders, str(folders / "judge"))
    results = searched(models)
    plain: Any = open_reward_model(str(folders / "judge"), CPU).token_model
    judged = 0
    for result in results:
        prompt = models.engine.encode_prompt(result.problem.prompt)
        for node in result.nodes:
            assert (node.answer_score is not None) == node.finished
            if node.finished:
                ids = prompt + solution_ids(result.nodes, node.id)
                [[expected]], _ = plain.score([ids], [[len(ids) - 1]])
                assert node.answer_score == expected != node.score
                judged += 1
    assert judged > 5


def test_a_judge_may_read_text(folders: Path) -> None:
    """It reads the policy's steps as text, so it gives other scores, but to the same nodes."""
    in_ids = searched(load(folders, str(folders / "judge")))
    in_text = searched(load(folders, str(folders / "text.yaml")))
    assert [[n.text for n in r.nodes] for r in in_text] == [
        [n.text for n in r.nodes] for r in in_ids
    ]
    for row, other in zip(scores_of(in_text), scores_of(in_ids), strict=True):
        assert [score is None for score in row] == [score is None for score in other]
    read = sum(result.usage.reward.sequences for result in in_text)
    assert read == sum(result.usage.reward.sequences for result in in_ids)


def test_kept_prefixes_change_no_choice(folders: Path) -> None:
    kept = load(folders, str(folders / "judge"), kept_prefixes_mib=4)
    plain = searched(load(folders, str(folders / "judge")))
    found = searched(kept, replace(SETTINGS, kept_prefixes_mib=4))
    assert scores_of(found) == scores_of(plain)
    assert [r.usage for r in found] == [r.usage for r in plain]


def test_the_context_is_that_of_the_shortest_model(
    folders: Path, tiny_policy: Any, tmp_path: Path
) -> None:
    short = reward_model_from_policy(str(folders / "policy"))
    short.config.max_position_embeddings = 40
    save_model(short, tiny_policy[1], tmp_path / "short")
    assert load(folders, str(tmp_path / "short")).engine.context_length == 40
    assert load(folders, str(folders / "judge")).engine.context_length > 40


def test_a_stage_knows_its_judge(folders: Path, tmp_path: Path) -> None:
    stage = TreesConfig(
        policy=str(folders / "policy"), data=str(folders / "data"), verifier="countdown",
        reward_model=str(folders / "prm"), judge=str(folders / "judge"), num_problems=3,
    )  # fmt: skip
    run_trees(RuntimeConfig(output_dir=str(tmp_path / "out"), wandb=False), stage, SETTINGS, MCTS)
    manifest = read_manifest(tmp_path / "out")
    assert manifest["inputs"]["judge"]["source"].endswith("judge")
    trees = [json.loads(line) for line in (tmp_path / "out" / "trees.jsonl").open()]
    judged = sum("answer_score" in node for tree in trees for node in tree["nodes"])
    assert judged > 3
    [reward] = [e for e in manifest["usage"]["ledger"] if e["model"] == "reward"]
    spent = [tree["usage"]["reward"] for tree in trees]
    assert reward["flops"] == pytest.approx(sum(each["flops"] for each in spent))
    by_model = [n["usage"].get("reward", {}).get("sequences", 0) for t in trees for n in t["nodes"]]
    assert sum(by_model) == sum(each["sequences"] for each in spent) > judged


def test_what_does_not_belong_together_is_named() -> None:
    fields: dict[str, Any] = {"policy": "p", "data": "d", "verifier": "countdown"}
    judged, plain = SETTINGS, SearchSettings()
    with pytest.raises(ValueError, match="answer_guidance is 'judge', but judge is not given: set"):
        check_judge((TreesConfig(**fields), judged))
    with pytest.raises(ValueError, match="judge is 'j', but nothing asks it: set answer_guidance"):
        check_judge((TreesConfig(**fields, judge="j"), plain, MCTSConfig()))
    check_judge((TreesConfig(**fields, judge="j"), judged))
    check_judge((TreesConfig(**fields, judge="j"), plain, RoutedConfig(router="r")))
    check_judge((TreesConfig(**fields), plain))
    check_judge((RuntimeConfig(output_dir="o"), plain))

    def compared(own: Any, judge: str | None) -> CompareConfig:
        best = {"strategy": "solutions", "budgets": [4]}
        strategies = {"own": own, "samples": best}
        return CompareConfig(**fields, reward_model="r", strategies=strategies, judge=judge)

    tree = {"strategy": "mcts", "budgets": [4]}
    with pytest.raises(ValueError, match="but judge is not given"):
        check_judge((compared(tree | {"answer_guidance": "judge"}, None), plain))
    with pytest.raises(ValueError, match="but nothing asks it"):
        check_judge((compared(tree, "j"), plain))
    for own in (tree | {"answer_guidance": "judge"}, {"strategy": "routed", "router": "r"}):
        check_judge((compared(own, "j"), plain))
    check_judge((compared(tree, "j"), judged))
    for wrong in (None, 3, {"strategy": "mtcs"}):  # said by the stage
        check_judge((compared(wrong, "j"), judged))


def test_best_of_n_by_the_judge_needs_no_reward_model(folders: Path) -> None:
    config = SolveConfig(
        model=str(folders / "policy"), judge=str(folders / "judge"), strategy="solutions",
        problem="1 2 3 -> 6", quiet=True,
    )  # fmt: skip
    [thought] = solve(config, SETTINGS, SolutionsConfig(budgets=(16,)))
    assert thought.finished and thought.confidence is not None
    as_model = replace(config, judge=None, reward_model=config.judge)
    settings = replace(SETTINGS, answer_guidance="", guidance="outcome")
    [other] = solve(as_model, settings, SolutionsConfig(budgets=(16,)))
    assert replace(thought, seconds=0.0) == replace(other, seconds=0.0)
    tree = replace(config, strategy="mcts")
    with pytest.raises(ValueError, match="guidance is 'prm', which needs a reward_model"):
        solve(tree, SETTINGS, MCTS)
    by_prm = replace(SETTINGS, answer_guidance="prm", guidance="likelihood")
    with pytest.raises(ValueError, match="answer_guidance is 'prm', which needs a reward_model"):
        solve(replace(tree, judge=None), by_prm, MCTS)


def test_the_control_of_a_judged_search_is_judged() -> None:
    assert random_tree(SETTINGS).answer_guidance == "judge"
    votes = replace(SETTINGS, guidance="self_consistency")
    assert (random_tree(votes).answer_guidance, random_tree(votes).answer) == ("judge", "score")
