"""Losses by hand, and training on real tiny models."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from data.types import Demonstration, Problem, StepLabels, TokenRow
from rewards.models.folders import load_reward_model
from trainer.models.loading import load_policy, reward_model_from_policy, save_model
from trainer.reward_models.step_labels import (
    IGNORED,
    StepLabelCollator,
    label_dataset,
    soft_cross_entropy,
    train_prm,
)
from trainer.training.token_rows import demonstration_rows, token_dataset, train_on_rows
from trainer.training.trained import training_cost


def arguments(kind: Any, folder: Path, **fields: Any) -> Any:
    return kind(
        output_dir=str(folder), bf16=False, gradient_checkpointing=False, report_to=[],
        use_cpu=True, disable_tqdm=True, logging_steps=1, seed=1, lr_scheduler_type="constant",
        **fields,
    )  # fmt: skip


def test_soft_cross_entropy_by_hand() -> None:
    # P(correct) = 3/4 at the first position; the second is ignored; 1/2 at the third
    logits = torch.tensor([[[0.0, math.log(3.0)], [5.0, -5.0], [1.0, 1.0]]])
    labels = torch.tensor([[0.8, IGNORED, 0.0]])
    first = -(0.8 * math.log(3 / 4) + 0.2 * math.log(1 / 4))
    expected = (first + math.log(2)) / 2
    assert float(soft_cross_entropy(logits, labels)) == pytest.approx(expected)
    # Divided by the global count when the batch is one of several.
    assert float(soft_cross_entropy(logits, labels, torch.tensor(8))) == pytest.approx(expected / 4)
    assert float(soft_cross_entropy(logits, torch.full((1, 3), IGNORED))) == 0.0


def test_a_pooled_prefix_weighs_as_much_as_its_rollouts() -> None:
    """Three distinct solutions share a prefix, and two of them are right. Each is a row with the
    label 2/3, and the three losses add up to the binomial one: -(2 log P + 1 log(1 - P)). The loss
    must therefore not be multiplied by the number of rollouts again."""
    logits = torch.tensor([[[0.0, math.log(3.0)]]]).expand(3, 1, 2)
    labels = torch.full((3, 1), 2 / 3)
    summed = soft_cross_entropy(logits, labels, torch.tensor(1))
    assert float(summed) == pytest.approx(-(2 * math.log(3 / 4) + math.log(1 / 4)))


def step_row(*labels: float) -> StepLabels:
    return StepLabels(
        problem_id="p", prompt="?", prompt_ids=(5, 6), completions=("a", "b"),
        completion_ids=((7, 8), (9, 10, 11)), labels=labels, counts=(8, 8),
        standard_errors=(0.1, 0.1),
    )  # fmt: skip


def test_labels_stand_at_the_last_token_of_each_step() -> None:
    rows = label_dataset([step_row(0.25, 1.0)])
    assert rows[0] == {
        "input_ids": [5, 6, 7, 8, 9, 10, 11],
        "labels": [IGNORED] * 3 + [0.25] + [IGNORED] * 2 + [1.0],
        "prompt_length": 2,
    }
    batch = StepLabelCollator(pad_token_id=0)([rows[0], {"input_ids": [4], "labels": [0.5]}])
    assert batch["input_ids"][1].tolist() == [4, 0, 0, 0, 0, 0, 0]
    assert batch["attention_mask"].sum(1).tolist() == [7, 1]
    assert batch["labels"][1].tolist() == [0.5] + [IGNORED] * 6
    assert batch["labels"].dtype == torch.float32


def test_demonstrations_end_with_the_end_token_and_the_prompt_bears_no_loss(
    tiny_policy: Any,
) -> None:
    tokenizer = tiny_policy[1]
    problem = Problem(id="p", prompt="1 2 -> 3\n", answer="3")
    [row] = demonstration_rows([Demonstration(problem=problem, solution="1 + 2 = 3 |")], tokenizer)
    assert row.completion_ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(row.completion_ids[:-1]) == "1 + 2 = 3 |"
    [example] = token_dataset([row])
    prompt = len(row.prompt_ids)
    assert example["labels"][:prompt] == [-100] * prompt
    assert example["labels"][prompt:] == list(row.completion_ids)


def test_sft_learns_a_row_by_heart_and_ignores_the_prompt(tiny_policy: Any, tmp_path: Path) -> None:
    from trl.trainer.sft_config import SFTConfig

    save_model(*tiny_policy, tmp_path / "start")
    model, tokenizer = load_policy(str(tmp_path / "start"))
    rows = [TokenRow(prompt_ids=(5, 6, 7), completion_ids=(8, 9, tokenizer.eos_token_id))] * 8
    trainer = train_on_rows(
        model, tokenizer, rows,
        arguments(SFTConfig, tmp_path / "out", max_steps=60, per_device_train_batch_size=4,
                  learning_rate=1e-2, max_length=None, save_strategy="no"),
    )  # fmt: skip
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    # The first loss is the mean over the completion's tokens, worked out without the trainer.
    start, _ = load_policy(str(tmp_path / "start"))
    with torch.inference_mode():
        logits = start(input_ids=torch.tensor([[*rows[0].prompt_ids, *rows[0].completion_ids]]))
    logprobs = torch.log_softmax(logits.logits[0].float(), -1)
    target = list(enumerate(rows[0].completion_ids, start=2))
    expected = -sum(float(logprobs[at, token]) for at, token in target) / len(target)
    assert losses[0] == pytest.approx(expected, abs=1e-3)
    assert losses[-1] < 0.01
    tokens, flops = training_cost(trainer, rows)
    assert tokens == 60 * 4 * 6
    matrices = sum(p.numel() for p in model.parameters() if p.dim() == 2)  # the head is tied
    assert 6 * tokens * matrices < flops < 6.6 * tokens * matrices  # and a little attention


@pytest.mark.slow
def test_prm_learns_soft_labels_and_reads_back(tiny_policy: Any, tmp_path: Path) -> None:
    from transformers import TrainingArguments, pipeline

    save_model(*tiny_policy, tmp_path / "start")
    torch.manual_seed(0)
    model = reward_model_from_policy(str(tmp_path / "start"))
    trainer = train_prm(
        model, tiny_policy[1], [step_row(0.25, 1.0)] * 8,
        arguments(TrainingArguments, tmp_path / "out", max_steps=150, save_strategy="no",
                  per_device_train_batch_size=4, learning_rate=3e-3),
    )  # fmt: skip
    # The entropy of a label of 1/4 is the floor of its loss; half of the labels have it.
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] == pytest.approx(entropy / 2, abs=0.02)
    trainer.save_model(str(tmp_path / "prm"))
    tiny_policy[1].save_pretrained(tmp_path / "prm")
    again = load_reward_model(str(tmp_path / "prm")).eval()
    ids = [5, 6, 7, 8, 9, 10, 11]
    with torch.inference_mode():
        correct = torch.softmax(again(input_ids=torch.tensor([ids])).logits[0], -1)[:, 1]
    assert float(correct[3]) == pytest.approx(0.25, abs=0.05)
    assert float(correct[6]) == pytest.approx(1.0, abs=0.05)
    # transformers' own pipeline reads the same folder and says the same.
    text = tiny_policy[1].decode(ids)
    assert tiny_policy[1].encode(text) == ids
    reader = pipeline("token-classification", model=str(tmp_path / "prm"), ignore_labels=[])
    last = reader(text)[-1]
    assert last["entity"] == "correct"
    assert last["score"] == pytest.approx(float(correct[6]), abs=1e-4)


def test_accumulated_batches_have_the_gradient_of_the_whole(
    tiny_policy: Any, tmp_path: Path
) -> None:
    from transformers import TrainingArguments

    save_model(*tiny_policy, tmp_path / "start")
    rows = [step_row(i / 8, 1 - i / 8) for i in range(8)]
    weights: list[Any] = []
    for batch, accumulation in ((8, 1), (2, 4)):
        torch.manual_seed(0)
        model = reward_model_from_policy(str(tmp_path / "start"))
        train_prm(
            model, tiny_policy[1], rows,
            arguments(TrainingArguments, tmp_path / f"out{batch}", max_steps=3,
                      per_device_train_batch_size=batch, save_strategy="no", learning_rate=1e-3,
                      gradient_accumulation_steps=accumulation),
        )  # fmt: skip
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.allclose(weights[0], weights[1], atol=2e-5)


def test_nothing_to_train_on_is_said(tiny_policy: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no labelled row"):
        train_prm(*tiny_policy, [], None)
    with pytest.raises(ValueError, match="no row to train on"):
        train_on_rows(*tiny_policy, [], None)


def test_two_orders_of_the_rows_are_refused(tiny_policy: Any, tmp_path: Path) -> None:
    from trl.trainer.sft_config import SFTConfig

    grouped = arguments(SFTConfig, tmp_path / "out", train_sampling_strategy="group_by_length")
    row = TokenRow(prompt_ids=(5, 6), completion_ids=(7, 1))
    with pytest.raises(ValueError, match=r"group_by_length.*set both to false"):
        train_on_rows(*tiny_policy, [row], grouped)
