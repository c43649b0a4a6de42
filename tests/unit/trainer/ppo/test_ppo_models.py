"""PPO's models: adapters, precision, memory, and the folders that actor and critic end in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForTokenClassification
from transformers.models.llama.modeling_llama import LlamaMLP

from rewards.models.calibration import write_temperature
from trainer.models.loading import build_policy, load_policy, save_model
from trainer.models.sharding import open_accelerator
from trainer.ppo.critic_folders import build_critic
from trainer.ppo.loop import PPORun
from trainer.ppo.metrics import CycleRecord
from trainer.ppo.models import build_models
from trainer.ppo.update import Learner
from trainer.rollouts.files import ROLLOUTS

pytestmark = pytest.mark.slow

IDS = torch.tensor([[5, 6, 7, 8, 9]])
MASK = torch.ones_like(IDS)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[PPORun]:
    """The runs whose models were saved."""
    runs: list[PPORun] = []
    save = PPORun.save

    def noted(self: PPORun) -> None:
        runs.append(self)
        save(self)

    monkeypatch.setattr(PPORun, "save", noted)
    return runs


@pytest.fixture
def other_precision() -> Iterator[None]:
    """accelerate refuses to change the precision of a process; tests may."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("lora_rank", [0, 2])
@pytest.mark.parametrize("start", ["reward_model", "policy"])
def test_the_critic_is_kept_and_starts_another_run(
    ppo: Any, kept: list[PPORun], start: str, lora_rank: int
) -> None:
    write_temperature(ppo.folder / "prm", 2.0, bias=1.5)
    config = ppo.config(
        critic=start, reward_model=str(ppo.folder / "prm"), lora_rank=lora_rank, cycles=2,
        critic_learning_rate=1e-2,
    )  # fmt: skip
    folder = ppo.run("first", config) / "critic"
    trained = kept[0].models.actor_critic.critic.eval()
    again = build_critic(str(folder), config.policy, None).eval()
    first = build_critic(start, config.policy, config.reward_model).eval()
    plain: Any = AutoModelForTokenClassification.from_pretrained(folder)
    with torch.no_grad():
        expected, found, before = (critic(IDS, MASK) for critic in (trained, again, first))
        logits = plain.eval()(input_ids=IDS, attention_mask=MASK).logits
    values = logits[..., -1]
    if start == "reward_model":
        assert list(plain.config.id2label.values()) == ["incorrect", "correct", "value"]
        correct = logits[..., 1] - logits[..., 0]
        values = values + torch.sigmoid(correct / 2.0 + 1.5)
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.allclose(values, expected, atol=1e-6)
    assert (found - before).abs().max() > 1e-3  # what training made of it
    ppo.run("second", ppo.config(critic=str(folder), cycles=1))
    if lora_rank:
        assert (folder / "adapter" / "adapter_model.safetensors").is_file()
        backbone: Any = AutoModel.from_pretrained(
            config.reward_model if start == "reward_model" else config.policy
        )
        adapted = PeftModel.from_pretrained(backbone, folder / "adapter").merge_and_unload()
        gaps = [
            (adapted.state_dict()[name] - value).abs().max()
            for name, value in again.backbone.state_dict().items()
        ]
        assert max(gaps) < 1e-6


def test_adapter_and_merged_policy_say_the_same(ppo: Any, kept: list[PPORun]) -> None:
    out = ppo.run("lora", ppo.config(lora_rank=2, learning_rate=1e-2, cycles=2))
    base = AutoModelForCausalLM.from_pretrained(ppo.folder / "policy")
    with torch.no_grad():
        before = base(IDS).logits
        merged = load_policy(str(out))[0](IDS).logits
        adapted = PeftModel.from_pretrained(base, str(out / "adapter"))(IDS).logits
        trained = kept[0].models.actor_critic.policy.eval()(IDS).logits
    assert torch.allclose(merged, trained, atol=1e-5) and torch.allclose(
        adapted, trained, atol=1e-5
    )
    assert (merged - before).abs().max() > 1e-3


