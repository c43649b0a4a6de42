"""Manifests, checkpoints and W&B, each seen to be whole or refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from data.types import ModelUsage, Usage
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.manifests import (
    changed_files,
    hash_outputs,
    is_complete,
    read_manifest,
    write_json,
    write_manifest,
)
from trainer.runtime.processes import is_main_process, process_state
from trainer.runtime.tracking import start_wandb, wandb_mode


def make_stage(folder: Path, text: str = "abc") -> Path:
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_text(text)
    return folder


def test_manifest_round_trip(tmp_path: Path) -> None:
    source, folder = make_stage(tmp_path / "data"), make_stage(tmp_path / "sft", "weights")
    write_manifest(source, stage="data", recipe={}, seed=1)
    (folder / "checkpoint-5").mkdir()
    (folder / "checkpoint-5" / "optimizer.pt").write_text("not a result")
    (folder / "trainer_state.json").write_text("{}")
    assert not is_complete(folder)
    with pytest.raises(ValueError, match="not a complete stage folder"):
        read_manifest(folder)

    write_manifest(
        folder,
        stage="sft",
        recipe={"max_steps": 3},
        seed=17,
        inputs={"data": source, "model": "hub/name"},
        usage=Usage(policy=ModelUsage(generated_tokens=4)),
        metrics={"loss": 0.5},
        seconds=1.5,
        extra={"note": 1},
    )
    assert is_complete(folder)
    manifest = read_manifest(folder)
    # printf abc | sha256sum
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert read_manifest(source)["outputs"] == {"rows.jsonl": abc}
    assert list(manifest["outputs"]) == ["rows.jsonl"]
    assert manifest["inputs"]["data"] == {
        "source": "../data",
        "fingerprint": read_manifest(source)["fingerprint"],
    }
    assert manifest["inputs"]["model"] == {"source": "hub/name", "name": "hub/name"}
    assert manifest["usage"]["policy"]["generated_tokens"] == 4
    assert (manifest["seed"], manifest["seconds"], manifest["stage"]) == (17, 1.5, "sft")
    assert {"python", "torch", "transformers", "trl"} <= manifest["versions"].keys()
    assert changed_files(folder) == []
    (folder / "rows.jsonl").write_text("other")
    (folder / "new.txt").write_text("")
    assert changed_files(folder) == ["new.txt", "rows.jsonl"]


def test_a_torn_manifest_is_incomplete(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"format": "thinktree-man')
    assert not is_complete(tmp_path)


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})

    def fail(*_: object) -> None:
        raise OSError("disk")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk"):
        write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_only_rank_zero_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert not is_main_process()
    write_manifest(tmp_path, stage="x", recipe={}, seed=0)
    assert not is_complete(tmp_path)


def test_checkpoints_are_whole_or_ignored(tmp_path: Path) -> None:
    from trainer.training.checkpoints import CheckpointManifest, latest_checkpoint

    callback = CheckpointManifest()
    arguments = SimpleNamespace(
        output_dir=tmp_path,
        world_size=1,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=1,
        save_total_limit=None,
    )
    assert latest_checkpoint(tmp_path) is None
    for step in (9, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "model.safetensors").write_text("w" * step)
        callback.on_save(arguments, SimpleNamespace(global_step=step), None)
    (tmp_path / "checkpoint-11").mkdir()  # cut off while saving
    latest = latest_checkpoint(tmp_path)
    assert latest is not None
    assert latest.name == "checkpoint-10"

    (latest / "model.safetensors").write_text("torn")
    callback.on_init_end(arguments, None, None)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-9"]


def test_runtime_config_names_the_mistake() -> None:
    with pytest.raises(ValueError, match=r"seed must be in \[0, 2\*\*32\), got -1"):
        RuntimeConfig(output_dir="o", seed=-1)
    with pytest.raises(ValueError, match="output_dir"):
        RuntimeConfig(output_dir="")


def test_wandb_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert wandb_mode() == "offline"
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password x\n")
    assert wandb_mode() == "online"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert wandb_mode() == "offline"


@pytest.mark.slow
def test_wandb_offline_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    source = make_stage(tmp_path / "data")
    write_manifest(source, stage="data", recipe={}, seed=1)
    before = hash_outputs(source)
    runtime = RuntimeConfig(output_dir=str(source), run_name="data", run_group="demo")
    with start_wandb(runtime, stage="data", recipe={"a": 1}) as run:
        run.log({"loss": 1.0})
        run.use_folder("data", source, "dataset")
        run.log_folder("data", source, "dataset")
    assert list(source.glob("wandb/offline-run-*/run-*.wandb"))
    assert hash_outputs(source) == before  # W&B's files are no result


@pytest.mark.slow
def test_a_table_of_wandb_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call logs only its own rows, as a further part of one table."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    runtime = RuntimeConfig(output_dir=str(tmp_path))
    with start_wandb(runtime, stage="ppo", recipe={}) as run:
        run.extend_table("ppo/completions", [{"cycle": 0, "scores": [0.5]}])
        run.extend_table("ppo/completions", [])
        run.extend_table("ppo/completions", [{"cycle": 1, "scores": None}])
    parts = tmp_path.glob("wandb/offline-run-*/files/media/table/ppo/*.json")
    tables = [json.loads(path.read_text()) for path in parts]
    assert sorted(table["data"] for table in tables) == [[[0, "[0.5]"]], [[1, None]]]
    assert {tuple(table["columns"]) for table in tables} == {("cycle", "scores")}


def test_wandb_off_does_nothing(tmp_path: Path) -> None:
    runtime = RuntimeConfig(output_dir=str(tmp_path), wandb=False)
    with start_wandb(runtime, stage="data", recipe={}) as run:
        run.log({"loss": 1.0})
        run.log_folder("x", tmp_path, "dataset")
    assert list(tmp_path.iterdir()) == []


def test_processes_that_did_not_join_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert process_state().num_processes == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="2 processes were launched, but only 1 joined"):
        process_state()


def test_unfinished_work_is_not_continued_with_other_settings(tmp_path: Path) -> None:
    """A search that was cut off must not mix its answers with those of another temperature."""
    from search.settings import SearchSettings
    from trainer.runtime.stage import check_begun

    policy = tmp_path / "policy"
    policy.mkdir()
    (policy / "weights").write_text("1")
    folder = tmp_path / "out"
    folder.mkdir()
    settings = [SearchSettings(temperature=1.0)]
    inputs = {"policy": str(policy), "reward_model": None}
    check_begun(folder, 3, settings, inputs)
    check_begun(folder, 3, settings, inputs)
    with pytest.raises(ValueError, match=r"other settings \(temperature: 1\.0 then, 0\.7 now\)"):
        check_begun(folder, 3, [SearchSettings(temperature=0.7)], inputs)
    (policy / "weights").write_text("2")
    with pytest.raises(ValueError, match=r"other settings \(input policy, seed: 3 then, 4 now\)"):
        check_begun(folder, 4, settings, inputs)
