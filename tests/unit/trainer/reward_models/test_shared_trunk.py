"""A reward model on the policy's trunk: the loss by hand, and what training does to the policy."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from data.types import StepLabels
from rewards.models.folders import load_reward_model
from rewards.models.vocabulary import NEVER
from trainer.models.loading import load_policy, reward_model_from_policy, save_model
from trainer.models.lora import LoraSettings
from trainer.reward_models.shared_trunk import (
    KeptPolicy,
    SharedTrunkCollator,
    divergence,
    keep_policy,
)
from trainer.runtime.config import RuntimeConfig
from trainer.stages.train_prm import RewardModelConfig, run_prm

from ...families import family_folder

ROW = StepLabels(
    problem_id="p", prompt="", prompt_ids=(5, 6, 7), completions=("", ""),
    completion_ids=((8, 9), (10, 1)), labels=(0.25, 1.0), counts=(4, 4),
    standard_errors=(0.1, 0.1),
)  # fmt: skip
IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 1]])


def test_the_divergence_by_hand() -> None:
    before = torch.tensor([[0.0, math.log(3.0), NEVER], [1.0, 1.0, 1.0]])
    after = torch.tensor([[0.0, 0.0, 5.0], [1.0, 1.0, 1.0]], requires_grad=True)
    # The third token is never sampled, and the second row did not change.
    # 1/4 log(1/4 : 1/2) + 3/4 log(3/4 : 1/2)
    expected = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    found = divergence(before, after)
    assert found.item() == pytest.approx(expected)
    found.backward()
    # The gradient of KL by the logits is the difference of the probabilities, after minus before.
    assert after.grad is not None
    torch.testing.assert_close(after.grad, torch.tensor([[0.25, -0.25, 0.0], [0.0, 0.0, 0.0]]))


def test_the_positions_before_the_solutions_tokens() -> None:
    rows = [
        {"input_ids": [5, 6, 7, 8], "labels": [-100.0, -100.0, -100.0, 1.0], "prompt_length": 2},
        {"input_ids": [5, 6], "labels": [-100.0, 0.5], "prompt_length": 1},
    ]
    batch = SharedTrunkCollator(pad_token_id=0)(rows)
    assert batch["solution"].tolist() == [[0, 1, 1, 0], [1, 0, 0, 0]]


@pytest.mark.parametrize("name", ["llama_3", "gemma_3", "qwen_3"])
def test_an_untrained_trunk_gives_the_policys_own_logits(name: str, tmp_path: Path) -> None:
    """Tied and untied heads, and logits with a soft cap."""
    folder = str(family_folder(name, tmp_path))
    kept = keep_policy(folder, 1.0, "cpu")
    classifier = reward_model_from_policy(folder).eval()
    with torch.inference_mode():
        hidden_TD = classifier(IDS, output_hidden_states=True).hidden_states[-1][0]
        same = kept.logits_after(classifier, hidden_TD)
        own = kept.model(IDS).logits[0]
    sampled = own > NEVER
    torch.testing.assert_close(same[sampled], own[sampled], atol=1e-5, rtol=1e-5)


def train(policy: Any, folder: Path, **settings: Any) -> Path:
    save_model(*policy, folder / "policy")
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    (folder / "labels" / "labels.jsonl").write_text(json.dumps(asdict(ROW)) + "\n")
    out = folder / "prm"
    run_prm(
        RuntimeConfig(output_dir=str(out), seed=1),
        RewardModelConfig(
            model=str(folder / "policy"), labels=[str(folder / "labels")], **settings
        ),
        TrainingArguments(
            output_dir=str(out), max_steps=60, report_to="none", use_cpu=True, save_strategy="no",
            learning_rate=3e-3, lr_scheduler_type="constant", disable_tqdm=True,
        ),
    )  # fmt: skip
    return out


def logprobs(policy: Any) -> torch.Tensor:
    """Of every token, after the prompt's last token and after the solution's first three."""
    with torch.inference_mode():
        return torch.log_softmax(policy.eval()(input_ids=IDS).logits[0, 2:6].float(), -1)


def correct(folder: Path) -> list[float]:
    with torch.inference_mode():
        logits_TC = load_reward_model(str(folder)).eval()(input_ids=IDS).logits[0]
    return torch.softmax(logits_TC, -1)[[4, 6], 1].tolist()


def flops(folder: Path) -> float:
    manifest = json.loads((folder / "manifest.json").read_text())
    return sum(entry["flops"] for entry in manifest["usage"]["ledger"])


@pytest.mark.slow
def test_a_shared_trunk_learns_the_labels_and_keeps_the_policy(
    tiny_policy: Any, tmp_path: Path
) -> None:
    before = logprobs(tiny_policy[0])
    changes: dict[float, float] = {}
    for weight in (0.0, 10.0):
        out = train(tiny_policy, tmp_path / str(weight), trunk="shared", policy_weight=weight)
        policy, tokenizer = load_policy(str(out / "policy"))
        changes[weight] = float((before.exp() * (before - logprobs(policy))).sum())
        assert correct(out) == pytest.approx([0.25, 1.0], abs=0.1)
        trunk = load_reward_model(str(out)).base_model.state_dict()
        for name, weights in policy.base_model.state_dict().items():
            assert torch.equal(weights, trunk[name]), name
        assert tokenizer.get_vocab() == tiny_policy[1].get_vocab()
        assert "The folder `policy` holds the policy" in (out / "README.md").read_text()
    assert changes[10.0] < 0.02 < 0.1 < changes[0.0]


@pytest.mark.slow
def test_a_frozen_trunk_is_the_policys(tiny_policy: Any, tmp_path: Path) -> None:
    out = train(tiny_policy, tmp_path, trunk="frozen")
    before = load_policy(str(tmp_path / "policy"))[0].base_model.state_dict()
    after = load_reward_model(str(out)).base_model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert correct(out) != pytest.approx(correct(train(tiny_policy, tmp_path / "own")), abs=1e-3)
    assert not (out / "policy").exists()


@pytest.mark.slow
def test_what_the_trunks_cost(tiny_policy: Any, tmp_path: Path) -> None:
    """One forward pass; with backward passes three; and with the old policy and its head more."""
    frozen, own, shared = (
        flops(train(tiny_policy, tmp_path / trunk, trunk=trunk))
        for trunk in ("frozen", "own", "shared")
    )
    width, vocabulary = tiny_policy[0].get_output_embeddings().weight.shape[::-1]
    head, rows, tokens = 2 * width + 2, 60 * 1, len(ROW.prompt_ids) + 4
    assert frozen == pytest.approx(own / 3 + 4 * head * rows * tokens, rel=0.02)
    policys_head = 2 * width * vocabulary
    forward = own / 3 + rows * tokens * (policys_head - 2 * head)  # of the old policy
    assert shared == pytest.approx(own + forward + 3 * rows * 4 * policys_head, rel=1e-3)


def test_what_no_trunk_can_be_shared_with(tiny_policy: Any, tmp_path: Path) -> None:
    own = train(tiny_policy, tmp_path)
    save_model(*tiny_policy, tmp_path / "policy")
    with pytest.raises(ValueError, match=r"is a reward model \(LlamaForTokenClassification\)"):
        run_prm(
            RuntimeConfig(output_dir=str(tmp_path / "other"), seed=1),
            RewardModelConfig(model=str(own), labels=[str(tmp_path / "labels")], trunk="shared"),
            TrainingArguments(output_dir=str(tmp_path / "other"), use_cpu=True),
        )
    with pytest.raises(ValueError, match="trunk is 'mine'; allowed: own, shared, frozen"):
        RewardModelConfig(model="m", labels=["l"], trunk="mine")
    with pytest.raises(ValueError, match="trunk is 'shared', but targets is 'pairs'"):
        RewardModelConfig(model="m", labels=["l"], trunk="shared", targets="pairs")


def test_zero_3_cannot_share_a_trunk(tiny_policy: Any, tmp_path: Path) -> None:
    from transformers.integrations import HfDeepSpeedConfig
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    kept = HfDeepSpeedConfig({"zero_optimization": {"stage": 3}})  # as a launch with ZeRO-3 has it
    try:
        with pytest.raises(ValueError, match="ZeRO-3 divides the weights of the policy's head"):
            train(tiny_policy, tmp_path, trunk="shared")
    finally:
        unset_hf_deepspeed_config()
    assert kept.is_zero3()
    assert not (tmp_path / "prm" / "model.safetensors").exists()


def test_an_adapter_cannot_share_a_trunk(tiny_policy: Any, tmp_path: Path) -> None:
    train(tiny_policy, tmp_path)
    with pytest.raises(ValueError, match="trunk is 'frozen', but lora_rank is 4"):
        run_prm(
            RuntimeConfig(output_dir=str(tmp_path / "out"), seed=1),
            RewardModelConfig(
                model=str(tmp_path / "policy"), labels=[str(tmp_path / "labels")], trunk="frozen"
            ),
            TrainingArguments(output_dir=str(tmp_path / "out"), use_cpu=True, report_to="none"),
            LoraSettings(lora_rank=4),
        )


def test_the_kept_policy_has_no_gradients(tiny_policy: Any, tmp_path: Path) -> None:
    save_model(*tiny_policy, tmp_path)
    kept: KeptPolicy = keep_policy(str(tmp_path), 1.0, "cpu")
    assert not any(p.requires_grad for p in kept.model.parameters())
