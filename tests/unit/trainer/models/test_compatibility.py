"""What does not fit is said before a model is loaded."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification, TrainingArguments
from trl.trainer.sft_config import SFTConfig

from data.problems import write_demonstrations, write_problems
from data.tasks.countdown import make_problem
from data.types import Demonstration
from rewards.models.folders import load_tokenizer
from search.labellers.by_name import LabelSettings
from search.labellers.monte_carlo import MonteCarloConfig
from search.settings import SearchSettings
from search.strategies.solutions import SolutionsConfig
from trainer.models.loading import save_model
from trainer.models.lora import LoraSettings
from trainer.runtime.config import RuntimeConfig
from trainer.stages.label import LabelStageConfig, run_label
from trainer.stages.search import TreesConfig, run_trees
from trainer.stages.sft import PolicyConfig, run_sft
from trainer.stages.train_prm import RewardModelConfig, run_prm
from trainer.training.batch_size import sequences_per_update, set_accumulation


def arguments_of(processes: int, batch: int, accumulation: int = 1) -> Any:
    return SimpleNamespace(
        world_size=processes,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
    )


def test_an_update_takes_as_many_sequences_on_any_number_of_processes() -> None:
    for processes, steps in ((1, 8), (2, 4), (8, 1)):
        arguments = arguments_of(processes, 4)
        set_accumulation(arguments, 32)
        assert arguments.gradient_accumulation_steps == steps
        assert sequences_per_update(arguments) == 32
    arguments = arguments_of(2, 4, 3)
    set_accumulation(arguments, None)
    assert sequences_per_update(arguments) == 24


def test_processes_that_do_not_divide_the_batch() -> None:
    with pytest.raises(ValueError, match="is 32; it must be a multiple of 12: 3 processes"):
        set_accumulation(arguments_of(3, 4), 32)
    with pytest.raises(ValueError, match="global_batch_size is 2; it must be a multiple of 4"):
        set_accumulation(arguments_of(1, 4), 2)
    with pytest.raises(ValueError, match="gradient_accumulation_steps is 2, but"):
        set_accumulation(arguments_of(1, 4, 2), 32)


@pytest.fixture
def here(tiny_policy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A policy, `wide` with a token more than its model has, `endless` whose model ends with
    another token, `other` with another tokenizer; a data folder; loading weights is an error."""
    model, tokenizer = tiny_policy
    save_model(model, tokenizer, tmp_path / "policy")
    for name in ("wide", "endless", "other"):
        shutil.copytree(tmp_path / "policy", tmp_path / name)
    longer = load_tokenizer(str(tmp_path / "policy"))
    longer.add_tokens(["<one more>"])
    longer.save_pretrained(tmp_path / "wide")
    for file in ("config.json", "generation_config.json"):
        values = json.loads((tmp_path / "endless" / file).read_text())
        values["eos_token_id"] = tokenizer.eos_token_id + 1
        (tmp_path / "endless" / file).write_text(json.dumps(values))
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    config |= {
        "architectures": ["LlamaForTokenClassification"],
        "thinktree_convention": "thinktree",
    }
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    words = json.loads((tmp_path / "other" / "tokenizer.json").read_text())
    vocabulary = words["model"]["vocab"]
    first, second = sorted(vocabulary, key=vocabulary.get)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(words))
    (tmp_path / "data").mkdir()
    write_problems(tmp_path / "data" / "train.jsonl", [make_problem((3, 4, 7), 11)])
    row = Demonstration(problem=make_problem((3, 4, 7), 11), solution="3 + 4 = 7 | 7 7\n")
    write_demonstrations(tmp_path / "data" / "demonstrations.jsonl", [row])
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "labels.jsonl").write_text("")

    def loads(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded")

    for kind in (AutoModelForCausalLM, AutoModelForTokenClassification):
        monkeypatch.setattr(kind, "from_pretrained", loads)
    return tmp_path


def sft(here: Path, model: str, data: str, **more: Any) -> None:
    out = str(here / "out")
    arguments = SFTConfig(output_dir=out, use_cpu=True, bf16=False, report_to="none")
    config = PolicyConfig(model=model, data=data, **more)
    run_sft(RuntimeConfig(output_dir=out, wandb=False), config, arguments)


def prm(here: Path, model: str, data: str, **more: Any) -> None:
    out = str(here / "out")
    labels = [data if "absent" in data else str(here / "labels")]
    config = RewardModelConfig(model=model, labels=labels, **more)
    arguments = TrainingArguments(output_dir=out, use_cpu=True, report_to="none")
    run_prm(RuntimeConfig(output_dir=out, wandb=False), config, arguments)


def search(here: Path, model: str, data: str, **more: Any) -> None:
    runtime = RuntimeConfig(output_dir=str(here / "out"), wandb=False)
    config = TreesConfig(policy=model, data=data, strategy="solutions", verifier="math", **more)
    run_trees(runtime, config, SearchSettings(), SolutionsConfig(budgets=(1,)))


def label(here: Path, model: str, data: str) -> None:
    runtime = RuntimeConfig(output_dir=str(here / "out"), wandb=False)
    stage = LabelStageConfig(policy=model, data=data, verifier="countdown")
    run_label(runtime, stage, LabelSettings(), MonteCarloConfig())


@pytest.mark.parametrize("stage", [sft, prm, search, label])
def test_every_stage_says_so_before_it_loads(here: Path, stage: Any) -> None:
    data = str(here / "data")
    for folder, said in {
        "wide": r"the tokenizer has \d+ tokens, the model \d+",
        "endless": r"the tokenizer ends a text with .* the model with \[\d+\] \(eos_token_id\)",
        "absent": "there is no model '.*absent' .neither a folder nor a name on the hub",
        "data": "there is no model '.*data' .in its folder",
    }.items():
        with pytest.raises(ValueError, match=said):
            stage(here, str(here / folder), data)
    with pytest.raises(ValueError, match=r"(data|labels) is '.*absent': there is no such file"):
        stage(here, str(here / "policy"), str(here / "absent"))
    assert not (here / "out").exists()  # a mistake leaves nothing that must be removed
    with pytest.raises(AssertionError, match="a model was loaded"):
        stage(here, str(here / "policy"), data)  # what fits is let through


def test_an_adapter_is_not_a_model(here: Path) -> None:
    (here / "wide" / "config.json").unlink()
    (here / "wide" / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"an adapter without its model.*merge_adapter"):
        sft(here, str(here / "wide"), str(here / "data"))


def test_a_reward_model_of_another_vocabulary(here: Path) -> None:
    policy, data = str(here / "policy"), str(here / "data")
    with pytest.raises(ValueError, match="they must share one tokenizer"):
        search(here, policy, data, reward_model=str(here / "other"))
    with pytest.raises(ValueError, match="there is no such file"):
        search(here, policy, data, reward_model=str(here / "judge.yaml"))
    with pytest.raises(ValueError, match=r"model '.*other' has .* one tokenizer .key judge"):
        search(here, policy, data, judge=str(here / "other"))
    with pytest.raises(ValueError, match=r"judge is '.*judge.yaml': there is no such file"):
        search(here, policy, data, judge=str(here / "judge.yaml"))


def test_training_that_cannot_be_is_refused(here: Path) -> None:
    policy, data = str(here / "policy"), str(here / "data")
    with pytest.raises(ValueError, match="global_batch_size is 12; it must be a multiple of 8"):
        sft(here, policy, data, global_batch_size=12)
    with pytest.raises(ValueError, match="global_batch_size is 12; it must be a multiple of 8"):
        prm(here, policy, data, global_batch_size=12)
    with pytest.raises(ValueError, match="lora_rank is not 0, but model is from_scratch"):
        run_sft(
            RuntimeConfig(output_dir=str(here / "out")),
            PolicyConfig(model="from_scratch", data=data, model_config={"model_type": "llama"}),
            arguments_of(1, 1),
            LoraSettings(lora_rank=2),
        )
    for fields, said in (
        ({"lora_rank": -1}, "lora_rank is -1"),
        ({"lora_dropout": 1.0}, "lora_dropout is 1.0"),
        ({"lora_targets": []}, "lora_targets is empty"),
    ):
        with pytest.raises(ValueError, match=said):
            LoraSettings(**(asdict(LoraSettings()) | fields))
