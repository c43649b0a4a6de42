"""The data stage: tasks by name, bad rows, contamination, and the verdicts' counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data.tasks.code import CodeConfig
from data.tasks.countdown import CountdownConfig
from data.tasks.math import MathConfig
from data.types import Outcome, Problem, Verdict
from rewards.verifiers.tally import TALLY
from tests.unit.wandb_files import logged_with
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.stage import run_stage
from trainer.stages.data import DataConfig, bare_question, run_data, task_config_type

FILLER = "and nine more pears, eight plums, seven figs, six dates and five limes in a basket"


def gsm8k_rows(path: Path, names: list[str], *more: str) -> str:
    rows = [
        json.dumps(
            {"question": f"{name} has two apples {FILLER}. How many?", "answer": "1\n#### 2"}
        )
        for name in names
    ]
    path.write_text("\n".join([*rows, *more]) + "\n", encoding="utf-8")
    return str(path)


def run(tmp_path: Path, task: MathConfig, **fields: Any) -> dict[str, Any]:
    sizes = {"demonstrations": 3, "train": 3, "validation": 2, "test": 2}
    folder = tmp_path / "data"
    folder.parent.mkdir(exist_ok=True)
    run_data(
        RuntimeConfig(output_dir=str(folder), wandb=False),
        DataConfig(task="math", **{**sizes, **fields}),
        task,
    )
    return json.loads((folder / "manifest.json").read_text())["metrics"]


NAMES = [f"Person{i} of town{i} in land{i}, aged {i} years and {i + 3} days," for i in range(12)]


def test_bad_rows_are_left_out_up_to_the_limit(tmp_path: Path, capsys: Any) -> None:
    train = gsm8k_rows(tmp_path / "train.jsonl", NAMES[:8], "{oops", '{"question": "?"}')
    test = gsm8k_rows(tmp_path / "test.jsonl", NAMES[8:])
    metrics = run(tmp_path, MathConfig(train_rows=train, test_rows=test), max_bad_rows=2)
    assert metrics["bad_rows"] == 2
    assert [metrics[name] for name in ("demonstrations", "train", "validation", "test")] == [
        3,
        3,
        2,
        2,
    ]
    printed = capsys.readouterr().out
    assert f"left out: {train}, line 9: is not JSON: " in printed
    assert f"left out: {train}, line 10: answer is absent" in printed
    assert "2 bad rows left out, 2 allowed" in printed
    rows = (tmp_path / "data" / "bad_rows.jsonl").read_text().splitlines()
    assert json.loads(rows[1]) == {"location": f"{train}, line 10", "reason": "answer is absent"}


def test_too_many_bad_rows_fail_the_stage(tmp_path: Path) -> None:
    train = gsm8k_rows(tmp_path / "train.jsonl", NAMES[:8], "{oops", '{"question": "?"}')
    test = gsm8k_rows(tmp_path / "test.jsonl", NAMES[8:])
    with pytest.raises(ValueError, match=r"2 rows are bad, and max_bad_rows is 1.*line 9"):
        run(tmp_path, MathConfig(train_rows=train, test_rows=test), max_bad_rows=1)
    assert not (tmp_path / "data" / "manifest.json").exists()
    assert len((tmp_path / "data" / "bad_rows.jsonl").read_text().splitlines()) == 2


def test_a_corrected_file_is_read_again(tmp_path: Path) -> None:
    """Into the same folder, as nothing of an attempt that failed is kept; and a finished folder
    says that its file is now another."""
    train = gsm8k_rows(tmp_path / "train.jsonl", NAMES[:8], "{oops")
    task = MathConfig(train_rows=train, test_rows=gsm8k_rows(tmp_path / "test.jsonl", NAMES[8:]))
    with pytest.raises(ValueError, match="1 rows are bad"):
        run(tmp_path, task)
    assert run(tmp_path, task, max_bad_rows=1)["bad_rows"] == 1
    inputs = json.loads((tmp_path / "data" / "manifest.json").read_text())["inputs"]
    assert set(inputs) == {"train_rows", "test_rows"}
    gsm8k_rows(tmp_path / "train.jsonl", NAMES[:8])
    with pytest.raises(ValueError, match=r"is finished, but with other .*\(input train_rows\): ch"):
        run(tmp_path, task, max_bad_rows=1)


def test_a_failed_attempt_leaves_no_bad_rows_behind(tmp_path: Path) -> None:
    train = gsm8k_rows(tmp_path / "train.jsonl", NAMES[:8], "{oops")
    task = MathConfig(train_rows=train, test_rows=gsm8k_rows(tmp_path / "test.jsonl", NAMES[8:]))
    with pytest.raises(ValueError, match="1 rows are bad"):
        run(tmp_path, task)
    gsm8k_rows(tmp_path / "train.jsonl", NAMES[:8])
    assert run(tmp_path, task)["bad_rows"] == 0
    assert not (tmp_path / "data" / "bad_rows.jsonl").exists()


@pytest.mark.parametrize("key", ["train_rows", "test_rows"])
def test_a_source_that_is_not_there_is_named(tmp_path: Path, key: str) -> None:
    files = {
        "train_rows": gsm8k_rows(tmp_path / "train.jsonl", NAMES[:8]),
        "test_rows": gsm8k_rows(tmp_path / "test.jsonl", NAMES[8:]),
    }
    with pytest.raises(ValueError, match=f"{key} is 'gone.jsonl': there is no such file or fol"):
        run(tmp_path, MathConfig(**{**files, key: "gone.jsonl"}))


def test_bad_rows_of_a_contamination_set_count(tmp_path: Path, capsys: Any) -> None:
    train = gsm8k_rows(tmp_path / "train.jsonl", NAMES[:8])
    test = gsm8k_rows(tmp_path / "test.jsonl", NAMES[8:])
    other = gsm8k_rows(tmp_path / "other.jsonl", [NAMES[0].upper()], '{"query": "?"}')
    task = MathConfig(train_rows=train, test_rows=test)
    with pytest.raises(ValueError, match=r"1 rows are bad, and max_bad_rows is 0.*other"):
        run(tmp_path, task, contamination_sets=(other,))
    metrics = run(tmp_path / "allowed", task, contamination_sets=(other,), max_bad_rows=1)
    assert metrics["bad_rows"] == 1
    assert f"left out: {other}, line 2: question" in capsys.readouterr().out
    rows = (tmp_path / "allowed" / "data" / "bad_rows.jsonl").read_text().splitlines()
    assert json.loads(rows[0])["location"] == f"{other}, line 2"


def own_files(tmp_path: Path, train: str, test: str) -> dict[str, str]:
    files: dict[str, str] = {}
    for name, prompt in (
        ("demonstrations", "What are demonstrations for?"), ("train", train),
        ("validation", "Is this held out from all that the others ask?"), ("test", test),
    ):  # fmt: skip
        path = tmp_path / f"{name}.jsonl"
        path.write_text(json.dumps({"prompt": prompt, "answer": "1", "completion": "1"}) + "\n")
        files[f"{name}_file"] = str(path)
    return files


COUNTDOWN = CountdownConfig(
    num_numbers=3, min_number=1, max_number=9, max_value=99, min_target=1, max_target=99
)


def test_own_files_are_looked_at_whatever_the_task(tmp_path: Path) -> None:
    asked = f"{NAMES[0]} has two apples {FILLER}. How many?"
    files = own_files(tmp_path, asked.replace("two", "three"), asked)
    runtime = RuntimeConfig(output_dir=str(tmp_path / "data"), wandb=False)
    run_data(runtime, DataConfig(**files), COUNTDOWN)  # type: ignore[arg-type]
    metrics = json.loads((tmp_path / "data" / "manifest.json").read_text())["metrics"]
    assert metrics["contamination/near"] == 1


@pytest.mark.parametrize("again", ["How much is 1 + 1? ", "how MUCH is  1 + 1?"])
def test_own_files_share_no_question_by_another_case_or_space(tmp_path: Path, again: str) -> None:
    files = own_files(tmp_path, again, "How much is 1 + 1?")
    runtime = RuntimeConfig(output_dir=str(tmp_path / "data"), wandb=False)
    said = "share 1 groups of problems, such as 'how much is 1.*; drop_contaminated: true leaves"
    with pytest.raises(ValueError, match=said):
        run_data(runtime, DataConfig(**files), COUNTDOWN)  # type: ignore[arg-type]
    again_runtime = RuntimeConfig(output_dir=str(tmp_path / "dropped"), wandb=False)
    run_data(again_runtime, DataConfig(**files, drop_contaminated=True), COUNTDOWN)  # type: ignore[arg-type]


def test_a_file_of_ones_own_that_is_not_there_is_named(tmp_path: Path) -> None:
    files = own_files(tmp_path, "How much is 2 + 2?", "How much is 1 + 1?")
    Path(files["train_file"]).unlink()
    runtime = RuntimeConfig(output_dir=str(tmp_path / "data"), wandb=False)
    with pytest.raises(ValueError, match=r"train_file is '.*': there is no such file or folder"):
        run_data(runtime, DataConfig(**files), COUNTDOWN)  # type: ignore[arg-type]


def test_validation_and_test_share_no_question(tmp_path: Path) -> None:
    files = own_files(tmp_path, "How much is 2 + 2?", "How much is 1 + 1?")
    files["validation_file"] = files["test_file"]
    runtime = RuntimeConfig(output_dir=str(tmp_path / "data"), wandb=False)
    with pytest.raises(ValueError, match=r"validation and test share .* out of one of the two"):
        run_data(runtime, DataConfig(**files, drop_contaminated=True), COUNTDOWN)  # type: ignore[arg-type]


def test_bad_rows_of_ones_own_file(tmp_path: Path) -> None:
    train = gsm8k_rows(tmp_path / "train.jsonl", NAMES[:8])
    test = gsm8k_rows(tmp_path / "test.jsonl", NAMES[8:])
    mine = tmp_path / "mine.jsonl"
    mine.write_text('{"prompt": "What is it?", "answer": "5"}\n{"prompt": "no answer"}\n')
    task = MathConfig(train_rows=train, test_rows=test)
    metrics = run(tmp_path, task, max_bad_rows=1, test_file=str(mine))
    assert (metrics["bad_rows"], metrics["test"]) == (1, 1)


def test_contamination_is_reported_and_dropped(tmp_path: Path) -> None:
    near = NAMES[8].replace("aged 8", "aged 80")
    train = gsm8k_rows(tmp_path / "train.jsonl", [*NAMES[:7], near])
    test = gsm8k_rows(tmp_path / "test.jsonl", NAMES[8:10])
    other = gsm8k_rows(tmp_path / "other.jsonl", [NAMES[0].upper()])
    task = MathConfig(train_rows=train, test_rows=test)
    fields = {"demonstrations": 4, "train": 4, "validation": 0, "contamination_sets": (other,)}
    metrics = run(tmp_path, task, **fields)
    assert metrics["contamination/near"] == 1
    assert metrics["contamination/exact"] == 1
    assert metrics["contamination/dropped"] == 0
    assert metrics["demonstrations"] + metrics["train"] == 8
    lines = (tmp_path / "data" / "contamination.jsonl").read_text().splitlines()
    assert {json.loads(line)["first"] for line in lines} == {"test", other}
    dropping = tmp_path / "dropping"
    dropping.mkdir()
    metrics = run(dropping, task, **fields, drop_contaminated=True)
    assert metrics["contamination/dropped"] == 2
    assert metrics["demonstrations"] + metrics["train"] == 6


def test_the_question_is_taken_without_its_prompt() -> None:
    asked = Problem(id="p", prompt="Question: How  MANY?\nAnswer:\n", answer="1", group="How many?")
    assert bare_question(asked) == "how many?"
    assert (
        bare_question(Problem(id="p", prompt="1 2 -> 3\n", answer="3", group="1 2 7"))
        == "1 2 -> 3\n"
    )


def test_which_task_a_command_line_asks_for(tmp_path: Path) -> None:
    recipe = tmp_path / "data.yaml"
    recipe.write_text("task: math\n")
    assert task_config_type([]) is CountdownConfig
    assert task_config_type(["--config", str(recipe)]) is MathConfig
    assert task_config_type(["--config", str(recipe), "--task", "code"]) is CodeConfig
    assert task_config_type(["--task=code"]) is CodeConfig
    with pytest.raises(ValueError, match="task is 'maths'; did you mean 'math'"):
        task_config_type(["--task", "maths"])
    with pytest.raises(ValueError, match="verifier is 'maths'; did you mean 'math'"):
        DataConfig(verifier="maths")
    with pytest.raises(ValueError, match="max_bad_rows is -1"):
        DataConfig(max_bad_rows=-1)


def test_a_stages_verdicts_are_in_its_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    wrong = Verdict(outcome=Outcome.WRONG)
    TALLY.count("code", wrong, timed_out=True)
    with run_stage("x", RuntimeConfig(output_dir=str(tmp_path)), [], {}):
        TALLY.count("code", wrong)
        TALLY.count("code", wrong, timed_out=True)
    metrics = json.loads((tmp_path / "manifest.json").read_text())["metrics"]
    assert metrics["verdicts/code/wrong"] == 2
    assert metrics["verdicts/code/timed_out"] == 1
    [written] = tmp_path.glob("**/offline-run-*/run-*.wandb")
    logged = logged_with(written, "x/verdicts/code/timed_out")
    assert logged["x/verdicts/code/timed_out"] == "1"
    assert logged["x/verdicts/code/wrong"] == "2"
