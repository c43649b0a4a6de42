"""Trees of a real tiny policy become demonstrations that think, and SFT learns from them."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from trl.trainer.sft_config import SFTConfig

from data.problems import read_demonstrations, read_problems, write_problems
from data.tasks.countdown import OPERATORS, CountdownConfig, apply, demonstrate
from data.tasks.countdown_lines import read_thought, step_line
from data.thoughts import split_solution
from data.types import Demonstration, Problem
from rewards.verifiers.countdown import CountdownVerifier
from search.settings import SearchSettings
from search.strategies.mcts.config import MCTSConfig
from search.trees.thoughts import LinearisationConfig
from trainer.models.loading import build_policy, save_model
from trainer.rollouts.early_stopping import EarlyStoppingConfig
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.manifests import read_manifest
from trainer.runtime.solution_defaults import solution_defaults
from trainer.stages.data import DataConfig, run_data
from trainer.stages.search import TreesConfig, run_trees
from trainer.stages.sft import PolicyConfig, run_sft
from trainer.stages.tree_thoughts import TreeThoughtsConfig, run_tree_thoughts
from trainer.training.token_rows import demonstration_rows

COUNTDOWN = CountdownConfig(
    num_numbers=4, min_number=1, max_number=9, max_value=30, min_target=10, max_target=30
)
MODEL: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip
SETTINGS = SearchSettings(max_step_tokens=14, max_new_tokens=48, max_depth=4, guidance="likelihood")
MCTS = MCTSConfig(budgets=(24,), proposals=4, use_verifier=True, max_solutions=1)


def runtime(folder: Path, seed: int = 1) -> RuntimeConfig:
    return RuntimeConfig(output_dir=str(folder), wandb=False, seed=seed)


def wrong(problem: Problem, rng: random.Random) -> str:
    """True steps that end at one number, which may be wrong."""
    numbers, lines = list(problem.numbers), list[str]()
    while len(numbers) > 1:
        rng.shuffle(numbers)
        left, right = sorted((numbers.pop(), numbers.pop()), reverse=True)
        operator = rng.choice([o for o in OPERATORS if 0 < (apply(left, o, right) or 0) <= 30])
        result = apply(left, operator, right) or 0
        numbers.append(result)
        lines.append(step_line(left, operator, right, result, numbers))
    return "\n".join(lines)


def learnt(problems: list[Problem]) -> tuple[Any, Any]:
    """A policy that has seen right and wrong solutions of each problem, so that it samples right,
    wrong and false ones."""
    torch.manual_seed(3)
    model, tokenizer = build_policy(MODEL, "numbers", 30)
    rng = random.Random(1)
    solutions = [
        Demonstration(problem=problem, solution=solution)
        for problem in problems
        for _ in range(4)
        for solution in (
            demonstrate(problem, rng, max_value=30), wrong(problem, rng), wrong(problem, rng)
        )
    ]  # fmt: skip
    rows = demonstration_rows(list(dict.fromkeys(solutions)), tokenizer)
    ids = [torch.tensor([*row.prompt_ids, *row.completion_ids]) for row in rows]
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=-100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(120):
        loss = model(input_ids=padded.clamp(min=0), labels=padded).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, tokenizer


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder, and trees of a policy on its training problems."""
    root = tmp_path_factory.mktemp("made")
    sizes = DataConfig(
        demonstrations=2, train=6, validation=3, test=3, slices={"validation": {"watched": 2}}
    )
    run_data(runtime(root / "data"), sizes, COUNTDOWN)
    policy = learnt(read_problems(root / "data" / "train.jsonl"))
    save_model(*policy, root / "policy")
    for seed in (1, 2):
        stage = TreesConfig(
            policy=str(root / "policy"), data=str(root / "data"), verifier="countdown"
        )
        run_trees(runtime(root / f"search_{seed}", seed), stage, SETTINGS, MCTS)
    return root


