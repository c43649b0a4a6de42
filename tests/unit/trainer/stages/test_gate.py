"""The gate stage on two tiny policies: one that ends every solution at once, and one that never
ends within the limit. The folder is the policy that won."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from data.types import Outcome, Problem, Verdict
from rewards.verifiers.by_name import VERIFIERS
from tests.unit.trainer.conftest import Workshop
from trainer.models.compatibility import check_policy
from trainer.models.loading import build_policy, load_policy, save_model
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.gates import GateConfig
from trainer.runtime.manifests import read_manifest, write_manifest
from trainer.stages.gate import GateStageConfig, run_gate

SMALL = {
    "model_type": "llama", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
    "num_attention_heads": 2, "tie_word_embeddings": True, "max_position_embeddings": 64,
}  # fmt: skip


class Ends:
    """Every solution that ends within the limit is right."""

    def verify(self, problem: Problem, solution: str) -> Verdict:
        return Verdict(outcome=Outcome.CORRECT)


def policy_that_says(token: str, folder: Path) -> Path:
    """Without attention and MLP, a hidden state is its token's embedding. All embeddings point in
    one direction, so the longest row has the largest logit."""
    model, tokenizer = build_policy(SMALL, "numbers", 40)
    said = tokenizer.eos_token_id if token == "end" else tokenizer.convert_tokens_to_ids(token)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.fill_(1.0)
        model.model.embed_tokens.weight[said] = 2.0
    save_model(model, tokenizer, folder)
    return folder


@pytest.fixture
def folder(ppo: Workshop, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`ends` and `talks` are policies, `data` has 8 validation problems."""
    monkeypatch.setitem(VERIFIERS, "ends", Ends)
    policy_that_says("end", ppo.folder / "ends")
    policy_that_says("7", ppo.folder / "talks")
    return ppo.folder


def gate(
    folder: Path, incumbent: str, candidate: str, *, out: str = "gate", **changes: Any
) -> Path:
    config = GateStageConfig(
        incumbent=str(folder / incumbent), candidate=str(folder / candidate),
        data=str(folder / "data"), verifier="ends",
    )  # fmt: skip
    values: dict[str, Any] = {"gate_problems": 5, "max_new_tokens": 4} | changes
    runtime = RuntimeConfig(output_dir=str(folder / out), wandb=False)
    run_gate(runtime, config, GateConfig(**values))
    return folder / out


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_the_better_candidate_becomes_the_policy(folder: Path) -> None:
    out = gate(folder, "talks", "ends")
    manifest = read_manifest(out)
    found = manifest["metrics"]["gate"]
    assert (found["wins"], found["losses"], found["n"]) == (5, 0, 5)
    assert found["p_value"] == pytest.approx(1 / 32)  # five heads in five tosses
    assert (found["incumbent_accuracy"], found["candidate_accuracy"]) == (0.0, 1.0)
    assert found["accepted"] and manifest["metrics"]["updates"] == 0
    assert weights(out) == weights(folder / "ends")
    check_policy(str(out))
    load_policy(str(out))
    # Each of the five problems: four tokens of the incumbent, one of the candidate.
    ledger = manifest["usage"]["ledger"]
    spent = [row["generated_tokens"] for row in ledger if row["model"] == "policy"]
    assert spent == [20, 5] and all(row["kind"] == "search" for row in ledger)
    assert set(manifest["inputs"]) == {"incumbent", "candidate", "data"}
    answers = sorted(path.name for path in (out / "gate").iterdir())
    assert answers == ["candidate_greedy.jsonl", "incumbent_greedy.jsonl"]


def test_the_incumbent_stays_without_the_records_of_its_own_stage(folder: Path) -> None:
    for name in (".begun.json", "metrics.jsonl", "trainer_state.json"):
        (folder / "ends" / name).write_text("{}\n")
    (folder / "ends" / "critic").mkdir()
    write_manifest(folder / "ends", stage="ppo", recipe={}, seed=1)
    out = gate(folder, "ends", "talks")
    found = read_manifest(out)["metrics"]["gate"]
    assert not found["accepted"] and found["p_value"] == 1.0 and found["losses"] == 5
    assert weights(out) == weights(folder / "ends")
    names = {path.name for path in out.iterdir()}
    assert not names & {"metrics.jsonl", "trainer_state.json", "critic"}
    assert read_manifest(out)["stage"] == "gate"
    assert json.loads((out / ".begun.json").read_text())["gate_problems"] == 5
    with pytest.raises(SystemExit) as stop:  # it is complete, and was made with these settings
        gate(folder, "ends", "talks")
    assert stop.value.code == 0


def test_four_wins_are_too_few(folder: Path) -> None:
    out = gate(folder, "talks", "ends", gate_problems=4)  # p = 1/16
    assert weights(out) == weights(folder / "talks")


def test_a_gate_refuses_the_problems_of_every_gate_behind_it(folder: Path) -> None:
    write_manifest(folder / "data", stage="data", recipe={}, seed=1)
    first = gate(folder, "talks", "ends", out="gate_1")
    shutil.copytree(folder / "talks", folder / "ppo_2")
    inputs = {"policy": first, "data": folder / "data"}
    write_manifest(folder / "ppo_2", stage="ppo", recipe={}, seed=1, inputs=inputs)
    said = r"uses validation problems 3\.\.7; the gate of '[^']*gate_1', .* used 0\.\.4\."
    with pytest.raises(ValueError, match=said):
        gate(folder, "ends", "ppo_2", out="gate_2", gate_skip=3)  # behind the candidate
    with pytest.raises(ValueError, match=said):
        gate(folder, "gate_1", "talks", out="gate_3", gate_skip=3)  # the incumbent itself
    gate(folder, "gate_1", "ppo_2", out="gate_4", gate_skip=5, gate_problems=3)


def test_mistakes_are_named(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"candidate and incumbent are both '.*ends': name two"):
        gate(folder, "ends", "ends")
    with pytest.raises(ValueError, match=r"there is no model '.*absent'"):
        gate(folder, "ends", "absent")
    assert not (folder / "gate").exists()
    with pytest.raises(ValueError, match=r"wants 9 validation problems from 0 on, .* only 8"):
        gate(folder, "ends", "talks", gate_problems=9)
    with pytest.raises(ValueError, match="gate_problems is 0; it must be at least 1"):
        GateConfig(gate_problems=0, max_new_tokens=4)
    with pytest.raises(ValueError, match=r"gate_p_value is 5\.0; allowed: above 0, up to 1"):
        GateConfig(gate_p_value=5.0, max_new_tokens=4)
