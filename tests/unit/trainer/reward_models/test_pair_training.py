"""Pairwise loss by hand, and preference and outcome models trained, calibrated and read back."""

from __future__ import annotations

import json
import math
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForTokenClassification, TrainingArguments

from data.types import StepLabels, StepPair
from rewards.models.opening import open_reward_model
from trainer.labels.pair_files import read_pairs
from trainer.models.loading import reward_model_from_policy, save_model
from trainer.reward_models.step_pairs import (
    PairCollator,
    last_margins,
    pair_dataset,
    pairwise_loss,
    train_on_pairs,
)
from trainer.runtime.config import RuntimeConfig
from trainer.stages.train_prm import RewardModelConfig, run_prm


@pytest.fixture(scope="module")
def policy(tiny_policy: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("policy")
    save_model(*tiny_policy, path)
    return str(path)


def arguments(folder: Path, **fields: Any) -> TrainingArguments:
    defaults: dict[str, Any] = {
        "report_to": "none", "use_cpu": True, "disable_tqdm": True, "save_strategy": "no",
        "lr_scheduler_type": "constant", "seed": 1, "logging_steps": 1,
    }  # fmt: skip
    return TrainingArguments(output_dir=str(folder), **{**defaults, **fields})


def pair(prompt: tuple[int, ...], chosen: int, rejected: int, weight: float = 1.0) -> StepPair:
    return StepPair(
        problem_id="p", prompt="?", chosen="x", rejected="y", prompt_token_ids=prompt,
        chosen_token_ids=(chosen,), rejected_token_ids=(rejected, rejected), chosen_value=1.0,
        rejected_value=0.0, weight=weight,
    )  # fmt: skip


def test_the_loss_by_hand() -> None:
    # Pairs (3, 1) of weight 1/4 and (0, 2) of weight 1: differences 2 and -2
    margins, weights = torch.tensor([3.0, 0.0, 1.0, 2.0]), torch.tensor([0.25, 1.0])
    first, second = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    summed = 0.25 * first + second
    assert float(pairwise_loss(margins, weights)) == pytest.approx(summed / 1.25)
    # Divided by the weight of the whole batch when this is a part of it
    assert float(pairwise_loss(margins, weights, torch.tensor(5.0))) == pytest.approx(summed / 5)
    # Raising every score of a pair changes nothing: the level is left open
    assert float(pairwise_loss(margins + 7, weights)) == pytest.approx(summed / 1.25, rel=1e-5)


def test_both_halves_are_read_at_their_last_tokens() -> None:
    rows = [
        {"chosen": [5, 6], "rejected": [5, 7, 8], "weight": 0.25},
        {"chosen": [4], "rejected": [3, 2], "weight": 1.0},
    ]
    batch = PairCollator(pad_token_id=0)(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 0], [4, 0, 0], [5, 7, 8], [3, 2, 0]]
    assert batch["weights"].tolist() == [0.25, 1.0]
    # logits (0, id) at every position
    logits = torch.stack([torch.zeros(4, 3), batch["input_ids"].float()], dim=-1)
    assert last_margins(logits, batch["attention_mask"]).tolist() == [6, 4, 8, 2]


@pytest.mark.slow
def test_micro_batches_change_nothing(tiny_policy: Any, policy: str, tmp_path: Path) -> None:
    pairs = [pair((5, 6 + i)[: 1 + i % 2], 8 + i, 20, weight=1 / (1 + i)) for i in range(8)]
    weights: list[Any] = []
    for batch, accumulation in ((8, 1), (2, 4)):
        torch.manual_seed(0)
        model = reward_model_from_policy(policy)
        # All eight pairs are one batch: the first loss is their weighted mean.
        whole = PairCollator(pad_token_id=0)(pair_dataset(pairs).to_list())
        with torch.inference_mode():
            logits = model(whole["input_ids"], attention_mask=whole["attention_mask"]).logits
        expected = pairwise_loss(last_margins(logits, whole["attention_mask"]), whole["weights"])
        trainer = train_on_pairs(
            model, tiny_policy[1], pairs,
            arguments(tmp_path / str(batch), max_steps=3, per_device_train_batch_size=batch,
                      gradient_accumulation_steps=accumulation, optim="sgd", learning_rate=0.1,
                      max_grad_norm=0.0),
        )  # fmt: skip
        assert trainer.state.log_history[0]["loss"] == pytest.approx(float(expected), rel=1e-3)
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    start = torch.cat([p.flatten() for p in reward_model_from_policy(policy).parameters()])
    assert (weights[0] - start).abs().max() > 1e-3
    assert torch.allclose(weights[0], weights[1], rtol=0, atol=1e-6)