def write(made: Path, folder: Path, seed: int = 1, **values: Any) -> dict[str, Any]:
    """Run the stage, and give the metrics of its manifest."""
    linearisation = {
        key: values.pop(key) for key in ("order", "most_tries", "evaluation") if key in values
    }
    given = {"trees": [str(made / "search_1")], "data": str(made / "data")} | values
    run_tree_thoughts(
        runtime(folder, seed), TreeThoughtsConfig(**given), LinearisationConfig(**linearisation)
    )
    return read_manifest(folder)["metrics"]


def rows_of(folder: Path) -> list[Demonstration]:
    return read_demonstrations(folder / "demonstrations.jsonl")


@pytest.mark.parametrize("order", ["depth_first", "as_searched"])
def test_trees_of_a_real_search(made: Path, tmp_path: Path, order: str) -> None:
    both = [str(made / "search_1"), str(made / "search_2")]
    metrics = write(
        made, tmp_path / "out", trees=both, order=order, traces_per_problem=6, most_tries=8
    )
    rows = rows_of(tmp_path / "out")
    assert (metrics["trees"], metrics["problems"]) == (12, 6)
    solved = [json.loads((made / name / "manifest.json").read_text()) for name in both]
    assert metrics["trees_without_solution"] == 12 - sum(m["metrics"]["solved"] for m in solved)
    assert len(rows) == metrics["thoughts"] > metrics["problems_solved"] > 1
    assert len(rows) + metrics["equal_thoughts"] == 6 * metrics["problems_solved"]
    tries = dead_ends = 0
    for row in rows:
        assert CountdownVerifier().verify(row.problem, row.solution).correct
        lines = read_thought(row.problem, split_solution(row.solution).thought or "")
        assert [line.fault for line in lines] == [None] * len(lines)
        found = [line for line in lines if "completion" in line.behaviours]
        assert len(found) <= 8
        tries += len(found)
        dead_ends += sum(line.text.startswith("instead ") for line in lines)
    # A thought is a tree that is walked once: one more end than places with another operation.
    assert (metrics["operations"], metrics["dead_ends"]) == (tries, dead_ends)
    assert metrics["behaviours/false_lines"] == 0.0
    assert min(metrics[name] for name in ("dead_ends", "pruned_operations", "false_steps")) > 5
    assert metrics["too_long"] == 0
    ids = [row.problem.id for row in rows]
    first = list(dict.fromkeys(ids))
    assert ids[: len(first)] == first  # one thought of each problem, then a second one
    for name in ("train.jsonl", "validation.jsonl", "test.jsonl", "slices.json"):
        assert (tmp_path / "out" / name).read_bytes() == (made / "data" / name).read_bytes()


def test_the_same_seed_gives_the_same_thoughts_and_later_traces_go_on(
    made: Path, tmp_path: Path
) -> None:
    values: dict[str, Any] = {"most_tries": 5, "evaluation": 0.5}
    write(made, tmp_path / "four", traces_per_problem=4, **values)
    write(made, tmp_path / "again", traces_per_problem=4, **values)
    write(made, tmp_path / "two", traces_per_problem=2, **values)
    write(made, tmp_path / "later", first_trace=2, traces_per_problem=2, **values)
    write(made, tmp_path / "other", seed=2, traces_per_problem=4, **values)
    four = rows_of(tmp_path / "four")
    assert rows_of(tmp_path / "again") == four != rows_of(tmp_path / "other")
    two = rows_of(tmp_path / "two")
    assert len(four) > len(two)
    assert four == list(dict.fromkeys([*two, *rows_of(tmp_path / "later")]))


def test_sft_learns_from_the_folder_and_evaluates_on_its_problems(
    made: Path, tmp_path: Path
) -> None:
    write(made, tmp_path / "thoughts", traces_per_problem=2)
    # The limit of solutions that do not think is not taken over.
    assert solution_defaults(made / "data") == {"verifier": "countdown", "max_new_tokens": "64"}
    assert solution_defaults(tmp_path / "thoughts") == {"verifier": "countdown"}
    out = tmp_path / "out"
    arguments = SFTConfig(
        output_dir=str(out), max_steps=2, per_device_train_batch_size=2, bf16=False, use_cpu=True,
        report_to="none", disable_tqdm=True, max_length=None,
    )  # fmt: skip
    config = PolicyConfig(
        model="from_scratch", model_config=MODEL, tokenizer="thoughts", max_number=30,
        data=str(tmp_path / "thoughts"),
    )  # fmt: skip
    stopping = EarlyStoppingConfig(
        evaluation_problems=2, evaluation_slice="watched", evaluate_every=2,
        evaluation_max_new_tokens=30,
    )  # fmt: skip
    run_sft(runtime(out), config, arguments, stopping=stopping)
    metrics = read_manifest(out)["metrics"]
    assert metrics["held_out_problems"] == 2
    assert metrics["behaviours/thoughts"] == 1.0 and metrics["behaviours/false_lines"] == 0.0


