"""A stage that is measured on problems that it learns from ends in an error, whoever starts it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from data.problems import read_problems, write_demonstrations
from data.slices import read_slices, write_slices
from data.types import Demonstration, Problem
from tests.unit.trainer.conftest import Workshop
from trainer.rollouts.held_out import HeldOutConfig
from trainer.rollouts.solution_reward import GroupRLConfig
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.gates import GateConfig
from trainer.runtime.manifests import write_manifest
from trainer.stages.dpo import StepPreferenceConfig, run_dpo
from trainer.stages.expert_iteration import ExpertIterationConfig, run_expert_iteration
from trainer.stages.group_rl import run_group_rl

SHARED = "validation problems that measure the policy are among those that it is trained on"
SOLUTION = "1 + 1 = 2 | 2 3\n2 + 3 = 5 | 5"


@pytest.fixture
def folder(ppo: Workshop) -> Path:
    """`policy`, `data` with slices of 4 validation problems, and `search` with a trajectory."""
    data = ppo.folder / "data"
    sizes = {"train": {"learn": 8}, "validation": {"one": 4, "two": 4}}
    write_slices(data, read_slices(sizes), {"train": 8, "validation": 8})
    known = Demonstration(problem=ppo.problems[0], solution=SOLUTION)
    write_demonstrations(data / "demonstrations.jsonl", [known])
    return ppo.folder


def trajectory_of(problem: Problem, folder: Path, tiny_policy: Any) -> str:
    """A folder of the search stage with one solution of the problem."""
    _, tokenizer = tiny_policy
    row = {
        "prompt_ids": tokenizer.encode(problem.prompt, add_special_tokens=False),
        "completion_ids": tokenizer.encode(SOLUTION, add_special_tokens=False),
    }
    (folder / "search").mkdir()
    (folder / "search" / "trajectories.jsonl").write_text(json.dumps(row) + "\n")
    return str(folder / "search")


def held_out_of(folder: Path) -> list[Problem]:
    return read_problems(folder / "data" / "validation.jsonl")


def run_round(folder: Path, trees: str, gate: str = "two", size: int = 4) -> Path:
    from trl.trainer.sft_config import SFTConfig

    out = folder / "round"
    arguments = SFTConfig(
        output_dir=str(out), max_steps=1, per_device_train_batch_size=2, bf16=False, report_to=[],
        gradient_checkpointing=False, use_cpu=True, disable_tqdm=True, max_length=None,
    )  # fmt: skip
    policy, data = str(folder / "policy"), str(folder / "data")
    config = ExpertIterationConfig(policy=policy, data=data, trees=[trees], verifier="finishes")
    gated = GateConfig(gate_problems=size, gate_slice=gate, max_new_tokens=4)
    run_expert_iteration(RuntimeConfig(output_dir=str(out), wandb=False), config, gated, arguments)
    return out


def test_a_round_gates_on_its_slice(folder: Path, tiny_policy: Any) -> None:
    out = run_round(folder, trajectory_of(held_out_of(folder)[3], folder, tiny_policy))
    gate = json.loads((out / "manifest.json").read_text())["metrics"]["gate"]
    assert gate["n"] == 4


def test_a_round_refuses_a_gate_on_what_it_learns_from(folder: Path, tiny_policy: Any) -> None:
    trees = trajectory_of(held_out_of(folder)[4], folder, tiny_policy)
    with pytest.raises(ValueError, match=f"1 {SHARED}, such as"):
        run_round(folder, trees)
    assert not (folder / "round" / "manifest.json").exists()


def test_a_round_refuses_the_gate_of_an_earlier_round(folder: Path, tiny_policy: Any) -> None:
    trees = trajectory_of(read_problems(folder / "data" / "train.jsonl")[0], folder, tiny_policy)
    data, policy = folder / "data", folder / "policy"
    write_manifest(data, stage="data", recipe={}, seed=1)
    recipe = {"gate_skip": 3, "gate_problems": 2, "gate_slice": None}
    inputs = {"data": data}
    write_manifest(policy, stage="expert_iteration", recipe=recipe, seed=1, inputs=inputs)
    shutil.copytree(policy, folder / "earlier")
    inputs = {"data": data, "policy": folder / "earlier"}
    write_manifest(policy, stage="ppo", recipe={}, seed=1, inputs=inputs)
    with pytest.raises(ValueError, match=r"uses validation problems 4\.\.7; .* used 3\.\.4\."):
        run_round(folder, trees)


def test_a_gate_wants_all_its_problems(folder: Path, tiny_policy: Any) -> None:
    trees = trajectory_of(read_problems(folder / "data" / "train.jsonl")[0], folder, tiny_policy)
    with pytest.raises(ValueError, match=r"wants 5 validation problems from slice 'two', .* 4"):
        run_round(folder, trees, size=5)


def test_ppo_refuses_problems_of_its_evaluations(
    ppo: Workshop, folder: Path, tiny_policy: Any
) -> None:
    config = ppo.config(problems=str(folder / "data" / "validation.jsonl"))
    with pytest.raises(ValueError, match=f"4 {SHARED}"):
        ppo.run("problems", config)
    config = ppo.config(slice="one", evaluation_slice="one")
    with pytest.raises(ValueError, match=f"4 {SHARED}"):
        ppo.run("slice", config)
    trajectories = [trajectory_of(held_out_of(folder)[4], folder, tiny_policy)]
    config = ppo.config(
        slice="learn", evaluation_slice="two", trajectories=trajectories, imitation_coefficient=0.1
    )
    with pytest.raises(ValueError, match=f"1 {SHARED}"):
        ppo.run("imitation", config)


def test_grpo_and_dpo_refuse_problems_of_their_evaluations(folder: Path, tiny_policy: Any) -> None:
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.grpo_config import GRPOConfig

    common: dict[str, Any] = {
        "max_steps": 1, "bf16": False, "report_to": [], "gradient_checkpointing": False,
        "use_cpu": True, "disable_tqdm": True,
    }  # fmt: skip
    policy, data = str(folder / "policy"), str(folder / "data")
    evaluation = HeldOutConfig(evaluation_problems=4, evaluation_slice="one", max_new_tokens=4)
    runtime = RuntimeConfig(output_dir=str(folder / "grpo"), wandb=False)
    config = GroupRLConfig(policy=policy, data=data, slice="one", verifier="finishes")
    with pytest.raises(ValueError, match=f"4 {SHARED}"):
        run_group_rl(
            "grpo", runtime, config, evaluation, GRPOConfig(output_dir=runtime.output_dir, **common)
        )
    encode = tiny_policy[1].encode
    problem = held_out_of(folder)[0]
    pair = {
        "problem_prompt": problem.prompt, "prompt": problem.prompt, "prefix_ids": [],
        "chosen": "1 + 1 = 2 | 2 3\n", "rejected": "1 - 1 = 0 | 0 3\n",
    }  # fmt: skip
    for name in ("chosen", "rejected"):
        pair[f"{name}_ids"] = encode(pair[name], add_special_tokens=False)
    pairs = folder / "step_preferences.jsonl"
    pairs.write_text(json.dumps(pair) + "\n")
    runtime = RuntimeConfig(output_dir=str(folder / "dpo"), wandb=False)
    preference = StepPreferenceConfig(
        policy=policy, step_preferences=[str(pairs)], data=data, verifier="finishes"
    )
    with pytest.raises(ValueError, match=f"1 {SHARED}"):
        run_dpo(runtime, preference, evaluation, DPOConfig(output_dir=runtime.output_dir, **common))
