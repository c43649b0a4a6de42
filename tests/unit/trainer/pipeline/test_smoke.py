"""Smoke runs: every pipeline recipe has one, and a model's twin is like it in all but size."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from data.token_text import TokenText
from trainer.pipeline.recipe import load_pipeline, stage_settings
from trainer.pipeline.smoke import build_twin, smoke_overrides, twin_config
from trainer.pipeline.stage_models import StageModel, model_of

# label_kinds begins with the folders of another run.
RECIPES = sorted(
    path
    for path in Path("recipes").glob("*/*.yaml")
    if {"stages", "extends"} & yaml.safe_load(path.read_text()).keys()
    and path.stem != "label_kinds"
)
QWEN = "Qwen/Qwen2.5-1.5B"


def small(recipe: str | Path, *overrides: str) -> Any:
    return load_pipeline(recipe, smoke_overrides(recipe, overrides).overrides)


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_every_pipeline_has_a_smoke_run(recipe: Path) -> None:
    smoke, whole = small(recipe), load_pipeline(recipe)
    if whole.rounds:  # a smoke run has two of them
        whole = load_pipeline(recipe, ["rounds=2"])
    assert smoke.output_dir == f"{whole.output_dir}-tiny"
    assert [s.name for s in smoke.stages] == [s.name for s in whole.stages]
    for stage in smoke.stages:
        settings = stage_settings(stage)
        assert settings.get("max_steps", 1) <= 2 and settings.get("num_problems", 1) <= 2
        assert stage.inputs == whole.stages[smoke.stages.index(stage)].inputs
        for key in ("train_rows", "test_rows"):
            assert Path(settings.get(key) or recipe).is_file()


def test_problems_stay_apart_and_splits_hold_them() -> None:
    smoke = small("recipes/countdown/demo.yaml")
    settings = {stage.name: stage_settings(stage) for stage in smoke.stages}
    data = settings["data"]
    assert data["slices"] == {
        "train": {"label_1": 2, "search_1": 2, "search_2": 2, "spare": 2, "label_2": 2},
        "validation": {"gate_1": 4, "gate_2": 4, "start": 4},
    }
    assert (settings["label_2"]["slice"], settings["label_2"]["num_problems"]) == ("label_2", 2)
    assert (data["train"], data["validation"], data["test"]) == (10, 12, 4)
    held_out = stage_settings(small("recipes/qwen2.5-1.5b-math/full.yaml").stages[1])
    assert [held_out[s] for s in ("demonstrations", "train", "validation", "test")] == [0, 0, 0, 4]


def test_what_the_user_sets_holds() -> None:
    recipe = "recipes/gsm8k/full.yaml"
    smoke = smoke_overrides(recipe, ["sft.max_steps=3", "output_dir=here", f"sft.model={QWEN}"])
    assert smoke.twins == {Path("here/smoke_models/Qwen--Qwen2.5-1.5B"): QWEN}
    pipeline = load_pipeline(recipe, smoke.overrides)
    assert pipeline.output_dir == "here"
    assert stage_settings(pipeline.stages[1])["max_steps"] == 3


def test_both_policies_of_a_gate_have_twins(tmp_path: Path) -> None:
    path = tmp_path / "gate.yaml"
    path.write_text(
        "run_name: r\noutput_dir: o\nstages:\n"
        "  - {name: data, script: scripts/make_data.py, args: {train: 9, validation: 9}}\n"
        "  - {name: gate, script: scripts/gate_policy.py, args: "
        f"{{data: '{{data}}', incumbent: {QWEN}, candidate: {QWEN}-Instruct}}}}\n"
    )
    smoke = smoke_overrides(path, [])
    names = {f"o-tiny/smoke_models/Qwen--Qwen2.5-1.5B{kind}" for kind in ("", "-Instruct")}
    assert {str(folder) for folder in smoke.twins} == names
    gate = load_pipeline(path, smoke.overrides).stages[1]
    assert (gate.args["gate_problems"], gate.args["max_new_tokens"]) == (4, 24)
    assert {gate.args["incumbent"], gate.args["candidate"]} == names
    assert model_of(stage_settings(load_pipeline(path).stages[1]), StageModel()).sizes is not None


def test_no_server_is_asked(tmp_path: Path) -> None:
    recipe = "recipes/countdown/demo.yaml"
    text = yaml.safe_load(Path(recipe).read_text())
    [stage] = [row for row in text["stages"] if row["name"] == "evaluate"]
    server = {"engine": "vllm_server", "engine_url": "http://there:8000"}
    stage["args"] = (stage.get("args") or {}) | server
    path = tmp_path / "served.yaml"
    path.write_text(yaml.safe_dump(text))
    [smoke] = [s for s in small(path).stages if s.name == "evaluate"]
    settings = stage_settings(smoke)
    assert (settings["engine"], settings["engine_url"]) == ("transformers", "")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("sft.model=org/model", r"does not know the architecture of 'org/model', the model of sta"),
        ("data.train_rows=org/rows:train", r"no rows that replace 'org/rows:train'; .*--set"),
    ],
)  # fmt: skip
def test_what_cannot_be_smoked_says_what_helps(override: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        smoke_overrides("recipes/gsm8k/full.yaml", [override])


def test_a_twins_config_keeps_class_and_ratios() -> None:
    config = {
        "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944,
        "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 14,
        "tie_word_embeddings": False, "rms_norm_eps": 1e-6, "layer_types": ["full"] * 28,
        "vocab_size": 152_064,
    }  # fmt: skip
    assert twin_config(config) == {
        "model_type": "qwen2", "hidden_size": 64, "intermediate_size": 128,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "tie_word_embeddings": False, "rms_norm_eps": 1e-6,
    }  # fmt: skip


def test_a_twin_speaks_as_its_original(tmp_path: Path) -> None:
    """And a folder's twin as the folder: here the twin's twin."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    names = [QWEN, str(tmp_path / "0"), str(tmp_path / "1")]
    for i, name in enumerate(names[:2]):
        build_twin(name, tmp_path / str(i), seed=3)
    for folder in names[1:]:
        model: Any = AutoModelForCausalLM.from_pretrained(folder)
        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        assert type(model).__name__ == "Qwen2ForCausalLM"
        assert model.config.vocab_size == len(tokenizer) == 512
        assert model.config.eos_token_id == tokenizer.eos_token_id
        assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|endoftext|>",) * 2
        chat = tokenizer.apply_chat_template(
            [{"role": "user", "content": "héllo\n1 + 2"}],
            tokenize=False, add_generation_prompt=True,
        )  # fmt: skip
        assert chat.endswith("<|im_start|>user\nhéllo\n1 + 2<|im_end|>\n<|im_start|>assistant\n")
        ids = TokenText(tokenizer).encode(chat)
        assert tokenizer.decode(ids) == chat
        assert ids.count(tokenizer.convert_tokens_to_ids("<|im_start|>")) == 3


def test_overrides_can_be_typed() -> None:
    """Each is one word after --set, whatever it holds."""
    words = smoke_overrides("recipes/gsm8k/full.yaml").overrides
    assert shlex.split(shlex.join(words)) == list(words)
    assert load_pipeline("recipes/gsm8k/full.yaml", words) == small("recipes/gsm8k/full.yaml")
