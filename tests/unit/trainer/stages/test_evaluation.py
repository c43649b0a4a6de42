"""Rows of the evaluation by hand: four ways to choose among the same samples."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from data.json_records import read_record
from data.problems import write_problems
from data.tasks.countdown import make_problem
from data.types import ModelUsage, Outcome, Problem, StopReason, Usage, Verdict
from rewards.verifiers.by_name import VERIFIERS
from rewards.verifiers.final_answers import whole_text
from search.base import Node, SearchResult, Snapshot
from search.settings import SearchSettings
from search.strategies.mcts.config import MCTSConfig
from trainer.evaluation.policies import best_of_n_rows, prm_quality
from trainer.measures.results import GREEDY_OUTCOMES, GreedyOutcomes
from trainer.models.loading import load_policy, reward_model_from_policy, save_model
from trainer.runtime.config import RuntimeConfig
from trainer.stages.evaluate import EvaluateConfig, run_evaluate


class TextVerifier:
    def verify(self, problem: Problem, solution: str) -> Verdict:
        right = solution == problem.answer
        return Verdict(outcome=Outcome.CORRECT if right else Outcome.WRONG)


def searched(name: str, samples: list[tuple[str, float, bool]], answers: list[int]) -> SearchResult:
    """Samples are (text, score, finished); answers are the nodes chosen at budgets 1 and 4."""
    nodes = [Node(id=0, parent=-1, token_ids=(), text="")]
    for i, (text, score, finished) in enumerate(samples, start=1):
        stop = StopReason.END_OF_SOLUTION if finished else StopReason.LENGTH
        node = Node(id=i, parent=0, token_ids=(i,), text=text, score=score, terminal=stop)
        nodes.append(node)
    snapshots = [
        Snapshot(
            budget=budget,
            answer=nodes[answer].text,
            answer_node=answer,
            truncated=nodes[answer].terminal is StopReason.LENGTH,
            usage=Usage(
                policy=ModelUsage(generated_tokens=10 * budget, flops=100.0 * budget),
                reward=ModelUsage(flops=7.0 * budget),
            ),
        )
        for budget, answer in zip((1, 4), answers, strict=True)
    ]
    return SearchResult(
        problem=Problem(id=name, prompt="?", answer="r"),
        strategy="solutions",
        nodes=tuple(nodes),
        snapshots=tuple(snapshots),
        usage=Usage(),
    )


def test_four_choices_among_the_same_samples() -> None:
    results = [
        # the vote is right, the best score wrong, the weighted choice right
        searched("p", [("w", 0.9, True), ("r", 0.5, True), ("r", 0.5, True), ("x", 0.1, True)],
                 [1, 2]),
        # only an oracle sees the right one
        searched("q", [("w", 0.9, True), ("w", 0.9, True), ("w", 0.9, True), ("r", 0.2, True)],
                 [1, 1]),
        # the text is right, but the sample was cut off: nobody's point
        searched("s", [("r", 0.9, False)] * 4, [1, 1]),
    ]  # fmt: skip
    bench: Any = SimpleNamespace(verifier=TextVerifier(), final_answer=whole_text)
    rows = {(r.strategy, r.budget): r for r in best_of_n_rows(bench, "policy", results, (1, 4))}
    solved = {key: round(3 * row.value) for key, row in rows.items()}
    assert solved == {
        ("best_of_n_weighted", 1): 0, ("best_of_n_weighted", 4): 1,
        ("best_of_n", 1): 0, ("best_of_n", 4): 0,
        ("majority", 1): 0, ("majority", 4): 1,
        ("pass_at_n", 1): 0, ("pass_at_n", 4): 2,
    }  # fmt: skip
    assert rows["best_of_n", 4].flops == rows["best_of_n_weighted", 4].flops == 428.0
    assert rows["majority", 4].flops == rows["pass_at_n", 4].flops == 400.0
    assert all(row.generated_tokens == 10 * row.budget for row in rows.values())
    assert rows["majority", 4].truncation_rate == pytest.approx(1 / 3)


def test_a_reward_model_without_steps_to_judge_has_no_quality() -> None:
    problem = Problem(id="p", prompt="?", answer="x")
    root = Node(id=0, parent=-1, token_ids=(), text="")
    probed = SearchResult(
        problem=problem, strategy="probe", nodes=(root,), snapshots=(), usage=Usage()
    )
    assert prm_quality([probed], 4, 0) is None
    scored = [Node(id=i, parent=0, token_ids=(), text="", visit_count=4) for i in (1, 2)]
    scored[0].score, scored[0].value_sum, scored[1].score = 0.75, 3.0, 0.25
    good = prm_quality([replace(probed, nodes=(root, *scored))], 4, 0)
    # Rates 3/4 and 0 of 4 rollouts: squared errors 0 and 1/16, less a noise of 3/16 / 3 in one.
    assert good is not None and good.auroc == 1.0
    assert good.brier_skill == pytest.approx(1.0)
    scored[1].score = math.nan
    with pytest.raises(ValueError, match="problem p: the reward model's score of '' is nan"):
        prm_quality([replace(probed, nodes=(root, *scored))], 4, 0)


@pytest.mark.parametrize("wrong", ["use_verifier", "oracle", "random"])
def test_a_search_that_sees_the_verifier_is_no_test_time_search(tmp_path: Path, wrong: str) -> None:
    runtime = RuntimeConfig(output_dir=str(tmp_path / "out"))
    config = EvaluateConfig(policies=["a"], reward_model="b", data="c", verifier="countdown")
    evaluate = partial(run_evaluate, runtime, config)
    settings = SearchSettings(guidance="prm" if wrong == "use_verifier" else wrong)
    with pytest.raises(ValueError, match="use_verifier must be false, and guidance must not be"):
        evaluate(settings, MCTSConfig(use_verifier=wrong == "use_verifier"))
    assert not (tmp_path / "out").exists()


class EndsAtOnce:
    def verify(self, problem: Problem, solution: str) -> Verdict:
        return Verdict(outcome=Outcome.WRONG if solution else Outcome.CORRECT)


def test_policies_are_compared_greedily_without_a_reward_model(
    tiny_policy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(VERIFIERS, "countdown", EndsAtOnce)
    problem = make_problem((1, 2, 3), 6)
    (tmp_path / "data").mkdir()
    write_problems(tmp_path / "data" / "test.jsonl", [problem])
    for name in ("sft", "a", "b"):
        save_model(*tiny_policy, tmp_path / name)
    model, tokenizer = load_policy(str(tmp_path / "a"))
    with torch.no_grad():  # what it thinks after the prompt becomes what means the end
        ids = torch.tensor([tokenizer.encode(problem.prompt)])
        thought = model.base_model(input_ids=ids).last_hidden_state[0, -1]
        model.get_input_embeddings().weight[tokenizer.eos_token_id] = 100 * thought
    save_model(model, tokenizer, tmp_path / "a")
    policies = [str(tmp_path / name) for name in ("sft", "a", "b")]
    config = EvaluateConfig(
        policies=policies,
        data=str(tmp_path / "data"),
        search_problems=0,
        verifier="countdown",
        compare=["a:sft", "b:a"],
    )
    runtime = RuntimeConfig(output_dir=str(tmp_path / "out"), wandb=False)
    run_evaluate(runtime, config, SearchSettings(max_new_tokens=4), MCTSConfig())
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    differences = {name: row["difference"] for name, row in found["comparisons"].items()}
    assert differences == {"a_vs_sft": 1.0, "b_vs_a": -1.0}
    outcomes = read_record(GreedyOutcomes, tmp_path / "out" / GREEDY_OUTCOMES)
    assert outcomes.solved == {"sft": (False,), "a": (True,), "b": (False,)}
    assert outcomes.groups == (problem.group,) and found["scaling"] == []
    assert (found["prm"], found["data_making"]) == (None, [])  # which a report looks for
    assert [(r["policy"], r["strategy"]) for r in found["accuracy"]] == [
        ("sft", "greedy"), ("sft", "sample"), ("a", "greedy"), ("b", "greedy"), ("b", "sample"),
    ]  # fmt: skip
    for pair in ("a:c", "a"):
        with pytest.raises(ValueError, match=f"compare holds '{pair}'; it must be two of sft, a"):
            EvaluateConfig(
                policies=policies, data="d", search_problems=0, verifier="countdown", compare=[pair]
            )
    with pytest.raises(ValueError, match="no reward_model is given"):
        EvaluateConfig(policies=policies, data="d", verifier="countdown")


def test_a_judge_chooses_for_the_tree_its_control_and_the_samples(
    tiny_policy: Any, tmp_path: Path
) -> None:
    save_model(*tiny_policy, tmp_path / "policy")
    for i, name in enumerate(("prm", "judge")):
        torch.manual_seed(i)
        model = reward_model_from_policy(str(tmp_path / "policy"))
        save_model(model, tiny_policy[1], tmp_path / name)
    (tmp_path / "data").mkdir()
    problems = [make_problem((1, 2, 3 + i), 6 + i) for i in range(2)]
    for split in ("train", "test"):
        write_problems(tmp_path / "data" / f"{split}.jsonl", problems)
    config = EvaluateConfig(
        policies=[str(tmp_path / "policy")], data=str(tmp_path / "data"), verifier="countdown",
        reward_model=str(tmp_path / "prm"), judge=str(tmp_path / "judge"), greedy_problems=2,
        search_problems=2, best_of_n=(4,), prm_problems=0, data_making_problems=1,
        data_making_simulations=2,
    )  # fmt: skip
    settings = SearchSettings(answer_guidance="judge", max_new_tokens=20, max_depth=3)
    mcts = MCTSConfig(budgets=(4,), expand_by_rollouts=True, proposals=2, widening=0.9)
    out = tmp_path / "out"
    run_evaluate(RuntimeConfig(output_dir=str(out), wandb=False), config, settings, mcts)
    assert "judge" in json.loads((out / "manifest.json").read_text())["inputs"]

    def counts(name: str) -> list[tuple[int, int, int]]:
        """Passes through both reward models, finished solutions, and those with two values."""
        trees = [json.loads(line) for line in (out / f"{name}.jsonl").open()]
        return [
            (
                tree["usage"]["reward"]["sequences"],
                sum(node["terminal"] == "end_of_solution" for node in tree["nodes"]),
                sum("answer_score" in node for node in tree["nodes"]),
            )
            for tree in trees
        ]

    assert any(finished for _, finished, _ in counts("policy_mcts"))
    for passes, finished, judged in counts("policy_mcts"):  # the reward model, then the judge
        assert judged == finished and passes >= 2 * finished
    for passes, finished, judged in counts("policy_mcts_control"):  # the judge alone
        assert judged == passes == finished
    for _, _, judged in [*counts("policy_best_of_n"), *counts("making_mcts")]:
        assert judged == 0  # one value, or none is needed
