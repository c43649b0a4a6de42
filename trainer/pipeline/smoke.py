"""A smoke run executes any pipeline recipe from end to end, in minutes, on a CPU, without a
download.

It is the same recipe with other settings: `smoke_overrides` gives them in the form that `--set`
takes. Sizes become a few problems and steps. The rows in recipes/smoke_rows replace data sets. A
tiny random twin with the same architecture, chat template and special tokens replaces every model
that a recipe names (`build_twin`). A smoke run shows that all stages run and read each other's
files. It says nothing about memory, speed or quality.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from data.settings import suggestion
from data.slices import SPLITS, read_slices
from trainer.pipeline.published_sizes import KNOWN_MODELS, config_of
from trainer.pipeline.recipe import PLACEHOLDER, Pipeline, Stage, load_pipeline, stage_settings
from trainer.runtime.config import FROM_SCRATCH
from trainer.runtime.stage_registry import entry_of_launcher

LAUNCH = "recipes/accelerate/cpu.yaml"
ROWS_FOLDER = Path("recipes/smoke_rows")
# The data sets that recipes name, and the rows that replace them.
STAND_INS = {
    "openai/gsm8k:main:train": "gsm8k_train.jsonl",
    "openai/gsm8k:main:test": "gsm8k_test.jsonl",
    "nlile/hendrycks-MATH-benchmark:train": "math_train.jsonl",
    "HuggingFaceH4/MATH-500:test": "math_test.jsonl",
}
SOURCE_KEYS = ("train_rows", "more_train_rows", "test_rows", "contamination_sets")
MODEL_KEYS = (
    "model", "policy", "policies", "incumbent", "candidate", "reward_model", "judge", "chat_model",
)  # fmt: skip

ROUNDS = 2  # of a recipe with more
PROBLEMS, GATE = 2, 4  # problems of a stage that reads train, and problems of a gate
# A key that a stage's recipe mentions gets this value, or keeps the recipe's value if it is
# smaller.
SMOKE_SIZES: dict[str, Any] = {
    "demonstrations": 8,
    "test": 4,
    "num_problems": PROBLEMS,
    "max_steps": 2,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "global_batch_size": 4,
    "warmup_steps": 1,
    "logging_steps": 1,
    "save_steps": 1,
    "lora_rank": 4,
    "vocab_size": 512,
    "solutions": 4,
    "rollouts": 2,
    "searches": 2,
    "balanced": False,  # random models have no right solutions
    "budgets": [2],
    "proposals": 2,
    "max_new_tokens": 24,
    "first_max_new_tokens": 12,
    "growth_cycles": 1,
    "limits": [12, 24],
    "max_step_tokens": 12,
    "max_depth": 3,
    "gate_problems": GATE,
    "greedy_problems": 4,
    "search_problems": 2,
    "best_of_n": [2, 4],
    "prm_problems": 2,
    "prm_rollouts": 2,
    "prm_prefixes": 2,
    "data_making_problems": 2,
    "data_making_simulations": 2,
    "cycles": 2,
    "problems_per_cycle": 2,
    "samples_per_problem": 2,
    "minibatches": 1,
    "micro_batch_size": 2,
    "evaluate_every": 1,
    "evaluation_problems": 2,
    "save_every": 1,
    "num_generations": 2,
}
# Fields of a config, and their largest values in a tiny twin.
TWIN_SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "max_position_embeddings": 1024,
    "head_dim": 16,
}
TWIN_HEADS = 4
# Fields that depend on the original's size or origin; the tiny config gets the defaults of its
# class.
NOT_OF_THE_TWIN = (
    "layer_types", "max_window_layers", "dtype", "torch_dtype", "transformers_version",
    "architectures", "vocab_size", "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Smoke:
    """`overrides` in the form that `--set` takes, and the models to build: original by folder."""

    overrides: tuple[str, ...]
    twins: Mapping[Path, str]


def smoke_overrides(recipe: str | Path, overrides: Sequence[str] = ()) -> Smoke:
    """The overrides that turn a recipe into its smoke run. The user's `overrides` come last and
    win.

    Raises ValueError for a model that is neither known nor a folder, and for a data set without
    smoke rows. The error names the stage and the option that helps.
    """
    given = [override.partition("=")[0] for override in overrides]
    pipeline = load_pipeline(recipe, overrides)
    if len(pipeline.rounds) > ROUNDS and "rounds" not in given:
        overrides = [f"rounds={ROUNDS}", *overrides]
        pipeline = load_pipeline(recipe, overrides)
    out = pipeline.output_dir + ("" if "output_dir" in given else "-tiny")
    twins: dict[Path, str] = {}
    words = [f"run_name={pipeline.run_name}-tiny", f"output_dir={out}"]
    words.append(f"accelerate_config={LAUNCH}")
    for stage in pipeline.stages:
        settings = stage_settings(stage)
        changes = _sizes(stage, settings) | _rows(stage, settings)
        changes |= _skips(pipeline, settings) | _splits(pipeline, stage)
        changes |= _models(stage, settings, Path(out) / "smoke_models", twins)
        words += [f"{stage.name}.{key}={json.dumps(value)}" for key, value in changes.items()]
    return Smoke(overrides=(*words, *overrides), twins=twins)


def _sizes(stage: Stage, settings: Mapping[str, Any]) -> dict[str, Any]:
    entry = entry_of_launcher(stage.script)
    keys = dict.fromkeys([*(entry.smoke_keys if entry else ()), *settings])
    changes: dict[str, Any] = {}
    for key in keys:
        if key not in SMOKE_SIZES:
            continue
        size, own = SMOKE_SIZES[key], settings.get(key)
        changes[key] = min(own, size) if isinstance(own, int) else size
    if entry is not None:
        changes |= entry.smoke_values
    if settings.get("bf16"):
        changes["bf16"] = False
    if "engine" in settings:  # no server has the tiny twin
        changes |= {"engine": "transformers", "engine_url": ""}
    if isinstance(settings.get("model_config"), dict):
        changes["model_config"] = twin_config(settings["model_config"])
    return changes


def _skips(pipeline: Pipeline, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Keep stages that read different problems apart: a skip becomes its rank among all skips,
    times the problems of a stage."""
    changes = {
        key: sorted(_offsets(pipeline, key)).index(settings[key]) * size
        for key, size in (("skip", PROBLEMS), ("gate_skip", GATE))
        if key in settings
    }
    return changes | ({"evaluation_skip": 0} if "evaluation_skip" in settings else {})


