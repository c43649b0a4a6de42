"""Dry runs: what a recipe would do, in words and in numbers worked out by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.pipeline.test_memory import SMALL
from trainer.pipeline.devices import DEVICES, Launch, launch_of
from trainer.pipeline.estimates import estimate_stage
from trainer.pipeline.plan import print_plan
from trainer.pipeline.quantities import human, rough_duration
from trainer.pipeline.recipe import load_pipeline
from trainer.pipeline.stage_models import StageModel, defaults_used, model_of
from trainer.runtime.stage_registry import STAGES

MODEL = model_of({"model_config": SMALL}, StageModel())
TRAINING = {"max_steps": 3, "per_device_train_batch_size": 2, "max_length": 5}


def test_a_training_stage() -> None:
    launch = Launch(processes=2)
    settings = {**TRAINING, "gradient_accumulation_steps": 4}
    estimate = estimate_stage(STAGES["sft"], settings, MODEL, launch)
    assert estimate.lines == (
        "trains all 380 parameters of a model from scratch",
        "a step takes 2 rows x 4 accumulated x 2 processes = 16 rows of at most 5 tokens",
        "3 updates see 48 rows, at most 240 tokens",
    )
    assert estimate.tokens == 3 * 16 * 5
    assert estimate.flops == 6 * 380 * 240
    assert estimate.memory is not None and estimate.memory.weights == 4 * 380
    # Weights, and one checkpoint of weights and two moments.
    assert estimate.disk == 4 * 380 + 12 * 380
    cpu = DEVICES["cpu"]
    assert estimate.seconds == pytest.approx(6 * 380 * 240 / (2 * cpu.flops * cpu.training_share))


def test_the_update_can_be_given_whole() -> None:
    settings = {**TRAINING, "global_batch_size": 12}
    lines = estimate_stage(STAGES["sft"], settings, MODEL, Launch(processes=2)).lines
    assert "2 rows x 3 accumulated x 2 processes = 12 rows" in lines[1]


def test_what_is_trained_again_or_not_at_all_costs_other_flops() -> None:
    def flops(**more: Any) -> float | None:
        return estimate_stage(STAGES["prm"], {**TRAINING, **more}, MODEL, Launch()).flops

    tokens = 3 * 2 * 5
    assert flops(gradient_checkpointing=True) == 8 * 380 * tokens
    assert flops(lora_rank=1) == 4 * 380 * tokens
    prm = estimate_stage(STAGES["prm"], TRAINING, MODEL, Launch())
    assert prm.memory is not None and prm.memory.logits == 0


def test_sampling_stages() -> None:
    label = estimate_stage(STAGES["label"], {"num_problems": 10, "solutions": 8}, MODEL, Launch())
    assert label.tokens == 10 * 8 * 64
    assert label.flops == 2 * 380 * label.tokens
    search = estimate_stage(
        STAGES["search"], {"num_problems": 10, "budgets": [2, 4], "max_new_tokens": 7}, MODEL,
        Launch(),
    )  # fmt: skip
    assert search.lines[0] == "searches 10 problems with 4 simulations, a solution each"
    judged = {"num_problems": 10, "budgets": [4], "max_new_tokens": 7, "judge": "{judge}"}
    judge = estimate_stage(STAGES["search"], judged, MODEL, Launch())
    assert judge.memory is not None and search.memory is not None
    assert judge.memory.weights == 1.5 * search.memory.weights  # three models in place of two
    assert judge.flops == 1.5 * (search.flops or 0)
    assert search.tokens == 10 * 4 * 7
    assert estimate_stage(STAGES["data"], {}, StageModel(), Launch()).tokens is None


def test_ppo_in_words_and_memory() -> None:
    settings = {
        "cycles": 5, "problems_per_cycle": 6, "samples_per_problem": 4, "epochs": 2,
        "minibatches": 3, "micro_batch_size": 2, "max_new_tokens": 9,
    }  # fmt: skip
    estimate = estimate_stage(STAGES["ppo"], settings, MODEL, Launch(processes=2))
    assert estimate.lines[1] == "a cycle samples 6 problems x 4 = 24 solutions of at most 9 tokens"
    assert estimate.lines[2] == (
        "then 2 epochs x 3 minibatches = 6 updates of 8 solutions, 2 at once on each of 2 "
        "processes; 5 cycles are 30 updates and 120 solutions"
    )
    assert estimate.memory is not None
    # Actor and critic with gradients and moments; reference and reward model frozen.
    assert estimate.memory.weights == 4 * 4 * 380
    assert estimate.memory.gradients == 2 * 4 * 380
    lora = estimate_stage(STAGES["ppo"], {**settings, "lora_rank": 1}, MODEL, Launch())
    assert lora.memory is not None
    # Without its adapter the actor is the reference: three models, two adapters of 136.
    assert lora.memory.weights == 3 * 4 * 380 + 2 * 4 * 136


def test_the_launch_is_read_off_accelerates_config() -> None:
    zero = {"zero_stage": 3, "offload_optimizer_device": "cpu", "offload_param_device": "none"}
    values = {"use_cpu": False, "num_processes": 8, "mixed_precision": "bf16"}
    assert launch_of({**values, "deepspeed_config": zero}, None) == Launch(
        device="h100", processes=8, zero_stage=3, offload_optimizer=True, mixed=True
    )
    assert launch_of({"use_cpu": True}, None) == Launch()
    assert launch_of({"use_cpu": True}, "a100").device == "a100"


def test_the_real_recipe_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    pipeline = load_pipeline("recipes/qwen2.5-1.5b-math/full.yaml")
    print_plan(pipeline, pipeline.stages[2:5])
    said = capsys.readouterr().out
    assert "trains 73.9 M parameters (LoRA, rank 64) on 1.54 G of Qwen/Qwen2.5-1.5B" in said
    assert "a step takes 4 rows x 8 accumulated x 1 process = 32 rows" in said
    # Of all stages that read it, and of no stage that is not asked for.
    assert said.count("1.54 G") == 2 and "ppo" not in said
    assert "weights 3.24 GB" in said and "of at most 1,024 tokens" in said
    assert "all stages: about 19 minutes" in said


def test_figures_for_people() -> None:
    assert (human(1_780_000), human(437e6, "B"), human(None)) == ("1.78 M", "437 MB", "?")
    assert human(6.2e17, "FLOPs") == "620 PFLOPs"
    assert (rough_duration(40.4), rough_duration(750), rough_duration(12_000)) == (
        "40 s",
        "12 minutes",
        "3.3 hours",
    )


def test_an_evaluation_without_search_still_solves() -> None:
    settings = {"policies": ["a", "b"], "greedy_problems": 100, "search_problems": 0}
    settings |= {"prm_problems": 0, "max_new_tokens": 5}
    estimate = estimate_stage(STAGES["evaluate"], settings, MODEL, Launch(processes=1))
    assert estimate.tokens == (2 * 100 + 2 * 100) * 5
    assert estimate.seconds


def test_a_plan_names_the_stage_whose_model_is_trained_further(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = load_pipeline("recipes/countdown/demo.yaml", [f"output_dir={tmp_path}"])
    print_plan(pipeline, pipeline.stages)
    said = re.findall(r"^(\w+): new\n  trains all 593 k parameters of (.*)$",
                      capsys.readouterr().out, re.MULTILINE)  # fmt: skip
    assert said == [
        ("sft", "a model from scratch"),
        ("prm_1", "the model of stage sft"),
        ("round_1", "the model of stage sft"),
        ("round_2", "the model of stage round_1"),
        ("control_more_updates", "the model of stage sft"),
        ("prm_2", "the model of stage prm_1"),
    ]


def test_a_plan_says_why_there_are_no_estimates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = "{model_type: llama, hidden_size: 192}"
    changes = [f"sft.model_config={given}", "prm_1.model=some/model"]
    changes.append(f"output_dir={tmp_path}")
    pipeline = load_pipeline("recipes/countdown/demo.yaml", changes)
    print_plan(pipeline, pipeline.stages)
    printed = capsys.readouterr().out
    said = dict(re.findall(r"^(\w+): new\n  no estimates: (.*)$", printed, re.M))
    assert said["sft"] == (
        "model_config has no num_hidden_layers, num_attention_heads (--set replaces the whole "
        "mapping)"
    )
    assert said["label_1"] == "the sizes of the model of stage sft are not known"
    assert said["prm_1"] == "no folder 'some/model', and no known id of a model"
    assert said["evaluate"] == "no model that the stage reads has known sizes"
    assert "data" not in said
    # The last line: a model of 32 layers would be trained, as transformers' own LlamaConfig says.
    assert printed.endswith(
        "\nwarning: sft: model_config leaves sizes to the defaults of LlamaConfig: "
        "num_hidden_layers 32, num_attention_heads 32\n"
    )


def test_a_model_whose_sizes_have_other_names_gets_no_warning() -> None:
    gpt = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 2}
    assert defaults_used({"model": "from_scratch", "model_config": gpt}) is None
    del gpt["n_layer"]
    said = defaults_used({"model": "from_scratch", "model_config": gpt})
    assert said == "model_config leaves sizes to the defaults of GPT2Config: num_hidden_layers 12"
