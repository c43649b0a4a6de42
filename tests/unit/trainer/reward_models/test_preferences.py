"""Preference rows in every form that TRL defines, and an outcome model trained on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer

from data.formats.preferences import preference_row
from data.sources import Row
from data.types import Message, SteppedSolution
from rewards.models.opening import open_reward_model
from trainer.models.loading import build_policy, save_model
from trainer.reward_models.preferences import open_scorer, read_preferences
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.manifests import read_manifest
from trainer.stages.train_outcome_model import OutcomePreferenceConfig, run_preferences
from trainer.training.batch_size import sequences_per_update
from trainer.training.checkpoints import mark_whole

TINY = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "tie_word_embeddings": True, "initializer_range": 0.3,
}  # fmt: skip
CHAT = (
    "{% for m in messages %}{% if m.role not in ('system', 'user', 'assistant') %}"
    "{{ raise_exception('no role ' + m.role) }}{% endif %}"
    "[{{ m.role }}] {{ m.content }}<eos>\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
QUESTIONS = ["What is 3 + 4?", "Add 2 to 5.", "Is it late?", "Name a colour.", "How are you?"]
GOOD, BAD = "It is so.\nI am sure.", "Who knows.\nI am not sure."


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def conversation(question: str) -> dict[str, Any]:
    return {
        "prompt": [turn("user", question)],
        "chosen": [turn("assistant", GOOD)],
        "rejected": [turn("assistant", BAD)],
    }


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(4)
    texts = [f"[user] {q}\n[assistant] {a}\n" for q in QUESTIONS for a in (GOOD, BAD)]
    model, tokenizer = build_policy(TINY, "bpe", 1, vocab_size=320, texts=texts)
    tokenizer.chat_template = CHAT
    path = tmp_path_factory.mktemp("policy")
    save_model(model, tokenizer, path)
    return path


def arguments(folder: Path, **fields: Any) -> RewardConfig:
    defaults: dict[str, Any] = {
        "bf16": False, "gradient_checkpointing": False, "report_to": "none", "use_cpu": True,
        "disable_tqdm": True, "save_strategy": "no", "lr_scheduler_type": "constant",
        "learning_rate": 3e-3, "per_device_train_batch_size": 4, "max_steps": 30, "seed": 1,
    }  # fmt: skip
    return RewardConfig(output_dir=str(folder), **{**defaults, **fields})


def columns(**values: Any) -> Row:
    return Row(location="here", columns=values)


def test_the_four_forms() -> None:
    text = preference_row(columns(prompt="Q ", chosen="yes", rejected="no", margin=0.5))
    assert (text.chosen, text.rejected, text.margin) == ("Q yes", "Q no", 0.5)
    implicit = preference_row(columns(chosen="Q yes", rejected="Q no", prompt=None))
    assert (implicit.chosen, implicit.rejected, implicit.margin) == ("Q yes", "Q no", None)
    talk = conversation("Q")
    whole = preference_row(columns(**talk))
    assert whole.chosen == (
        Message(role="user", content="Q"), Message(role="assistant", content=GOOD),
    )  # fmt: skip
    both = {name: talk["prompt"] + talk[name] for name in ("chosen", "rejected")}
    assert preference_row(columns(**both)) == whole
    assert preference_row(columns(**both, prompt=" Q")) == whole  # as UltraFeedback is published


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"chosen": None}, "chosen is absent"),
        ({"rejected": "no"}, "rejected is 'no'; it must be a list"),
        ({"chosen": []}, "chosen is empty; there must be a turn"),
        ({"chosen": [turn("assistant", BAD)]}, "chosen and rejected are the same"),
        ({"chosen": [{"role": "assistant"}]}, "the content of turn 1 of chosen is absent"),
        ({"chosen": [turn("user", "hm")]}, "chosen ends with the turn of 'user'"),
        ({"prompt": None}, "chosen has no user's turn"),
        (
            {"prompt": [turn("tool", "x")]},
            "the chat template refuses the conversation: no role tool",
        ),
        ({"tools": [{"name": "x"}]}, "tools is given"),
        ({"margin": -1}, "margin is -1"),
    ],
)
def test_a_bad_row_names_file_and_line(
    policy: Path, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    good = conversation("Q")
    path = write(tmp_path / "mine.jsonl", [good, good | changes])
    rows, [bad] = read_preferences([path], AutoTokenizer.from_pretrained(policy))
    assert len(rows) == 1
    assert str(bad).startswith(f"{path}, line 2: ") and reason in str(bad)
    config = OutcomePreferenceConfig(model=str(policy), preferences=[path])
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"1 rows are bad.*mine\.jsonl, line 2"):
        run_preferences(RuntimeConfig(output_dir=str(out), wandb=False), config, arguments(out))


@pytest.mark.parametrize("form", ["text", "conversation"])
def test_rows_are_tokenised_as_trl_does(policy: Path, tmp_path: Path, form: str) -> None:
    rows: list[dict[str, Any]] = [conversation(q) for q in QUESTIONS]
    if form == "text":
        rows = [{"prompt": q + "\n", "chosen": GOOD, "rejected": BAD} for q in QUESTIONS]
    settings = arguments(tmp_path / "out")
    model, tokenizer = open_scorer(str(policy), settings)
    ours, _ = read_preferences([write(tmp_path / "rows.jsonl", rows)], tokenizer)
    theirs = RewardTrainer(
        model=model, args=settings, train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    ).train_dataset  # fmt: skip
    assert [list(row.chosen_ids) for row in ours] == list(theirs["chosen_ids"])
    assert [list(row.rejected_ids) for row in ours] == list(theirs["rejected_ids"])


@pytest.mark.parametrize("form", ["text", "conversation"])
def test_preferences_are_learnt_and_the_folder_is_asked_as_it_was_trained(
    policy: Path, tmp_path: Path, form: str
) -> None:
    rows: list[dict[str, Any]] = [conversation(q) | {"margin": 0.1} for q in QUESTIONS]
    if form == "text":
        rows = [{"prompt": f"{q}\n", "chosen": GOOD, "rejected": BAD} for q in QUESTIONS]
    rows.append({**rows[0], "chosen": rows[0]["rejected"], "rejected": rows[0]["chosen"] * 40})
    if form == "conversation":
        rows[-1]["rejected"] = [turn("assistant", GOOD * 40)]
    out = tmp_path / "out"
    config = OutcomePreferenceConfig(
        model=str(policy), preferences=[write(tmp_path / "rows.jsonl", rows)], whole_prompt=True
    )
    run_preferences(RuntimeConfig(output_dir=str(out), wandb=False), config, arguments(out))
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["metrics"]["rows"], manifest["metrics"]["rows_too_long"]) == (5, 1)
    [training] = manifest["usage"]["ledger"]
    tokenizer = AutoTokenizer.from_pretrained(out)
    said = [
        f"[user] {q}<eos>\n[assistant] {a}<eos>\n" if form == "conversation" else f"{q}\n{a}<eos>"
        for q in QUESTIONS
        for a in (GOOD, BAD)
    ]
    lengths = [len(tokenizer.encode(text)) for text in said]
    assert training["model"] == "reward" and training["flops"] > 0
    # 5 rows, 4 per batch: the second batch of an epoch has one, and 30 updates are 15 epochs.
    assert training["positions"] == 15 * sum(lengths)
    loaded = open_reward_model(str(out), "cpu")
    assert (loaded.convention, loaded.whole_prompt, loaded.ends_only) == ("outcome", True, True)
    assert loaded.text_model is not None
    solutions = [
        SteppedSolution(prompt=f"{q}\n", steps=tuple(a.splitlines(keepends=True)))
        for q in QUESTIONS
        for a in (GOOD, BAD)
    ]
    scores, _ = loaded.text_model.score_solutions(solutions)
    at_end = [row[-1] for row in scores]
    assert all(g > b for g, b in zip(at_end[::2], at_end[1::2], strict=True))
    # What the plain model says of the text as it was in training.
    model = AutoModelForSequenceClassification.from_pretrained(out, dtype=torch.float32).eval()
    with torch.inference_mode():
        values = [
            model(input_ids=torch.tensor([tokenizer.encode(text)])).logits[0, 0] for text in said
        ]
    assert at_end == pytest.approx([float(value.sigmoid()) for value in values], abs=1e-5)
    card = (out / "README.md").read_text()
    assert ("chat template" in card) == (form == "conversation") and "extrapolation" in card


def test_text_and_conversations_do_not_mix(policy: Path, tmp_path: Path) -> None:
    text = {"chosen": "a", "rejected": "b"}
    path = write(tmp_path / "rows.jsonl", [conversation("Q"), text])
    tokenizer = AutoTokenizer.from_pretrained(policy)
    with pytest.raises(ValueError, match="text and conversations"):
        read_preferences([path], tokenizer)
    tokenizer.chat_template = None
    _, [bad] = read_preferences([path], tokenizer)
    assert "no chat template; set chat_template_path" in bad.reason


@pytest.mark.slow
def test_a_run_cut_off_ends_as_one_that_was_not(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "rows.jsonl", [conversation(q) for q in QUESTIONS])
    config = OutcomePreferenceConfig(model=str(policy), preferences=[path])

    def run(out: Path) -> bytes:
        settings = arguments(out, max_steps=4, save_strategy="steps", save_steps=2)
        run_preferences(RuntimeConfig(output_dir=str(out), wandb=False), config, settings)
        return (out / "model.safetensors").read_bytes()

    whole = run(tmp_path / "whole")
    steps = 0
    real = RewardTrainer.training_step

    def stop_in_the_fourth(*values: Any, **named: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 4:
            raise KeyboardInterrupt
        return real(*values, **named)

    monkeypatch.setattr(RewardTrainer, "training_step", stop_in_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut")
    assert not (tmp_path / "cut" / "manifest.json").exists()
    assert run(tmp_path / "cut") == whole
    assert steps == 4 + 2  # it went on after the second


@pytest.mark.slow
def test_no_update_follows_the_last_one(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, die_late: Any
) -> None:
    path = write(tmp_path / "rows.jsonl", [conversation(q) for q in QUESTIONS])
    config = OutcomePreferenceConfig(model=str(policy), preferences=[path])

    def run(out: Path) -> Any:
        settings = arguments(out, max_steps=3, save_strategy="steps", save_steps=2, logging_steps=1)
        run_preferences(RuntimeConfig(output_dir=str(out), wandb=False), config, settings)
        return read_manifest(out)

    whole = run(tmp_path / "whole" / "out")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        die_late(patch, 3)
        run(tmp_path / "cut" / "out")
    again = run(tmp_path / "cut" / "out")
    for key in ("outputs", "usage", "metrics"):
        assert whole[key] == again[key]


def test_a_checkpoint_of_another_batch_size_is_refused(policy: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [conversation(q) for q in QUESTIONS])
    config = OutcomePreferenceConfig(model=str(policy), preferences=[path])
    out = tmp_path / "out"
    checkpoint = out / "checkpoint-2"
    checkpoint.mkdir(parents=True)
    settings = arguments(out, max_steps=4, save_strategy="steps", save_steps=2)
    mark_whole(checkpoint, 2, 1, batch=1 + sequences_per_update(settings), verdicts={})
    with pytest.raises(ValueError, match="sequences per update, but this run takes"):
        run_preferences(RuntimeConfig(output_dir=str(out), wandb=False), config, settings)