@pytest.mark.parametrize("split", ["validation", "test"])
def test_problems_that_measure_a_policy_are_refused(made: Path, tmp_path: Path, split: str) -> None:
    """Also a problem with the same numbers and another target."""
    shutil.copytree(made / "data", tmp_path / "data")
    problem = read_problems(made / "data" / "train.jsonl")[0]
    held_out = Problem(id="h", prompt="?", answer="1", group=problem.group)
    write_problems(tmp_path / "data" / f"{split}.jsonl", [held_out])
    with pytest.raises(ValueError, match=rf"its problem '{problem.id}' belongs to {split} of"):
        write(made, tmp_path / "out", data=str(tmp_path / "data"))
    (tmp_path / "data" / f"{split}.jsonl").unlink()
    with pytest.raises(ValueError, match=rf"no file '.*{split}\.jsonl', so nothing says which"):
        write(made, tmp_path / "gone", data=str(tmp_path / "data"))


def changed(made: Path, folder: Path, **problem: Any) -> str:
    """The first tree, with these fields of its problem."""
    folder.mkdir()
    row = json.loads((made / "search_1" / "trees.jsonl").read_text().splitlines()[0])
    row["problem"] |= problem
    (folder / "trees.jsonl").write_text(json.dumps(row) + "\n")
    return str(folder)


def test_trees_that_do_not_fit_are_refused(made: Path, tmp_path: Path) -> None:
    other = changed(made, tmp_path / "other", prompt="How many apples?", answer="3")
    with pytest.raises(ValueError, match=r"other': problem .* has the prompt 'How many apples"):
        write(made, tmp_path / "a", trees=[other])
    first = str(made / "search_1")
    target = changed(made, tmp_path / "target", prompt="3 4 7 12 -> 24\n", answer="24")
    with pytest.raises(ValueError, match="is another problem in an earlier tree"):
        write(made, tmp_path / "b", trees=[first, target])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"there is no file '.*empty/trees\.jsonl'"):
        write(made, tmp_path / "c", trees=[str(tmp_path / "empty")])
    for values, said in (
        ({"trees": []}, "trees is empty"),
        ({"traces_per_problem": 0}, "traces_per_problem is 0; it must be at least 1"),
        ({"first_trace": -1}, "first_trace is -1; it must not be negative"),
    ):
        with pytest.raises(ValueError, match=said):
            write(made, tmp_path / "d", **dict[str, Any](values))


def test_without_a_thought_only_kept_demonstrations_are_written(made: Path, tmp_path: Path) -> None:
    unsolved = changed(made, tmp_path / "unsolved", answer="999")
    row = json.loads((tmp_path / "unsolved" / "trees.jsonl").read_text())
    numbers = row["problem"]["prompt"].partition(" ->")[0]
    row["problem"]["prompt"] = f"{numbers} -> 999\n"
    (tmp_path / "unsolved" / "trees.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(ValueError, match="none of the 1 trees gives a thought; 1 have no correct"):
        write(made, tmp_path / "none", trees=[unsolved])
    metrics = write(made, tmp_path / "kept", trees=[unsolved], keep_demonstrations=True)
    assert rows_of(tmp_path / "kept") == rows_of(made / "data")
    assert (metrics["thoughts"], metrics["demonstrations"]) == (0, 2)
    write(made, tmp_path / "mixed", keep_demonstrations=True)
    mixed = rows_of(tmp_path / "mixed")
    assert mixed[-2:] == rows_of(made / "data") and len(mixed) > 2