@pytest.mark.slow
def test_an_adapter_run_that_was_cut_off_ends_the_same(
    ppo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ppo.config(lora_rank=2, learning_rate=1e-3, gradient_checkpointing=True)
    whole = ppo.run("whole", config)
    report = PPORun._report

    def dies(self: PPORun, record: CycleRecord, *rest: Any) -> None:
        report(self, record, *rest)
        if record.cycle == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(PPORun, "_report", dies)
    with pytest.raises(KeyboardInterrupt):
        ppo.run("cut", config)
    monkeypatch.setattr(PPORun, "_report", report)
    again = ppo.run("cut", config)
    assert ppo.metrics(again) == ppo.metrics(whole)
    for name in (
        "model.safetensors",
        "critic/model.safetensors",
        "adapter/adapter_model.safetensors",
    ):
        assert (again / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_gradient_checkpointing_computes_again_what_it_did_not_keep(
    ppo: Any, monkeypatch: pytest.MonkeyPatch, lora_rank: int
) -> None:
    calls: list[int] = []
    forward = LlamaMLP.forward

    def counted(self: Any, x: Any) -> Any:
        calls[-1] += 1
        return forward(self, x)

    monkeypatch.setattr(LlamaMLP, "forward", counted)
    found: list[Path] = []
    for checkpointing in (False, True):
        calls.append(0)
        config = ppo.config(
            gradient_checkpointing=checkpointing, lora_rank=lora_rank, cycles=2,
            learning_rate=1e-3, evaluation_problems=0,
        )  # fmt: skip
        found.append(ppo.run(f"checkpointing-{checkpointing}", config))
    assert calls[1] > calls[0]
    for one, two in zip(*map(ppo.metrics, found), strict=True):
        for name in ("policy_loss", "value_loss", "kl", "grad_norm"):
            assert two[name] == pytest.approx(one[name], abs=1e-6), name
    one, two = (load_file(out / "model.safetensors") for out in found)
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)


def test_in_bfloat16_weights_stay_fp32_and_first_ratios_1(ppo: Any, other_precision: None) -> None:
    """With the micro-batches of the first epoch; how far from 1 others are says the next test."""
    config = ppo.config(bf16=True, learning_rate=1e-3, record_rollouts=True)
    out = ppo.run("bf16", config)
    for row in ppo.metrics(out):
        assert row["first_ratio_error"] == 0.0
    assert ppo.metrics(out)[0]["kl"] == 0.0  # the reference computes as the policy does
    for folder in (out, out / "critic"):
        assert {v.dtype for v in load_file(folder / "model.safetensors").values()} == {
            torch.float32
        }
    before, after = (load_file(f / "model.safetensors") for f in (ppo.folder / "policy", out))
    moved = max(float((before[name] - after[name]).abs().max()) for name in before)
    assert 1e-4 < moved < 1e-1


def test_in_bfloat16_other_micro_batches_bound_the_ratio(ppo: Any, other_precision: None) -> None:
    """|log ratio| of single rows against batches of 8 is at most 2^-5, a few roundings of logits
    near 8 (bfloat16 has 8 bits); in fp32 it is below 1e-5."""
    from trainer.ppo.batch import make_batch
    from trainer.rollouts.files import read_rollouts

    rollouts = read_rollouts(
        ppo.run("bf16", ppo.config(bf16=True, cycles=1, record_rollouts=True)) / ROLLOUTS
    )[0]
    errors: list[float] = []
    for bf16 in (True, False):
        AcceleratorState._reset_state(reset_partial_state=True)
        accelerator = open_accelerator(
            micro_steps=1, micro_batch_size=8, max_grad_norm=1.0, bf16=bf16
        )
        models = build_models(ppo.config(), accelerator)
        batch = make_batch(rollouts, models.tokenizer.pad_token_id, 1.0, torch.device("cpu"))
        logprobs = []
        for size in (8, 1):
            learner = Learner(
                accelerator=accelerator, model=models.prepared, optimizer=models.optimizer,
                reference=models.reference_logprobs, config=ppo.config(micro_batch_size=size),
                pad_token_id=models.tokenizer.pad_token_id, seed=1,
            )  # fmt: skip
            filled, _ = learner.evaluate_old(batch, torch.arange(len(batch)))
            logprobs.append(filled.logprobs_BP)
        errors.append(float((logprobs[0] - logprobs[1]).abs().max()))
    assert errors[0] <= 2**-5 and errors[1] < 1e-5


def test_a_policy_kept_in_bfloat16_is_trained_in_fp32(ppo: Any) -> None:
    policy, tokenizer = load_policy(str(ppo.folder / "policy"), torch.bfloat16)
    save_model(policy, tokenizer, ppo.folder / "half")
    config = ppo.config(policy=str(ppo.folder / "half"), cycles=1, learning_rate=1e-5)
    out = ppo.run("out", config)
    before, after = (load_file(f / "model.safetensors") for f in (ppo.folder / "half", out))
    assert {value.dtype for value in before.values()} == {torch.bfloat16}
    changed = sum(int((after[name] != before[name].float()).sum()) for name in before)
    assert changed > 0.5 * sum(
        value.numel() for value in after.values()
    )  # bf16 would round it away


def test_models_of_other_tokens_are_refused(ppo: Any, tiny_policy: Any, kept: list[PPORun]) -> None:
    config = tiny_policy[0].config.to_dict()
    other = {k: config[k] for k in ("model_type", "hidden_size", "intermediate_size",
             "num_hidden_layers", "num_attention_heads", "num_key_value_heads")}  # fmt: skip
    save_model(*build_policy(other, "characters", 40), ppo.folder / "other")
    critic = ppo.run("first", ppo.config(policy=str(ppo.folder / "other"), cycles=1)) / "critic"
    with pytest.raises(ValueError, match=r"critic '.*critic' and the policy do not share one tok"):
        ppo.run("a", ppo.config(critic=str(critic)))
    with pytest.raises(ValueError, match=r"reference '.*other' and the policy do not share one"):
        ppo.run("b", ppo.config(reference=str(ppo.folder / "other")))
    for file in critic.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ValueError, match=r"critic '.*' has \d+ tokens, the policy has \d+"):
        ppo.run("c", ppo.config(critic=str(critic)))
    with pytest.raises(ValueError, match="does not hold a critic of an earlier run"):
        ppo.run("d", ppo.config(critic=str(ppo.folder / "prm")))
    with pytest.raises(ValueError, match="the policy without adapters is the"):
        ppo.config(reference=str(ppo.folder / "policy"), lora_rank=2)


def test_a_reference_of_its_own_is_what_divergence_is_measured_from(ppo: Any) -> None:
    first = ppo.run("first", ppo.config(cycles=2, learning_rate=1e-2))
    second = ppo.run(
        "second", ppo.config(policy=str(first), cycles=1, reference=str(ppo.folder / "policy"))
    )
    assert ppo.metrics(second)[0]["kl"] != 0.0
    recipe = json.loads((second / "manifest.json").read_text())
    assert "reference" in recipe["inputs"] and "critic" not in recipe["inputs"]
