"""SFT, a process reward model, search and PPO with the layout of each published family.

Three families by default; THINKTREE_FAMILIES=all, or a list such as phi,llama_3, names others.
"""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, TrainingArguments
from trl.trainer.sft_config import SFTConfig

from data.problems import write_demonstrations, write_problems
from data.types import Demonstration, Problem
from rewards.verifiers.by_name import VERIFIERS
from search.base import solution_ids, solution_text
from search.batcher import run_searches
from search.settings import SearchSettings
from search.strategies.mcts.config import MCTSConfig
from search.strategies.mcts.loop import search_mcts
from tests.unit.families import FAMILIES, family_folder
from trainer.ppo.config import PPOConfig
from trainer.rollouts.collect import RewardConfig
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.manifests import read_manifest
from trainer.searching.engines import load_engine
from trainer.stages.ppo import run_ppo
from trainer.stages.sft import PolicyConfig, run_sft
from trainer.stages.train_prm import RewardModelConfig, run_prm

ASKED = os.environ.get("THINKTREE_FAMILIES", "llama_2,gemma_3,qwen_3")
CHOSEN = list(FAMILIES) if ASKED == "all" else ASKED.split(",")
pytestmark = pytest.mark.slow
STEPS = ("Tom has 12 apples.\n", "He buys 30 more.\n", "So the answer is \\boxed{42}.")


def problems_of(folder: Path) -> list[Problem]:
    """Problems in the chat template, where the family has one."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    problems: list[Problem] = []
    for i in range(4):
        prompt = f"Tom has {i} apples and buys 4 more. How many has he?\n"
        if tokenizer.chat_template is not None:
            turn = [{"role": "user", "content": prompt.strip()}]
            prompt = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        problems.append(Problem(id=f"p{i}", prompt=prompt, answer=str(i + 4)))
    return problems


@pytest.fixture(params=CHOSEN)
def folder(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    base = family_folder(request.param, tmp_path / "base")
    problems = problems_of(base)
    data = tmp_path / "data"
    data.mkdir()
    for split in ("train", "validation", "test"):
        write_problems(data / f"{split}.jsonl", problems)
    solutions = [Demonstration(problem=p, solution="".join(STEPS)) for p in problems]
    write_demonstrations(data / "demonstrations.jsonl", solutions)
    row = {"completions": STEPS, "labels": [True, True, False], "finished": True}
    lines = [json.dumps({"prompt": p.prompt, **row}) + "\n" for p in problems]
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "labels.jsonl").write_text("".join(lines))
    return tmp_path


def training(folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder), "max_steps": 2, "per_device_train_batch_size": 4,
        "report_to": [], "bf16": False, "use_cpu": True, "learning_rate": 1e-3,
    }  # fmt: skip


def test_a_family_goes_through_the_loop(folder: Path) -> None:
    policy, prm, data = str(folder / "sft"), str(folder / "prm"), str(folder / "data")
    run_sft(
        RuntimeConfig(output_dir=policy),
        PolicyConfig(model=str(folder / "base"), data=data),
        SFTConfig(**training(folder / "sft"), gradient_checkpointing=False),
    )
    run_prm(
        RuntimeConfig(output_dir=prm),
        RewardModelConfig(model=policy, labels=[str(folder / "labels")]),
        TrainingArguments(**training(folder / "prm")),
    )
    assert read_manifest(prm)["metrics"]["labelled_steps"] == 12
    searched(policy, prm, problems_of(folder / "base"))
    run_ppo(
        RuntimeConfig(output_dir=str(folder / "ppo")),
        PPOConfig(
            policy=policy, data=data, reward_model=prm, verifier="math", cycles=2,
            problems_per_cycle=2, samples_per_problem=4, max_new_tokens=12, epochs=1,
            minibatches=1, micro_batch_size=8, evaluation_problems=0,
        ),
        RewardConfig(),
    )  # fmt: skip
    rows = (folder / "ppo" / "metrics.jsonl").read_text().splitlines()
    # The first update of a cycle starts from the policy that sampled: its ratio is 1.
    assert len(rows) == 2


def searched(policy: str, prm: str, problems: list[Problem]) -> None:
    """The texts of the steps join to the text of the solution, and search gives an answer."""
    engine, scorer = load_engine(policy, prm, seed=1, device=torch.device("cpu"))
    settings = SearchSettings(max_step_tokens=16, max_new_tokens=32, max_depth=4)
    results = run_searches(
        problems, partial(search_mcts, config=MCTSConfig(budgets=(4,))), engine=engine,
        scorer=scorer, verify=VERIFIERS["math"]().verify, settings=settings,
    )  # fmt: skip
    seen = 0
    for result in results:
        assert result.snapshots[-1].answer is not None
        for node in result.nodes[1:]:
            ids = solution_ids(result.nodes, node.id)
            assert solution_text(result.nodes, node.id) == engine.decode(ids)
            seen += 1
    assert seen > 8
