"""What a stage would refuse is refused before the first stage of a recipe runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.pipeline.recipe import load_pipeline
from trainer.pipeline.stage_checks import check_stages
from trainer.runtime.command_line import check_recipe
from trainer.stages.sft import PolicyConfig

SMOKE = "recipes/countdown/smoke.yaml"


def missing_of(folder: Path, *settings: str) -> list[str]:
    pipeline = load_pipeline(SMOKE, [f"output_dir={folder}", *settings])
    return check_stages(pipeline, pipeline.stages)


def test_a_recipe_of_ours_passes(tmp_path: Path) -> None:
    assert missing_of(tmp_path) == []


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("sft.lerning_rate=1", "stage 'sft': unknown option '--lerning_rate'; did you mean '--lea"),
        ("sft.hidden_size=9", "'--hidden_size'; it is a key of model_config, a mapping that is"),
        (
            "sft.colour=9",
            "'--colour'; no allowed name is similar; docs/reference/keys.md lists all",
        ),
        (
            "sft.model_config={hidden_size: 9}",
            "sft': model_config needs a model_type, .* this one has only hid",
        ),
        ("sft.model_config={model_type: lama}", "model_type of model_config is 'lama'; did you me"),
        ("sft.model_config={}", "model is from_scratch: model_config must describe the model"),
        ("sft.learning_rate=fast", "stage 'sft': .*invalid float value: 'fast'"),
        ("sft.per_device_train_batch_size=0", "stage 'sft': per_device_train_batch_size is 0; it"),
        ("sft.global_batch_size=0", "stage 'sft': global_batch_size is 0; it must be at least 1"),
        ("prm_2.max_steps=0", "stage 'prm_2': max_steps is 0"),
        ("search_1.temperature=-1", "stage 'search_1': temperature"),
        ("search_1.strategy=mtcs", "stage 'search_1': strategy is 'mtcs'; allowed"),
        (
            "search_1.answer_guidance=judge",
            "'search_1': answer_guidance is 'judge', but judge is n",
        ),
        ("search_1.judge='{prm_1}'", "stage 'search_1': judge is '.*prm_1', but nothing asks it"),
        ("evaluate.judge='{prm_1}'", "stage 'evaluate': judge is '.*prm_1', but nothing asks it"),
        ("evaluate.verifier=maths", "stage 'evaluate': verifier"),
    ],
)
def test_a_wrong_key_or_value_is_refused(tmp_path: Path, setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        missing_of(tmp_path, setting)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "sft.model_config.hidden_size=9",
            r"a key inside model_config; .*: sft.model_config=\{hid",
        ),
        ("verifier=math", r"it is a key of stages: give data.verifier= \(also: label_1, search_1,"),
        ("proposals=3", r"a key of stages: give search_1.proposals= \(also: search_2, evaluate\)"),
        ("sft=3", "it is a stage: give sft.key=value"),
        ("colour=3", "'colour' is unknown; allowed: run_name, .*, learner, data., sft."),
    ],
)
def test_a_setting_of_no_stage_says_where_it_goes(
    tmp_path: Path, setting: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        missing_of(tmp_path, setting)


def test_a_key_inside_a_mapping_is_no_option() -> None:
    words = ["--data", "d", "--model", "m", "--model_config.hidden_size", "9"]
    with pytest.raises(
        ValueError, match=r"give the whole mapping: model_config=\{hidden_size: ..."
    ):
        check_recipe((PolicyConfig,), words)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sft.data", "/nowhere"),
        ("data.train_file", "rows.jsonl"),
        ("data.contamination_sets", "[rows.jsonl]"),
        ("prm_1.model", "./model"),
        ("prm_1.model", "path/to/model"),
    ],
)
def test_a_file_that_is_not_there_is_named(tmp_path: Path, key: str, value: str) -> None:
    stage, name = key.split(".")
    path = value.strip("[]")
    expected = f"stage {stage!r}: {name} is {path!r}: there is no such file or folder"
    assert missing_of(tmp_path, f"{key}={value}") == [expected]


def test_what_the_run_itself_writes_is_not_looked_for(tmp_path: Path) -> None:
    assert missing_of(tmp_path, f"prm_1.model={tmp_path}/smoke_models/org--model") == []
    assert missing_of(tmp_path, f"sft.data={tmp_path}/data") == []


@pytest.mark.parametrize(
    "setting",
    [
        "prm_1.model=org/model",
        "search_1.reward_model=http://host/score/v1",
        "data.contamination_sets=[org/rows:test, org/rows:main:test, /path/to/rows:test]",
    ],
)
def test_a_name_on_the_hub_and_an_address_are_no_missing_files(
    tmp_path: Path, setting: str
) -> None:
    assert missing_of(tmp_path, setting) == []
