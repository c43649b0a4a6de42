"""The import stage, and a reward model trained on its rows: real samples, a real tiny model."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import load_dataset

from data.token_text import TokenText
from data.types import LabelledSolution, SteppedSolution
from rewards.models.folders import load_reward_model
from trainer.labels.label_files import read_label_rows, read_training_rows, tokenised
from trainer.models.loading import build_policy, save_model
from trainer.reward_models.step_labels import label_dataset
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.manifests import read_manifest
from trainer.stages.import_labels import ImportConfig, run_import
from trainer.stages.train_prm import RewardModelConfig, run_prm

from ...conftest import TINY

SHARED = Path(__file__).resolve().parents[4].parent / "shared" / "data"
needs_data = pytest.mark.usefixtures("published_data")


class CodePoints(TokenText):
    """A token is a character. Its id is the code point."""

    def __init__(self) -> None:
        self.end_token_id = 0

    def encode_prompt(self, text: str) -> tuple[int, ...]:
        return tuple(map(ord, text))

    def encode_steps(self, steps: Sequence[str]) -> list[tuple[int, ...]]:
        return [tuple(map(ord, step)) for step in steps]


ROW = {"prompt": "1+1?", "completions": ["Add.", "It is 3."], "labels": [True, False]}


@pytest.fixture(autouse=True)
def no_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    """A tiny Llama that reads any text."""
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("policy")
    model, tokenizer = build_policy(TINY, "bpe", 10, vocab_size=300, texts=["Step 1: It is 4."])
    save_model(model, tokenizer, folder)
    return str(folder), tokenizer


def written(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def imported(folder: Path, **fields: Any) -> list[dict[str, Any]]:
    run_import(RuntimeConfig(output_dir=str(folder)), ImportConfig(**fields))
    return [json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines()]


def test_rows_manifest_and_prompts(tmp_path: Path) -> None:
    tagged = {"input": "1+1? Step 1: It is 3. ки\n", "label": "1+1? Step 1: It is 3. -\n"}
    source = written(tmp_path / "rows.jsonl", tagged, {**tagged, "input": "x"}, tagged)
    [row, same] = imported(tmp_path / "out", source=source, max_bad_rows=1)
    assert row == same
    assert row["prompt"] == "Question: 1+1?\nAnswer:\n"
    assert (row["completions"], row["labels"]) == (["Step 1: It is 3.\n"], [0.0])
    assert (row["counts"], row["answer"], row["finished"]) == ([0], "", True)
    metrics = read_manifest(tmp_path / "out")["metrics"]
    assert metrics == {
        "bad_rows": 1, "format": "math_shepherd", "rows": 3, "rejected": 1, "unlabelled": 0,
        "problems": 1, "solutions": 2, "steps": 2, "labelled_steps": 2, "positive": 0,
        "mean_label": 0.0, "share_positive": 0.0,
    }  # fmt: skip
    [bad] = (tmp_path / "out" / "bad_rows.jsonl").read_text().splitlines()
    assert json.loads(bad) == {
        "location": f"{source}, line 2", "reason": "input has no step tag 'ки'"
    }  # fmt: skip
    [row, _] = imported(tmp_path / "out2", source=source, max_bad_rows=1, prompt="as_is")
    assert row["prompt"] == "1+1? "


def test_rows_for_trl(tmp_path: Path) -> None:
    rows = [{**ROW, "labels": [None, 0.4], "counts": [0, 5]}, {**ROW, "counts": [1, 1]}]
    source = written(tmp_path / "rows.jsonl", *rows)
    made = imported(tmp_path / "out", source=source, rows="trl", threshold=0.4)
    assert made == [
        {"prompt": "1+1?", "completions": ["Add.It is 3."], "labels": [True]},
        {"prompt": "1+1?", "completions": ["Add.", "It is 3."], "labels": [True, False]},
    ]
    files = str(tmp_path / "out" / "labels.jsonl")
    loaded = load_dataset("json", data_files=files, split="train", cache_dir=str(tmp_path / "c"))
    assert list(loaded) == made


def test_too_many_bad_rows_are_reported_and_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = written(tmp_path / "rows.jsonl", ROW, {**ROW, "labels": [True]}, {**ROW, "labels": 1})
    with pytest.raises(
        ValueError, match=r"2 rows are bad, and max_bad_rows is 1; .*line 2: labels"
    ):
        imported(tmp_path / "out", source=source, max_bad_rows=1)
    out = capsys.readouterr().out
    assert "as trl: 3 rows, 2 of them rejected and 0 without a label; 1 solutions to 1 pro" in out
    assert "line 3: labels is 1; it must be a list" in out
    assert len((tmp_path / "out" / "bad_rows.jsonl").read_text().splitlines()) == 2
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"format": "prm800"}, "format is 'prm800'; did you mean 'prm800k'"),
        ({"neutral_rating": "fine"}, "neutral_rating is 'fine'; allowed: correct"),
        ({"prompt": "x"}, "prompt is 'x'; allowed: question"),
        ({"rows": "json"}, "rows is 'json'; allowed: labels, trl"),
        ({"threshold": 0.0}, "threshold is 0.0; allowed: above 0"),
        ({"max_bad_rows": -1}, "max_bad_rows is -1"),
    ],
)
def test_wrong_settings_are_named(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ImportConfig(source="x", **fields)


def test_a_source_without_a_label_is_an_error(tmp_path: Path) -> None:
    broken = {"question": {"problem": "Q"}, "label": {"steps": [], "finish_reason": "bad_problem"}}
    with pytest.raises(ValueError, match="no row holds a label"):
        imported(tmp_path / "out", source=written(tmp_path / "rows.jsonl", broken))


def test_text_becomes_ids_by_hand(policy: tuple[str, Any]) -> None:
    """Steps of one token a character; the second has no label, the last is behind the last one."""
    solution = LabelledSolution(
        problem_id="p", solution=SteppedSolution(prompt="ab", steps=("c", "d", "ef", "g")),
        labels=(0.5, None, 1.0, 0.25), counts=(2, 0, 0, 4), finished=True,
    )  # fmt: skip
    row = tokenised(solution, CodePoints())
    a, b, c, d, e, f, g = map(ord, "abcdefg")
    assert row.prompt_ids == (a, b)
    assert row.completion_ids == ((c,), (d, e, f), (g, 0))
    assert row.completions == ("c", "def", "g") and row.labels == (0.5, 1.0, 0.25)
    # Laplace: (0.5 * 2 + 1) / 4 = 1/2 and (0.25 * 4 + 1) / 6 = 1/3.
    assert row.standard_errors[0] == pytest.approx(math.sqrt(0.25 / 2))
    assert math.isnan(row.standard_errors[1])
    assert row.standard_errors[2] == pytest.approx(math.sqrt(2 / 9 / 4))
    [trained] = label_dataset([row])
    assert trained["labels"] == [-100.0, -100.0, 0.5, -100.0, -100.0, 1.0, -100.0, 0.25]
    assert trained["input_ids"] == [a, b, c, d, e, f, g, 0]
    cut = LabelledSolution(
        problem_id="p", solution=SteppedSolution(prompt="a", steps=("b", "c")),
        labels=(1.0, None), counts=(0, 0), finished=True,
    )  # fmt: skip
    assert tokenised(cut, CodePoints()).completion_ids == ((b,),)
    empty = LabelledSolution(
        problem_id="p", solution=SteppedSolution(prompt="a", steps=("b", "")), labels=(1.0, 1.0),
        counts=(0, 0),
    )  # fmt: skip
    with pytest.raises(ValueError, match="completion 2 has a label but no token"):
        tokenised(empty, CodePoints())


def test_rows_of_text_and_of_ids_are_told_apart(tmp_path: Path, policy: tuple[str, Any]) -> None:
    _, tokenizer = policy
    path = tmp_path / "labels.jsonl"
    counted = {**ROW, "counts": [0, 0], "finished": True}
    written(path, counted)
    [row] = read_label_rows(path, tokenizer)
    assert tokenizer.decode(row.prompt_ids) == "1+1?"
    assert [tokenizer.decode(ids) for ids in row.completion_ids] == ["Add.", "It is 3.<eos>"]
    written(path, ROW)  # as written for TRL
    assert read_label_rows(path, tokenizer)[0].labels == (1.0, 0.0)
    ids = {
        **counted, "problem_id": "p", "prompt_ids": [1], "completion_ids": [[2], [3]],
        "labels": [1, 0], "standard_errors": [0, 0],
    }  # fmt: skip
    written(path, ids)
    assert read_label_rows(path, tokenizer)[0].completion_ids == ((2,), (3,))
    written(path, counted, {**counted, "labels": [True]}, {**counted, "prompt": "a<eos>"})
    with pytest.raises(
        ValueError, match=r"jsonl, line 2: labels has 1 values .* \(2 bad rows in all\)"
    ):
        read_label_rows(path, tokenizer)


def test_rows_too_long_are_counted_and_named(
    tmp_path: Path, policy: tuple[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    counted = {**ROW, "counts": [0, 0]}
    written(tmp_path / "labels.jsonl", {**counted, "prompt": "1" * 40, "problem_id": "q"}, counted)
    rows, too_long = read_training_rows([str(tmp_path)], policy[1], 30)
    assert (len(rows), too_long) == (1, 1)
    out = capsys.readouterr().out
    assert "1 of 2 rows have more than 30 tokens; they are of 1 problems, such as q" in out
    length = len(rows[0].prompt_ids) + sum(map(len, rows[0].completion_ids))
    assert read_training_rows([str(tmp_path)], policy[1], length)[1] == 1
    assert read_training_rows([str(tmp_path)], policy[1], length - 1)[1] == 2
    assert read_training_rows([str(tmp_path)], policy[1], None)[1] == 0
    with pytest.raises(ValueError, match="max_length is 0; allowed: 1 or more"):
        RewardModelConfig(model="m", labels=[], max_length=0)


@needs_data
def test_a_reward_model_is_trained_on_published_labels(
    tmp_path: Path, policy: tuple[str, Any]
) -> None:
    """Math-Shepherd's and PRM800K's samples. PRM800K's longest rows do not fit."""
    from transformers import TrainingArguments

    folders = [str(tmp_path / name) for name in ("shepherd", "prm800k")]
    for folder, name in zip(folders, ("math_shepherd", "prm800k"), strict=True):
        imported(Path(folder), source=str(SHARED / f"{name}_sample.jsonl"))
    out = tmp_path / "prm"
    arguments = TrainingArguments(
        output_dir=str(out), max_steps=3, logging_steps=1, per_device_train_batch_size=4,
        learning_rate=1e-3,
        use_cpu=True, bf16=False, report_to=[], disable_tqdm=True, save_strategy="no", seed=1,
    )  # fmt: skip
    config = RewardModelConfig(model=policy[0], labels=folders, max_length=600)
    run_prm(RuntimeConfig(output_dir=str(out)), config, arguments)
    metrics = read_manifest(out)["metrics"]
    rows, too_long = read_training_rows(folders, policy[1], 600)
    assert (metrics["rows"], metrics["rows_too_long"]) == (len(rows), too_long)
    assert len(rows) + too_long == 7 + 36 and too_long > 0
    assert metrics["labelled_steps"] == sum(len(row.labels) for row in rows)
    assert 0.1 < metrics["loss"] < 3  # nats: neither without a label nor out of reason
    assert load_reward_model(str(out)).config.id2label == {0: "incorrect", 1: "correct"}