def _offsets(pipeline: Pipeline, key: str) -> set[int]:
    return {0} | {stage_settings(stage).get(key, 0) for stage in pipeline.stages}


def _splits(pipeline: Pipeline, stage: Stage) -> dict[str, Any]:
    """Give each split as many problems as the later stages take. An empty split stays empty."""
    entry = entry_of_launcher(stage.script)
    if entry is None or not entry.makes_problems:
        return {}
    settings = stage_settings(stage)
    slices = _small_slices(settings.get("slices") or {})
    ends: dict[str, int] = dict.fromkeys(SPLITS, 0)
    for part in read_slices(slices).values():
        ends[part.split] = max(ends[part.split], part.end)
    sizes = {
        "train": max(ends["train"], PROBLEMS * len(_offsets(pipeline, "skip"))),
        "validation": max(ends["validation"], GATE * len(_offsets(pipeline, "gate_skip"))),
        "test": max(ends["test"], SMOKE_SIZES["test"]),
        "demonstrations": SMOKE_SIZES["demonstrations"],
    }
    changes: dict[str, Any] = {n: size for n, size in sizes.items() if settings.get(n) != 0}
    return changes | ({"slices": slices} if slices else {})


def _small_slices(sizes: Mapping[str, Any], size: int = PROBLEMS) -> dict[str, Any]:
    """The same names with few problems each: those of a gate in validation."""
    return {
        name: _small_slices(value, GATE if name == "validation" else size)
        if isinstance(value, dict)
        else size
        for name, value in sizes.items()
    }


