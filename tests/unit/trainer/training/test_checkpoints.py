"""Checkpoints: what counts, what is kept, what is gone on from, and how that is said."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification, TrainingArguments
from trl.trainer.sft_config import SFTConfig

import trainer.training.checkpoints as checkpoints
from data.problems import read_demonstrations, write_demonstrations
from data.tasks.countdown import make_problem
from data.types import Demonstration
from tests.unit.trainer.conftest import LAST_MOMENTS, die_after_the_last_update
from trainer.models.loading import load_policy, save_model
from trainer.models.lora import LoraSettings, MergeConfig, run_merge
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.manifests import read_manifest
from trainer.stages.sft import PolicyConfig, run_sft
from trainer.stages.train_prm import RewardModelConfig, run_prm
from trainer.training.checkpoints import (
    CheckpointManifest,
    check_resumable,
    mark_whole,
    resume_from,
)
from trainer.training.token_rows import demonstration_rows

SFT, PRM = "sft", "prm"


def arguments_of(
    folder: Path, *, processes: int = 1, batch: int = 4, limit: int | None = None
) -> Any:
    return SimpleNamespace(
        output_dir=str(folder),
        world_size=processes,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=1,
        save_total_limit=limit,
    )


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_none_is_removed_before_its_successor_is_whole(tmp_path: Path) -> None:
    arguments, callback = arguments_of(tmp_path, limit=1), CheckpointManifest()
    callback.on_init_end(arguments, None, None)
    assert arguments.save_total_limit is None  # the Trainer itself removes nothing
    for step in (9, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "optimizer.pt").write_text("w" * step)
        assert "checkpoint-9" in names_in(tmp_path)
        callback.on_save(arguments, SimpleNamespace(global_step=step), None)
    assert names_in(tmp_path) == ["checkpoint-10"]


def test_what_is_restored_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert resume_from(arguments_of(tmp_path)) is None
    (tmp_path / "checkpoint-6").mkdir()
    mark_whole(tmp_path / "checkpoint-6", 6, 1, batch=4, verdicts={})
    (tmp_path / "checkpoint-8").mkdir()
    assert resume_from(arguments_of(tmp_path)) == str(tmp_path / "checkpoint-6")
    everything = "weights, optimizer, schedule, data position, random state"
    assert f"checkpoint-6 on 1 processes: {everything}\n" in capsys.readouterr().out
    resume_from(arguments_of(tmp_path, processes=2, batch=2))
    said = capsys.readouterr().out
    assert "resumed after step 6" in said and "not the random state, which is that of 1" in said
    with pytest.raises(ValueError, match="4 sequences per update, but this run takes 8: set"):
        resume_from(arguments_of(tmp_path, processes=2))


def test_what_cannot_be_gone_on_from_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "checkpoint-2"
    checkpoint.mkdir()
    monkeypatch.setattr(checkpoints, "optimizer_sharding", lambda: "DeepSpeed ZeRO-3")
    mark_whole(checkpoint, 2, 2, batch=8, verdicts={})
    assert check_resumable(checkpoint, 2, 8)["step"] == 2
    with pytest.raises(ValueError, match=r"by 2 processes under DeepSpeed.*--num_processes 2"):
        check_resumable(checkpoint, 4, 8)
    monkeypatch.setattr(checkpoints, "optimizer_sharding", lambda: "DeepSpeed ZeRO-2")
    with pytest.raises(ValueError, match=r"another optimizer layout \(DeepSpeed ZeRO-3; now"):
        check_resumable(checkpoint, 2, 8)


@pytest.fixture(scope="module")
def made(tiny_policy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    tokenizer = tiny_policy[1]
    save_model(*tiny_policy, root / "policy")
    (root / "data").mkdir()
    (root / "labels").mkdir()
    rows = [
        Demonstration(
            problem=make_problem((3, 4, 7 + i), 14 + i), solution=f"3 + 4 = 7 | {7 + i} 7\n"
        )
        for i in range(16)
    ]
    write_demonstrations(root / "data" / "demonstrations.jsonl", rows)
    with (root / "labels" / "labels.jsonl").open("w") as file:
        for i, row in enumerate(rows):
            line = {
                "problem_id": row.problem.id, "prompt": row.problem.prompt,
                "prompt_ids": tokenizer.encode(row.problem.prompt),
                "completions": [row.solution],
                "completion_ids": [tokenizer.encode(row.solution)],
                "labels": [i / 16], "counts": [8], "standard_errors": [0.1],
            }  # fmt: skip
            file.write(json.dumps(line) + "\n")
    return root


def train(made: Path, stage: str, folder: Path, rank: int = 0, updates: int = 4) -> None:
    kind = SFTConfig if stage == SFT else TrainingArguments
    more = {"max_length": None} if stage == SFT else {}
    arguments = kind(
        output_dir=str(folder), max_steps=updates, save_steps=2, save_total_limit=1, bf16=False,
        per_device_train_batch_size=2, learning_rate=1e-2, use_cpu=True, report_to="none",
        disable_tqdm=True, logging_steps=3, seed=5, **more,
    )  # fmt: skip
    runtime = RuntimeConfig(output_dir=str(folder), wandb=False, seed=5)
    lora, model = LoraSettings(lora_rank=rank), str(made / "policy")
    if stage == SFT:
        config = PolicyConfig(model=model, data=str(made / "data"), global_batch_size=4)
        run_sft(runtime, config, arguments, lora)
    else:
        labels = [str(made / "labels")]
        config = RewardModelConfig(model=model, labels=labels, global_batch_size=4)
        run_prm(runtime, config, arguments, lora)


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "rank"), [(SFT, 0), (SFT, 2), (PRM, 0), (PRM, 2)])
def test_a_run_that_dies_while_saving_ends_as_a_whole_one(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], stage: str, rank: int,
) -> None:  # fmt: skip
    """Also with LoRA, and though one checkpoint alone is kept."""
    train(made, stage, tmp_path / "whole" / "out", rank)

    def die(checkpoint: Path, step: int, *more: Any, **others: Any) -> None:
        if step == 4:
            raise KeyboardInterrupt
        mark_whole(checkpoint, step, *more, **others)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoints, "mark_whole", die)
        train(made, stage, tmp_path / "cut" / "out", rank)
    assert {"checkpoint-2", "checkpoint-4"} <= set(names_in(tmp_path / "cut" / "out"))
    capsys.readouterr()
    train(made, stage, tmp_path / "cut" / "out", rank)
    said = capsys.readouterr().out
    assert "checkpoint-4 in" in said and "removed" in said and "resumed after step 2" in said
    assert names_in(tmp_path / "cut" / "out") == names_in(
        tmp_path / "whole" / "out"
    )  # no checkpoint is left
    found = [read_manifest(tmp_path / name / "out") for name in ("whole", "cut")]
    assert found[0]["outputs"] == found[1]["outputs"] and found[0]["usage"] == found[1]["usage"]
    assert found[0]["metrics"] == found[1]["metrics"]


@pytest.mark.slow
@pytest.mark.parametrize("moment", LAST_MOMENTS)
@pytest.mark.parametrize(("stage", "rank"), [(SFT, 0), (PRM, 2)])
def test_a_run_that_dies_after_its_last_update_makes_no_further_one(
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    stage: str,
    rank: int,
) -> None:
    """In the middle of an epoch: the Trainer itself would take a fourth."""
    whole, cut = tmp_path / "whole" / "out", tmp_path / "cut" / "out"
    train(made, stage, whole, rank, updates=3)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        die_after_the_last_update(patch, moment, 3)
        train(made, stage, cut, rank, updates=3)
    assert (cut / "checkpoint-3").exists()
    train(made, stage, cut, rank, updates=3)
    found = [read_manifest(out) for out in (whole, cut)]
    assert found[0]["outputs"] == found[1]["outputs"] and found[0]["usage"] == found[1]["usage"]
    assert found[0]["metrics"] == found[1]["metrics"]


@pytest.mark.slow
def test_what_was_trained_on_is_counted(made: Path, tmp_path: Path) -> None:
    """16 rows and batches of 12: the second batch of an epoch has 4. Two epochs are four updates.
    A batch of 64 has all 16."""
    for batch, updates, epochs in ((12, 4, 2), (64, 3, 3)):
        out = tmp_path / str(batch)
        config = PolicyConfig(
            model=str(made / "policy"), data=str(made / "data"), global_batch_size=batch
        )
        arguments = SFTConfig(
            output_dir=str(out), max_steps=updates, per_device_train_batch_size=4, bf16=False,
            use_cpu=True, report_to="none", disable_tqdm=True, max_length=None,
        )  # fmt: skip
        run_sft(RuntimeConfig(output_dir=str(out), wandb=False), config, arguments)
        [row] = read_manifest(out)["usage"]["ledger"]
        _, tokenizer = load_policy(str(made / "policy"))
        rows = demonstration_rows(
            read_demonstrations(made / "data" / "demonstrations.jsonl"), tokenizer
        )
        tokens = sum(len(r.prompt_ids) + len(r.completion_ids) for r in rows)
        assert row["positions"] == epochs * tokens


@pytest.mark.slow
def test_a_training_is_not_continued_with_other_arguments(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    config = PolicyConfig(model=str(made / "policy"), data=str(made / "data"), global_batch_size=4)

    def run(wandb: bool = False, **changes: Any) -> None:
        values: dict[str, Any] = {
            "output_dir": str(out), "max_steps": 4, "save_steps": 2, "bf16": False,
            "per_device_train_batch_size": 2, "learning_rate": 1e-2, "use_cpu": True,
            "report_to": "none", "disable_tqdm": True, "max_length": None,
        }  # fmt: skip
        run_sft(
            RuntimeConfig(output_dir=str(out), wandb=wandb), config, SFTConfig(**values | changes)
        )

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        die_after_the_last_update(patch, "checkpoint", 2)
        run()
    changes: tuple[dict[str, Any], ...] = (
        {"learning_rate": 0.02}, {"lr_scheduler_type": "constant"}, {"max_steps": 8},
        {"weight_decay": 0.1}, {"warmup_steps": 1}, {"optim": "sgd"},
    )  # fmt: skip
    for change in changes:
        [key] = change
        with pytest.raises(ValueError, match=f"unfinished work with other settings .*{key}"):
            run(**change)
    with pytest.raises(ValueError, match=r"learning_rate: 0\.01 then, 0\.02 now"):
        run(learning_rate=0.02)
    # The same updates, cut into micro-batches, saved and logged in another way.
    run(per_device_train_batch_size=4, save_steps=1, logging_steps=1)
    with pytest.raises(SystemExit) as finished:
        run()
    assert finished.value.code == 0 and "nothing to do" in capsys.readouterr().out
    with pytest.raises(
        ValueError, match=r"is finished, but with other settings \(learning_rate: 0"
    ):
        run(learning_rate=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [SFT, PRM])
def test_an_adapter_is_a_peft_folder_and_merges(made: Path, tmp_path: Path, stage: str) -> None:
    from peft import PeftModel

    out = tmp_path / "out"
    train(made, stage, out, rank=2)
    auto: Any = AutoModelForCausalLM if stage == SFT else AutoModelForTokenClassification
    base = auto.from_pretrained(made / "policy", **({} if stage == SFT else {"num_labels": 2}))
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    adapted = PeftModel.from_pretrained(base, str(out / "adapter")).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    merged = auto.from_pretrained(out).eval()
    with torch.inference_mode():
        theirs, ours = adapted(input_ids=ids).logits, merged(input_ids=ids).logits
    assert torch.allclose(theirs, ours, atol=1e-5)
    # Matrices of the layers have been trained, and the new head; all else is the policy's.
    head = {"score.weight", "score.bias"}
    moved = {n for n, t in merged.state_dict().items() if not torch.equal(t, before[n])} - head
    assert moved and all("_proj.weight" in name for name in moved)
    run_merge(MergeConfig(adapter=str(out / "adapter"), output_dir=str(tmp_path / "merged")))
    first, second = (load_file(f / "model.safetensors") for f in (out, tmp_path / "merged"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    with pytest.raises(ValueError, match="exists already"):
        run_merge(MergeConfig(adapter=str(out / "adapter"), output_dir=str(tmp_path / "merged")))
    with pytest.raises(ValueError, match=r"no adapter_config\.json"):
        run_merge(MergeConfig(adapter=str(out), output_dir=str(tmp_path / "again")))