def toy_rows(seed: int, n: int) -> list[StepPair]:
    """A step of token 8 is better than one of 9, whatever comes before."""
    draw = random.Random(seed)
    prompts = [tuple(draw.choices(range(10, 30), k=draw.randint(2, 6))) for _ in range(n)]
    return [pair(prompt, 8, 9) for prompt in prompts]


def write_rows(path: Path, rows: list[Any]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows))
    return str(path.parent)


def held_out(seed: int, n: int) -> list[StepLabels]:
    """Success rates of 3/4 after the good step and 1/4 after the bad one."""
    return [
        StepLabels(
            problem_id="p", prompt="?", prompt_ids=row.prompt_token_ids, completions=("x",),
            completion_ids=(ids,), labels=(label,), counts=(8,), standard_errors=(0.1,),
        )
        for row in toy_rows(seed, n)
        for ids, label in ((row.chosen_token_ids, 0.75), (row.rejected_token_ids, 0.25))
    ]  # fmt: skip


@pytest.mark.slow
def test_a_separable_preference_is_learnt_calibrated_and_read_back(
    policy: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    config = RewardModelConfig(
        model=policy, targets="pairs",
        preference_pairs=[write_rows(tmp_path / "pairs" / "step_pairs.jsonl", toy_rows(1, 64))],
        calibration_labels=[write_rows(tmp_path / "held" / "labels.jsonl", held_out(2, 32))],
    )  # fmt: skip
    run_prm(
        RuntimeConfig(output_dir=str(out), wandb=False), config,
        arguments(out, max_steps=60, per_device_train_batch_size=16, learning_rate=3e-3,
                  save_strategy="steps", save_steps=60),
    )  # fmt: skip
    assert not [*out.glob("checkpoint-*")]
    manifest = json.loads((out / "manifest.json").read_text())
    training, _, calibrating = manifest["usage"]["ledger"]
    sequences = toy_rows(1, 64)
    mean = sum(2 * len(row.prompt_token_ids) + 3 for row in sequences) / 128
    assert training["positions"] == round(60 * 16 * 2 * mean) and training["flops"] > 0
    assert (calibrating["model"], calibrating["sequences"]) == ("reward", 64)
    assert manifest["metrics"]["pairs"] == 64 and manifest["metrics"]["calibration_steps"] == 64
    loaded = open_reward_model(str(out), "cpu")
    assert loaded.convention == "thinktree" and loaded.token_model is not None
    unseen = toy_rows(3, 20)
    better, _ = loaded.token_model.score(
        [(*p.prompt_token_ids, 8) for p in unseen], [[len(p.prompt_token_ids)] for p in unseen]
    )
    worse, _ = loaded.token_model.score(
        [(*p.prompt_token_ids, 9, 9) for p in unseen],
        [[len(p.prompt_token_ids) + 1] for p in unseen],
    )
    assert all(b[0] > w[0] for b, w in zip(better, worse, strict=True))
    # Calibrated: the chances that the held-out rollouts had, though training left the level open.
    assert sum(b[0] for b in better) / 20 == pytest.approx(0.75, abs=0.03)
    assert sum(w[0] for w in worse) / 20 == pytest.approx(0.25, abs=0.03)
    # The plain model and the config say the same.
    written = json.loads((out / "config.json").read_text())
    model = AutoModelForTokenClassification.from_pretrained(out, dtype=torch.float32).eval()
    with torch.inference_mode():
        ids = [*unseen[0].prompt_token_ids, 8]
        low, high = model(input_ids=torch.tensor([ids])).logits[0, -1].tolist()
    z = (high - low) / written["thinktree_temperature"] + written["thinktree_bias"]
    assert better[0][0] == pytest.approx(1 / (1 + math.exp(-z)), abs=1e-5)
    assert written["thinktree_targets"] == "pairs"
    assert "after calibration" in (out / "README.md").read_text()


def test_scores_that_fall_with_the_labels_are_not_calibrated(policy: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    upside_down = [pair(p.prompt_token_ids, 9, 8) for p in toy_rows(1, 64)]
    config = RewardModelConfig(
        model=policy, targets="pairs",
        preference_pairs=[
            write_rows(tmp_path / "pairs" / "rows.jsonl", upside_down) + "/rows.jsonl"
        ],
        calibration_labels=[write_rows(tmp_path / "held" / "labels.jsonl", held_out(2, 32))],
    )  # fmt: skip
    with pytest.raises(ValueError, match="do not rise with the labels"):
        run_prm(
            RuntimeConfig(output_dir=str(out), wandb=False), config,
            arguments(out, max_steps=30, per_device_train_batch_size=16, learning_rate=3e-3,
                      save_strategy="steps", save_steps=30),
        )  # fmt: skip
    assert [*out.glob("checkpoint-30/checkpoint_manifest.json")]  # the training is not lost


def test_an_outcome_model_learns_from_the_last_labels_alone(policy: str, tmp_path: Path) -> None:
    """Finished solutions are right exactly if they begin with 8; step labels say the contrary."""
    end = 1

    def row(first: int, label: float, last: int = end) -> StepLabels:
        return StepLabels(
            problem_id="p", prompt="?", prompt_ids=(5, 6), completions=("x\n", "y"),
            completion_ids=((first,), (7, last)), labels=(1 - label, label), counts=(8, 8),
            standard_errors=(0.1, 0.1),
        )  # fmt: skip

    rows = [row(8, 1.0), row(9, 0.0), row(8, 0.0, last=7)]  # the last one is not finished
    out = tmp_path / "out"
    config = RewardModelConfig(
        model=policy, targets="outcome",
        labels=[write_rows(tmp_path / "labels" / "labels.jsonl", rows)],
    )  # fmt: skip
    run_prm(
        RuntimeConfig(output_dir=str(out), wandb=False), config,
        arguments(out, max_steps=40, per_device_train_batch_size=2, learning_rate=3e-3),
    )  # fmt: skip
    metrics = json.loads((out / "manifest.json").read_text())["metrics"]
    assert (metrics["rows"], metrics["rows_unfinished"], metrics["labelled_steps"]) == (2, 1, 2)
    loaded = open_reward_model(str(out), "cpu")
    assert loaded.ends_only and loaded.token_model is not None
    scores, _ = loaded.token_model.score([(5, 6, 8, 7, 1), (5, 6, 9, 7, 1)], [[4], [4]])
    assert scores[0][0] > 0.95 and scores[1][0] < 0.05
    described = tmp_path / "text.yaml"
    described.write_text(f"convention: thinktree_text\nmodel: {out}\n")
    with pytest.raises(ValueError, match="trained at the end token alone"):
        open_reward_model(str(described), "cpu")


def test_rows_of_text_are_tokenised(tiny_policy: Any, tmp_path: Path) -> None:
    tokenizer = tiny_policy[1]
    row = {"prompt": "1 2 -> 3\n", "chosen": "1 + 2 = 3 |\n", "rejected": "1 * 2 = 2 |\n"}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps({**row, "finished": True}) + "\n")
    step, solution = read_pairs([str(path)], tokenizer)
    assert tokenizer.decode(step.chosen_token_ids) == row["chosen"]
    assert step.prompt_token_ids == tuple(tokenizer.encode(row["prompt"]))
    path.rename(tmp_path / "solution_pairs.jsonl")
    (tmp_path / "step_pairs.jsonl").touch()  # an export that found no step to prefer
    assert read_pairs([str(tmp_path)], tokenizer) == [step, solution]
    assert solution.rejected_token_ids == (*step.rejected_token_ids, tokenizer.eos_token_id)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"chosen": None}, "chosen is absent"),
        ({"rejected_token_ids": [3, 999]}, "rejected_token_ids holds 999; it must hold token ids"),
        ({"rejected_token_ids": None}, "rejected_token_ids is absent"),
        ({"prompt_token_ids": []}, "prompt_token_ids is empty"),
        ({"rejected_token_ids": [8]}, "chosen and rejected are the same"),
        ({"weight": 0}, "weight is 0; it must be positive"),
        ({"chosen_value": 2}, "chosen_value is 2"),
        ({"chosen_token_ids": None, "chosen": "what?"}, "cannot be encoded"),
    ],
)
def test_a_bad_pair_names_file_and_line(
    tiny_policy: Any, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    good = {**asdict(pair((5, 6), 8, 9)), "prompt": "1", "chosen": "2", "rejected": "3"}
    path = tmp_path / "step_pairs.jsonl"
    path.write_text(json.dumps(good) + "\n\n" + json.dumps(good | changes) + "\n")
    with pytest.raises(ValueError, match=rf"step_pairs\.jsonl, line 3: .*{reason}"):
        read_pairs([str(tmp_path)], tiny_policy[1])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "labels is empty"),
        ({"labels": ["a"], "targets": "pair"}, "targets is 'pair'; allowed: steps, outcome, pairs"),
        (
            {"labels": ["a"], "preference_pairs": ["b"]},
            "preference_pairs is given, but targets is 'steps'",
        ),
        ({"labels": ["a"], "min_gap": 2.0}, "min_gap is 2.0"),
    ],
)
def test_bad_settings_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RewardModelConfig(model="m", **fields)