def _rows(stage: Stage, settings: Mapping[str, Any]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for key in SOURCE_KEYS:
        if value := settings.get(key):
            many = isinstance(value, list)
            found = [_stand_in(stage, key, source) for source in (value if many else [value])]
            changes[key] = found if many else found[0]
    return changes


def _stand_in(stage: Stage, key: str, source: str) -> str:
    if Path(source).is_file():
        return source
    if source not in STAND_INS:
        raise ValueError(
            f"--smoke has no rows that replace {source!r}; give a file of rows: "
            f"--set {stage.name}.{key}=FILE"
        )
    return str(ROWS_FOLDER / STAND_INS[source])


def _models(
    stage: Stage, settings: Mapping[str, Any], folder: Path, twins: dict[Path, str]
) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for key in MODEL_KEYS:
        if value := settings.get(key):
            twin = partial(_twin, stage, key, folder=folder, twins=twins)
            if isinstance(value, dict):
                changes[key] = {name: twin(model) for name, model in value.items()}
            else:
                changes[key] = list(map(twin, value)) if isinstance(value, list) else twin(value)
    return {key: value for key, value in changes.items() if value != settings[key]}


def _twin(stage: Stage, key: str, name: str, folder: Path, twins: dict[Path, str]) -> str:
    """The folder of the model's twin. A name of an earlier stage's output does not change."""
    if name == FROM_SCRATCH or PLACEHOLDER.search(name) or name.endswith((".yaml", ".yml")):
        return name
    if config_of(name) is None:
        raise ValueError(
            f"--smoke does not know the architecture of {name!r}, the {key} of stage "
            f"{stage.name!r}: it is not a folder with a config.json, and it is not in "
            f"trainer/pipeline/published_sizes.py; {suggestion(name, KNOWN_MODELS)}"
        )
    path = folder / name.strip("/").replace("/", "--")
    twins[path] = name
    return str(path)


# ---------------------------------------------------------------- models


def twin_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A tiny model's config of the same class, with the original's ratio of query to key heads."""
    kept = {key: value for key, value in config.items() if key not in NOT_OF_THE_TWIN}
    sizes = {key: min(kept[key], size) for key, size in TWIN_SIZES.items() if kept.get(key)}
    heads = config["num_attention_heads"]
    group = heads // (config.get("num_key_value_heads") or heads)
    shared = max(1, TWIN_HEADS // group)
    return kept | sizes | {"num_attention_heads": TWIN_HEADS, "num_key_value_heads": shared}


def build_twin(original: str, folder: Path, seed: int) -> None:
    """Write a tiny random causal LM with the architecture of `original`, and a byte-level tokenizer
    with the original's chat template and special tokens, trained on the smoke rows."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = config_of(original)
    assert config is not None, "smoke_overrides names known models only"
    tokenizer = _twin_tokenizer(original)
    torch.manual_seed(seed)
    fields = twin_config(config)
    model: Any = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(
            fields.pop("model_type"),
            **fields,
            vocab_size=len(tokenizer),
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    temporary = folder.with_name(f".{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    temporary.replace(folder)


def _texts() -> Iterator[str]:
    for path in sorted(ROWS_FOLDER.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            yield "\n".join(map(str, json.loads(line).values()))


def _twin_tokenizer(original: str) -> Any:
    if Path(original).is_dir():
        from transformers import AutoTokenizer

        own: Any = AutoTokenizer.from_pretrained(original)
        return own.train_new_from_iterator(_texts(), SMOKE_SIZES["vocab_size"])
    return known_tokenizer(original)


def known_tokenizer(name: str) -> Any:
    """A byte-level tokenizer with a known model's special tokens and chat template."""
    import trl
    from transformers import PreTrainedTokenizerFast

    from data.tokenizers import byte_pair_tokenizer

    known = KNOWN_MODELS[name]
    template = known.chat_template
    if "{" not in template:
        named = Path(trl.__file__).parent / "chat_templates" / f"{template}.jinja"
        template = named.read_text(encoding="utf-8")
    return PreTrainedTokenizerFast(
        tokenizer_object=byte_pair_tokenizer(
            SMOKE_SIZES["vocab_size"], list(_texts()), known.special_tokens
        ),
        eos_token=known.end_token,
        pad_token=known.pad_token,
        additional_special_tokens=[*known.special_tokens],
        chat_template=template,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )
