"""Recipes: YAML, then the command line; every mistake is named."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest

from rewards.verifiers.by_name import VERIFIERS
from search.settings import SearchSettings
from trainer.ppo.config import PPOConfig
from trainer.report.results import ReportConfig
from trainer.rollouts.solution_reward import GroupRLConfig
from trainer.runtime.command_line import parse_recipe, recipe_mapping
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.manifests import MANIFEST, write_json
from trainer.runtime.processes import told_to_use_the_cpu
from trainer.runtime.solution_defaults import DEFAULTS_OF_TASK, solution_defaults
from trainer.searching.solve import SolveConfig
from trainer.stages.data import TASKS


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True, kw_only=True)
class Toy:
    data: str
    max_steps: int = 10
    rate: float = 1e-3
    limit: int | None = None
    shuffle: bool = True
    colour: Colour = Colour.RED
    mode: Literal["a", "b"] = "a"
    budgets: tuple[int, ...] = (1, 2)
    names: list[str] = field(default_factory=list)
    model_config: dict[str, Any] | None = None


def write(folder: Path, text: str) -> str:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return str(path)


def test_file_then_command_line(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "data: d\nmax_steps: 3\nrate: 1e-5\nlimit: null\nbudgets: [4, 8]\ncolour: red\n"
        "names: [x]\nmodel_config: {hidden_size: 8}\noutput_dir: o\n",
    )
    toy, runtime = parse_recipe(
        (Toy, RuntimeConfig), ["--config", path, "--max_steps", "7", "--shuffle", "false"]
    )
    assert toy == Toy(
        data="d",
        max_steps=7,
        rate=1e-5,
        shuffle=False,
        budgets=(4, 8),
        names=["x"],
        model_config={"hidden_size": 8},
    )
    assert isinstance(toy.rate, float)
    assert isinstance(toy.colour, Colour)
    assert runtime == RuntimeConfig(output_dir="o")
    assert recipe_mapping(toy, runtime)["budgets"] == [4, 8]


def test_command_line_alone() -> None:
    (toy,) = parse_recipe(
        (Toy,),
        ["--data=d", "--budgets", "3", "5", "--model_config", '{"a": 1}', "--rate", "2"],
    )
    assert toy == Toy(data="d", budgets=(3, 5), model_config={"a": 1}, rate=2.0)


def test_int_is_fine_for_a_float_field(tmp_path: Path) -> None:
    (toy,) = parse_recipe((Toy,), [f"--config={write(tmp_path, 'data: d' + chr(10) + 'rate: 1')}"])
    assert toy.rate == 1.0
    assert isinstance(toy.rate, float)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("max_steps: 1.5", "max_steps must be an int, got 1.5"),
        ("max_steps: null", "max_steps must be an int, got None"),
        ("max_steps: [1]", r"max_steps must be an int, got \[1\]"),
        ("max_steps: true", "max_steps must be an int, got True"),
        ("limit: x", "limit must be an int or null, got 'x'"),
        ("rate: fast", "rate must be a float, got 'fast'"),
        ("shuffle: 'no'", "shuffle must be true or false, got 'no'"),
        ("colour: blue", "colour must be one of 'red', got 'blue'"),
        ("mode: c", "mode must be one of 'a', 'b', got 'c'"),
        ("budgets: [1, x]", "budgets must be"),
        ("max_stesp: 3", "unknown key 'max_stesp' in the config; did you mean 'max_steps'"),
        ("max_steps: 3\nmax_steps: 4", "'max_steps' more than once"),
        ("- a", "not valid YAML|must hold a YAML mapping"),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_recipe((Toy,), ["--config", write(tmp_path, line), "--data", "d"])


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--data", "d", "--max_stesp", "3"], "'--max_stesp'; did you mean '--max_steps'"),
        (["--data", "d", "--max_step", "3"], "did you mean '--max_steps'"),  # no abbreviations
        (["--data", "d", "--max_steps", "1.5"], "max_steps.*1.5"),
        (["--max_steps", "1"], "required: --data"),
        (["--data", "d", "stray"], "stray"),
        (["--config"], "needs the path"),
        (["--config", "missing.yaml"], "'missing.yaml' is not a file"),
        (["--data", "d", "--model_config", "[1]"], "model_config"),
    ],
)
def test_mistakes_on_the_command_line(argv: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_recipe((Toy,), argv)


def test_a_field_named_config_is_refused() -> None:
    @dataclass
    class Bad:
        config: str = ""

    with pytest.raises(ValueError, match="config"):
        parse_recipe((Bad,), [])


def test_shared_fields_reach_every_type_and_the_first_default_holds(tmp_path: Path) -> None:
    from trl.trainer.sft_config import SFTConfig

    path = write(
        tmp_path,
        f"output_dir: {tmp_path}\nlearning_rate: 1e-4\nbf16: false\ngradient_checkpointing: false\n"
        "use_cpu: true\nlr_scheduler_type: cosine\nsave_strategy: steps\nsave_steps: 5\n",
    )
    runtime, training = parse_recipe((RuntimeConfig, SFTConfig), ["--config", path])
    assert (runtime.seed, training.seed) == (17, 17)
    assert (runtime.output_dir, training.output_dir) == (str(tmp_path), str(tmp_path))
    assert training.learning_rate == 1e-4
    assert recipe_mapping(runtime, training)["save_steps"] == 5
    with pytest.raises(ValueError, match="did you mean 'learning_rate'"):
        path = write(tmp_path, "output_dir: o\nlearning_rte: 1e-4\n")
        parse_recipe((RuntimeConfig, SFTConfig), ["--config", path])


@pytest.mark.parametrize(
    ("environment", "use_cpu"),
    [
        ({}, False),
        ({"ACCELERATE_USE_CPU": "False"}, False),
        ({"ACCELERATE_USE_CPU": "True"}, True),
    ],
)
def test_a_training_runs_on_the_cpu_if_the_accelerate_config_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], use_cpu: bool
) -> None:
    """accelerate tells its processes by this variable what its config says."""
    from trl.trainer.sft_config import SFTConfig

    for name in ("ACCELERATE_USE_CPU", "ACCELERATE_USE_DEEPSPEED", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("trainer.runtime.precision.computes_in_bf16", lambda: True)
    bf16 = str(use_cpu).lower()  # refused by transformers on a CPU that it is not told to use
    words = ["--output_dir", str(tmp_path), "--bf16", bf16, "--gradient_checkpointing", "false"]
    _, training = parse_recipe((RuntimeConfig, SFTConfig), words)
    assert (training.use_cpu, training.bf16) == (use_cpu, use_cpu)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    assert not told_to_use_the_cpu()


@pytest.mark.parametrize(
    ("asked", "instructions", "bf16", "said"),
    [
        (["--bf16", "true"], True, True, False),
        (["--bf16", "true"], False, False, True),
        (["--bf16=True"], False, False, True),
        ([], False, False, False),
        ([], True, True, False),
        (["--bf16", "false"], False, False, False),
    ],
)
def test_a_training_does_not_emulate_bf16(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    asked: list[str],
    instructions: bool,
    bf16: bool,
    said: bool,
) -> None:
    """A CPU without instructions for it takes tens of times as long."""
    from trl.trainer.sft_config import SFTConfig

    from trainer.ppo.config import PPOConfig

    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.delenv("ACCELERATE_USE_DEEPSPEED", raising=False)
    monkeypatch.setattr("trainer.runtime.precision.computes_in_bf16", lambda: instructions)
    words = ["--output_dir", str(tmp_path), "--gradient_checkpointing", "false", *asked]
    _, training = parse_recipe((RuntimeConfig, SFTConfig), words)
    assert training.bf16 is bf16
    assert ("this training computes in fp32" in capsys.readouterr().out) == said
    if asked:
        ppo = ["--output_dir", "o", "--verifier", "countdown", "--max_new_tokens", "8"]
        ppo += ["--policy", "p", "--data", "d"]
        _, config = parse_recipe((RuntimeConfig, PPOConfig), [*ppo, *asked])
        assert config.bf16 is bf16


@dataclass(frozen=True, kw_only=True)
class Judged:
    data: str
    verifier: str = "countdown"
    max_new_tokens: int = 64


def _data_folder(folder: Path, task: str) -> str:
    (folder / "manifest.json").write_text(json.dumps({"recipe": {"task": task}}))
    return str(folder)


def test_the_data_folder_gives_verifier_and_limit(tmp_path: Path) -> None:
    data = _data_folder(tmp_path, "countdown")
    (judged,) = parse_recipe((Judged,), ["--data", data])
    assert (judged.verifier, judged.max_new_tokens) == ("countdown", 64)


def test_the_recipe_comes_before_the_data_folder(tmp_path: Path) -> None:
    data = _data_folder(tmp_path, "math")
    (judged,) = parse_recipe((Judged,), ["--data", data, "--max_new_tokens", "9"])
    assert (judged.verifier, judged.max_new_tokens) == ("math", 9)


def test_the_verifier_of_the_data_stage_replaces_that_of_its_task(tmp_path: Path) -> None:
    recipe = {"task": "countdown", "verifier": "reasoning_gym"}
    write_json(tmp_path / "data" / MANIFEST, {"recipe": recipe})
    inputs = {"data": {"source": "../data"}}
    write_json(tmp_path / "evaluate" / MANIFEST, {"recipe": {}, "inputs": inputs})
    (judged,) = parse_recipe((Judged,), ["--data", str(tmp_path / "data")])
    assert (judged.verifier, judged.max_new_tokens) == ("reasoning_gym", 64)
    words = ["--stages", "x", "--evaluation", str(tmp_path / "evaluate")]
    assert parse_recipe((ReportConfig,), words)[0].verifier == "reasoning_gym"


def test_a_limit_that_nothing_says_is_an_error(tmp_path: Path) -> None:
    data = _data_folder(tmp_path, "math")
    with pytest.raises(ValueError, match=r"max_new_tokens is not given, and .* set max_new_tokens"):
        parse_recipe((Judged,), ["--data", data])


def test_a_folder_without_a_manifest_is_never_countdown_in_silence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="verifier is not given"):
        parse_recipe((Judged,), ["--data", str(tmp_path)])


@pytest.mark.parametrize("name", ["train_ppo", "train_grpo"])
def test_a_wrong_verifier_is_answered_before_a_model_is_loaded(name: str) -> None:
    kinds = {"train_ppo": PPOConfig, "train_grpo": GroupRLConfig}
    words = ["--policy", "p", "--data", "d", "--verifier", "maths"]
    words += ["--max_new_tokens", "9"] if name == "train_ppo" else []
    with pytest.raises(ValueError, match="verifier is 'maths'; did you mean 'math'"):
        parse_recipe((kinds[name],), words)


def test_what_a_folder_of_results_was_judged_by_is_taken_over(tmp_path: Path) -> None:
    write_json(tmp_path / "data" / MANIFEST, {"recipe": {"task": "countdown"}})
    inputs = {"data": {"source": "../data"}}
    policy = {"recipe": {}, "inputs": inputs}
    write_json(tmp_path / "sft" / MANIFEST, policy)
    judged = {"recipe": {"verifier": "math", "max_new_tokens": 9}, "inputs": inputs}
    write_json(tmp_path / "round" / MANIFEST, judged)
    said = {"verifier": "countdown", "max_new_tokens": "64"}
    assert solution_defaults(tmp_path / "sft") == said
    assert solution_defaults(tmp_path / "round") == {"verifier": "math", "max_new_tokens": "9"}
    # The limit of a solution that does not think is not that of one that does.
    write_json(tmp_path / "teacher" / MANIFEST, {**policy, "stage": "distil"})
    assert solution_defaults(tmp_path / "teacher") == {"verifier": "countdown"}
    words = ["--stages", "x", "--evaluation", str(tmp_path / "round")]
    assert parse_recipe((ReportConfig,), words)[0].verifier == "math"
    words = ["--problem", "1 2 -> 3", "--model"]
    config, settings = parse_recipe((SolveConfig, SearchSettings), [*words, str(tmp_path / "sft")])
    assert (config.verifier, settings.max_new_tokens) == (None, 64)
    with pytest.raises(ValueError, match="max_new_tokens is not given, and 'hub/m'"):
        parse_recipe((SolveConfig, SearchSettings), [*words, "hub/m"])
    with pytest.raises(ValueError, match="evaluation is 'gone': there is no such file or folder"):
        parse_recipe((ReportConfig,), ["--stages", "x", "--evaluation", "gone"])


def test_every_task_has_a_verifier() -> None:
    assert DEFAULTS_OF_TASK.keys() == TASKS.keys()
    for values in DEFAULTS_OF_TASK.values():
        assert values["verifier"] in VERIFIERS
        assert values.keys() <= {"verifier", "max_new_tokens"}
