"""A recipe of tiny stages: run, skip, resume, replace; typos are answered with the nearest name."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from data.settings import ROOT
from trainer.pipeline import launch
from trainer.pipeline import run as running
from trainer.pipeline.fingerprints import source_hash
from trainer.pipeline.launch import WAITING, busy_cores_note, child_environment, exclusive
from trainer.pipeline.plan import print_plan
from trainer.pipeline.recipe import load_pipeline, stage_words
from trainer.pipeline.run import run_pipeline, selected_stages, stage_record, stage_state
from trainer.runtime.manifests import read_manifest

SCRIPT = '''
"""Writes `text`, and what it read; appends to calls.txt beside the output."""
import argparse, os, signal, subprocess, sys, time
from pathlib import Path
from helper import SUFFIX
from trainer.runtime.manifests import write_manifest

p = argparse.ArgumentParser()
for name in ("config", "output_dir", "seed", "run_name", "run_group", "text", "source", "mode",
             "train_file"):
    p.add_argument("--" + name)
a = p.parse_args()
out = Path(a.output_dir)
out.mkdir(parents=True, exist_ok=True)
with (out.parent / "calls.txt").open("a") as calls:
    calls.write(a.run_name + "\\n")
print("hello from", a.run_name)
if a.mode == "fail":
    sys.exit("it broke")
if a.mode == "forget":
    sys.exit(0)
if a.mode == "hang" and not (out / "half.txt").exists():
    other = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True
    )
    (out / "pids.json").write_text(f"[{os.getpid()}, {other.pid}]")
    (out / "half.txt").write_text("first attempt")
    time.sleep(60)
read = (Path(a.source) / "result.txt").read_text() if a.source else ""
(out / "result.txt").write_text(f"{read}{a.text}{SUFFIX}{a.seed}")
write_manifest(out, stage=a.run_name, recipe={}, seed=int(a.seed))
'''


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "make.py").write_text(SCRIPT)
    (tmp_path / "scripts" / "helper.py").write_text("SUFFIX = '!'\n")
    (tmp_path / "make.yaml").write_text("max_steps: 3\n")
    (tmp_path / "cpu.yaml").write_text((ROOT / "recipes/accelerate/cpu.yaml").read_text())
    (tmp_path / "recipe.yaml").write_text(
        "run_name: toy\noutput_dir: out\nseed: 5\naccelerate_config: cpu.yaml\nstages:\n"
        "  - {name: data, script: scripts/make.py, config: make.yaml, args: {text: a}}\n"
        "  - name: sft\n    script: scripts/make.py\n"
        "    args: {text: b, source: '{data}'}\n"
        "  - {name: aside, script: scripts/make.py, args: {text: c}}\n"
    )
    monkeypatch.chdir(tmp_path)
    # The launcher itself takes 5 s to import; the last test runs it.
    monkeypatch.setattr(
        running, "launcher_words", lambda _: ([sys.executable], ["accelerate", "launch"])
    )
    monkeypatch.setattr(launch, "POLL_SECONDS", 0.02)
    return tmp_path


def run(*overrides: str) -> tuple[int, list[str]]:
    """Exit status, and the stages that were called."""
    calls = Path("out/calls.txt")
    calls.unlink(missing_ok=True)
    recipe = load_pipeline("recipe.yaml", overrides)
    status = run_pipeline(recipe, recipe.stages, "again")
    return status, calls.read_text().split() if calls.exists() else []


def test_runs_in_order_then_skips_what_is_unchanged(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == (0, ["data", "sft", "aside"])
    assert (project / "out/sft/result.txt").read_text() == "a!5b!5"
    assert "hello from sft" in (project / "out/logs/sft.log").read_text()
    (project / "out/report.html").write_text("")
    capsys.readouterr()
    assert run() == (0, [])
    said = capsys.readouterr().out
    assert said.count("unchanged, skipped") == 3
    assert "report: out/report.html" in said
    assert "total" in said


def test_a_launch_config_that_is_set_holds_for_every_stage(project: Path) -> None:
    path = project / "recipe.yaml"
    text = path.read_text().replace("{name: aside,", "{name: aside, accelerate_config: two.yaml,")
    path.write_text(text)
    for name in ("two.yaml", "gpu.yaml"):
        (project / name).write_text((project / "cpu.yaml").read_text())
    (project / "on_gpu.yaml").write_text(
        "extends: recipe.yaml\nrun_name: toy\noutput_dir: out\naccelerate_config: gpu.yaml\n"
    )

    def configs(name: str, *overrides: str) -> list[str | None]:
        recipe = load_pipeline(name, overrides)
        return [stage.accelerate_config or recipe.accelerate_config for stage in recipe.stages]

    assert configs("recipe.yaml") == ["cpu.yaml", "cpu.yaml", "two.yaml"]
    assert configs("recipe.yaml", "accelerate_config=gpu.yaml") == ["gpu.yaml"] * 3
    assert configs("on_gpu.yaml") == ["gpu.yaml"] * 3
    assert configs("on_gpu.yaml", "aside.accelerate_config=two.yaml")[2] == "two.yaml"


def test_arguments_reach_the_command_line(project: Path) -> None:
    recipe = load_pipeline(
        "recipe.yaml",
        ["sft.flag=true", "sft.none=null", "sft.list=[1, '{data}']", "sft.map={k: 1}", "seed=9"],
    )
    inner = load_pipeline("recipe.yaml", ["aside.map={k: {of: ['{data}', 2]}}"])
    assert stage_words(inner, inner.stages[2])[-1] == '{"k": {"of": ["out/data", 2]}}'
    assert inner.stages[2].inputs == ("data",)
    assert " ".join(stage_words(recipe, recipe.stages[1])) == (
        "scripts/make.py --output_dir out/sft --seed 9 --run_name sft --run_group toy --text b "
        '--source out/data --flag true --list 1 out/data --map {"k": 1}'
    )
    assert recipe.stages[1].inputs == ("data",)


def test_what_reads_a_changed_stage_runs_again(project: Path) -> None:
    run()
    assert run("data.text=z") == (0, ["data", "sft"])
    assert (project / "out/sft/result.txt").read_text() == "z!5b!5"
    assert (project / "out/replaced/sft-1/result.txt").read_text() == "a!5b!5"
    # A change that leaves the output as it was stops there.
    (project / "make.yaml").write_text("max_steps: 4\n")
    assert run("data.text=z") == (0, ["data"])
    # Comments in a config are no change.
    (project / "make.yaml").write_text("# a comment\nmax_steps: 4\n")
    assert run("data.text=z") == (0, [])


def test_changed_code_runs_again_but_not_changed_layout(project: Path) -> None:
    run()
    before = source_hash(Path("scripts/make.py"))
    (project / "scripts/helper.py").write_text("# why\nSUFFIX   = '!'\n")
    assert source_hash(Path("scripts/make.py")) == before
    assert run() == (0, [])
    (project / "scripts/helper.py").write_text("SUFFIX = '?'\n")
    assert run() == (0, ["data", "sft", "aside"])


def test_a_changed_file_of_the_user_runs_again(project: Path) -> None:
    """A file, and a folder of files."""
    script, rows = project / "scripts/make_data.py", project / "rows.jsonl"
    script.write_text(SCRIPT)
    recipe = (project / "recipe.yaml").read_text()
    old = "script: scripts/make.py, config: make.yaml, args: {text: a}"
    new = "script: scripts/make_data.py, config: make.yaml, args: {text: a, train_file: rows.jsonl}"
    assert old in recipe
    (project / "recipe.yaml").write_text(recipe.replace(old, new))
    rows.write_text("35")
    run()
    assert run() == (0, [])
    rows.write_text("35")
    os.utime(rows, ns=(1, 1))
    assert run() == (0, [])  # the bytes count, not the time
    rows.write_text("77")
    assert run() == (0, ["data"])
    rows.unlink()
    rows.mkdir()
    (rows / "part.jsonl").write_text("77")
    assert run() == (0, ["data"])
    (rows / "part.jsonl").write_text("78")
    assert run() == (0, ["data"])


def test_a_manifest_made_by_hand_is_noticed(project: Path) -> None:
    run()
    path = project / "out/aside/manifest.json"
    path.write_text(json.dumps(read_manifest(path.parent) | {"seed": 6}))
    assert run() == (0, ["aside"])


@pytest.mark.slow
def test_interrupted_stage_dies_with_its_children_and_is_resumed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        if (project / "out/data/half.txt").exists():
            monkeypatch.setattr(launch.time, "sleep", sleep)
            raise KeyboardInterrupt
        sleep(0.02)

    sleep = time.sleep
    monkeypatch.setattr(launch.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run("data.mode=hang")
    for pid in json.loads((project / "out/data/pids.json").read_text()):
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"
    recipe = load_pipeline("recipe.yaml", ["data.mode=hang"])
    assert stage_state(recipe, recipe.stages[0]) == "resume"
    first = stage_record(recipe, "data")
    assert first is not None

    assert run("data.mode=hang") == (0, ["data", "sft", "aside"])
    assert (project / "out/data/half.txt").read_text() == "first attempt"  # the same folder
    record = stage_record(recipe, "data")
    assert record is not None
    assert record.attempts == 2
    assert record.seconds > first.seconds > 0
    assert not (project / "out/replaced").exists()


def test_incomplete_work_of_another_recipe_is_never_mixed_in(project: Path) -> None:
    assert run("data.mode=fail")[0] == 1
    (project / "out/data/checkpoint.txt").write_text("of the old recipe")
    assert run("data.text=new")[0] == 0
    assert not (project / "out/data/checkpoint.txt").exists()
    assert (project / "out/replaced/data-1/checkpoint.txt").exists()
    # A folder that no record vouches for is moved aside as well.
    (project / "out/stages/aside.json").unlink()
    assert run("data.text=new") == (0, ["aside"])


def test_failure_shows_the_log_and_the_line_to_continue(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("sft.mode=fail") == (1, ["data", "sft"])
    said = capsys.readouterr().out
    assert "it broke" in said
    assert "To continue after a correction:\n  again" in said
    assert run("sft.mode=forget")[0] == 1
    assert "wrote no manifest.json" in capsys.readouterr().out


def test_the_launchers_own_traceback_is_left_out(tmp_path: Path) -> None:
    log = tmp_path / "stage.log"
    launchers = (
        'Traceback (most recent call last):\n  File "launch.py", line 9\n'
        "subprocess.CalledProcessError: Command '['python']' returned non-zero exit status 2.\n"
    )
    log.write_text(f"ready\nerror: no such file\n{launchers}")
    assert launch.tail(log, 25) == "ready\nerror: no such file"
    stages = 'Traceback (most recent call last):\n  File "stage.py"\nValueError: why\n'
    log.write_text(stages + launchers)
    assert launch.tail(log, 25) == stages.rstrip()
    log.write_text(stages)
    assert launch.tail(log, 25) == stages.rstrip()
    log.write_text(launchers)
    assert launch.tail(log, 25) == launchers.rstrip()


def test_the_status_is_no_librarys_noise() -> None:
    text = (
        "prm: 3 of 4 done\r\nLoading weights: 100%|###|\rf.py:9: UserWarning: old\n"
        '  warnings.warn("old")\n'
    )
    assert launch._last_line(io.BytesIO(text.encode())) == "prm: 3 of 4 done"  # pyright: ignore[reportPrivateUsage]


def test_from_and_only(project: Path) -> None:
    recipe = load_pipeline("recipe.yaml")
    names = [stage.name for stage in selected_stages(recipe, "sft", None)]
    assert names == ["sft", "aside"]
    with pytest.raises(ValueError, match="reads 'data', which is not complete"):
        run_pipeline(recipe, selected_stages(recipe, None, "sft"), "")
    with pytest.raises(ValueError, match="--only 'sfd' is not a stage; did you mean 'sft'"):
        selected_stages(recipe, None, "sfd")


def test_a_recipe_extends_another(project: Path) -> None:
    small = Path("small.yaml")
    text = "extends: recipe.yaml\nrun_name: small\noutput_dir: small\n"
    small.write_text(text + "set:\n  sft: {text: z, config: make.yaml}\n")
    base, pipeline = load_pipeline("recipe.yaml"), load_pipeline(small, ["aside.text=y"])
    assert (pipeline.run_name, pipeline.output_dir, pipeline.seed) == ("small", "small", 5)
    assert pipeline.stages[0] == base.stages[0]
    assert pipeline.stages[1].args == {"text": "z", "source": "{data}"}
    assert pipeline.stages[1].config == "make.yaml"
    assert pipeline.stages[2].args == {"text": "y"}
    for wrong, said in (
        ("set:\n  sfd: {text: z}\n", "names the unknown stage 'sfd'; did you mean 'sft'"),
        ("set: [1]\n", "set must be a mapping"),
        ("values: {a: 1}\n", "values must come from 'recipe.yaml', which extends names"),
        ("stages: []\n", "stages must come from 'recipe.yaml', which extends names"),
        ("set:\n  sft: 3\n", "'sft' is unknown; it is a stage: give sft.key"),
    ):
        small.write_text(text + wrong)
        with pytest.raises(ValueError, match=said):
            load_pipeline(small)
    for key in ("run_name", "output_dir"):
        small.write_text(text.replace(f"{key}: small\n", ""))
        with pytest.raises(ValueError, match=f"another recipe must set {key}"):
            load_pipeline(small)
    small.write_text(text)
    Path("smaller.yaml").write_text(text.replace("recipe.yaml", "small.yaml"))
    with pytest.raises(ValueError, match=r"'small.yaml' itself extends a recipe"):
        load_pipeline("smaller.yaml")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("run_name", "run_nmae", "unknown key 'run_nmae' in recipe; did you mean 'run_name'"),
        (" config:", " confg:", "unknown key 'confg' in stage 'data'; did you mean 'config'"),
        (
            "{data}",
            "{dta}",
            "stage 'sft' reads 'dta', which is not an earlier stage; did you mean 'data'",
        ),
        ("{data}", "{sft}", "reads 'sft', which is not an earlier stage"),
        ("scripts/make.py", "scripts/mkae.py", "is not a file; did you mean 'scripts/make.py'"),
        ("name: aside", "name: data", "used more than once"),
        ("name: aside", "name: logs", "not stages, logs"),
        ("seed: 5", "seed: 1.5", "seed must be of type int, got 1.5"),
        ("output_dir: out\n", "", "recipe needs the key 'output_dir'"),
    ],
)
def test_typos_in_the_recipe(project: Path, old: str, new: str, said: str) -> None:
    path = project / "recipe.yaml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=said):
        load_pipeline(path)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("sead=3", "did you mean 'seed'"),
        ("sftt.text=3", "unknown stage 'sftt'; did you mean 'sft'"),
        ("seed", "takes key=value"),
    ],
)
def test_typos_in_overrides(project: Path, override: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load_pipeline("recipe.yaml", [override])


CHOICES = (
    "values: {learner: a, steps: 3}\n"
    "stages:\n"
    "  - {name: data, script: scripts/make.py, args: {text: $steps}}\n"
    "  - {name: a, script: scripts/make.py, when: {learner: a}, args: {source: '{data}'}}\n"
    "  - {name: b, script: scripts/make.py, when: {learner: [b, c]}, args: {source: '{data}'}}\n"
    "  - {name: next, script: scripts/make.py, when: {learner: a}, args: {source: '{a}'}}\n"
    "  - {name: next, script: scripts/make.py, when: {learner: [b, c]}, args: {source: '{b}'}}\n"
    "  - {name: last, script: scripts/make.py, args: {text: ['{a}', '{b}', $steps]}}\n"
)


def chosen(*overrides: str) -> dict[str, dict[str, object]]:
    path = Path("recipe.yaml")
    path.write_text("run_name: toy\noutput_dir: out\n" + CHOICES)
    return {stage.name: stage.args for stage in load_pipeline(path, overrides).stages}


def test_stages_are_there_for_some_values_only(project: Path) -> None:
    found = chosen()
    assert list(found) == ["data", "a", "next", "last"]
    assert (found["next"], found["last"]) == ({"source": "{a}"}, {"text": ["{a}", 3]})
    found = chosen("learner=c", "steps=7", "next.text=z")
    assert list(found) == ["data", "b", "next", "last"]
    assert found["next"] == {"source": "{b}", "text": "z"}
    assert (found["data"], found["last"]) == ({"text": 7}, {"text": ["{b}", 7]})


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("learner=d", "learner is 'd'; allowed: a, b, c"),
        ("lerner=b", "'lerner' is unknown; did you mean 'learner'"),
        ("b.text=z", "stage 'b', which is left out: learner is 'a'"),
    ],
)
def test_typos_in_values(project: Path, override: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        chosen(override)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{text: $steps}", "{text: $stebs}", "names the value 'stebs'.*did you mean 'steps'"),
        ("when: {learner: a}", "when: {lerner: a}", "value 'lerner'.*did you mean 'learner'"),
        ("when: {learner: a}", "when: a", "when of stage 'a' must be a mapping"),
        ("steps: 3", "seed: 3", "values must be a mapping whose names are no other keys"),
    ],
)
def test_typos_in_choices(project: Path, old: str, new: str, said: str) -> None:
    path = project / "recipe.yaml"
    text = "run_name: toy\noutput_dir: out\n" + CHOICES
    path.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=said):
        load_pipeline(path)


def test_one_run_at_a_time(project: Path) -> None:
    with exclusive(Path("out")), pytest.raises(ValueError, match="in use by another run"):
        run()


def test_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    assert child_environment(2)["OMP_NUM_THREADS"] == "3"
    assert child_environment(16)["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert child_environment(2)["OMP_NUM_THREADS"] == "7"


# Of six cores, the process may use the first four.
@pytest.mark.parametrize(
    ("busy", "processes", "waiting"),
    [
        ([0, 0, 0, 0, 100, 100], 1, {"GOMP_SPINCOUNT": "10000"}),
        ([5, 5, 10, 20, 0, 0], 1, {"GOMP_SPINCOUNT": "10000"}),
        ([0, 0, 0, 60, 0, 0], 1, {"OMP_WAIT_POLICY": "PASSIVE"}),
        ([100, 100, 100, 100, 0, 0], 2, {"OMP_WAIT_POLICY": "PASSIVE"}),
        ([100, 100, 0, 0, 0, 0], 2, {"OMP_WAIT_POLICY": "PASSIVE"}),  # two threads each
        ([100, 100, 100, 100, 0, 0], 4, {}),  # each has one thread, which waits for none
    ],
)
def test_threads_spin_where_no_other_work_needs_their_cores(
    monkeypatch: pytest.MonkeyPatch, busy: list[int], processes: int, waiting: dict[str, str]
) -> None:
    for name in ("OMP_NUM_THREADS", *WAITING):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    monkeypatch.setattr(psutil, "cpu_percent", lambda seconds, percpu: [float(p) for p in busy])
    environment = child_environment(processes)
    assert {name: environment[name] for name in WAITING & environment.keys()} == waiting
    assert bool(busy_cores_note(environment)) == ("OMP_WAIT_POLICY" in waiting)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    environment = child_environment(processes)
    assert WAITING & environment.keys() == {"OMP_WAIT_POLICY"}
    assert not busy_cores_note(environment)


def test_dry_run_changes_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = load_pipeline("recipe.yaml")
    print_plan(recipe, recipe.stages)
    said = capsys.readouterr().out
    assert "accelerate launch --config_file cpu.yaml scripts/make.py --config make.yaml" in said
    assert not (project / "out").exists()


@pytest.mark.slow
def test_the_script_with_the_real_launcher_stops_on_sigterm_and_continues(project: Path) -> None:
    words = [sys.executable, str(ROOT / "scripts" / "run_recipe.py"), "recipe.yaml"]
    words += ["--only", "data", "--set", "data.mode=hang"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    half = project / "out/data/half.txt"
    process = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 90
    while not half.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped. To continue:" in said
    for pid in json.loads((project / "out/data/pids.json").read_text()):
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"
    assert subprocess.run(words, env=environment, check=False).returncode == 0
    assert (project / "out/data/result.txt").read_text() == "a!5"
