"""Every launcher: a user's mistake is one line and status 2, `--help` documents every key."""

from __future__ import annotations

import dataclasses
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data.settings import field_docs
from trainer.runtime.launcher import DOCTOR, launch
from trainer.runtime.reference import is_project_config

ROOT = Path(__file__).resolve().parents[4]
SCRIPTS = sorted(path.stem for path in (ROOT / "scripts").glob("*.py"))
NO_LAUNCHERS = ("doctor", "measure_gpu", "write_reference")  # they read no recipe
LAUNCHERS = [name for name in SCRIPTS if name not in NO_LAUNCHERS]


def launcher(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_mistake_is_one_line_and_status_2(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["absent.yaml"] if name == "run_recipe" else ["--config", "absent.yaml"]
    monkeypatch.setattr(sys, "argv", [name, *words])
    with pytest.raises(SystemExit) as stop:
        launch(launcher(name).main)
    assert stop.value.code == 2
    line, *others = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "absent.yaml" in line
    assert others == []


@pytest.mark.parametrize("name", LAUNCHERS)
def test_traceback_shows_where_a_mistake_was_raised(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["absent.yaml"] if name == "run_recipe" else ["--config", "absent.yaml"]
    monkeypatch.setattr(sys, "argv", [name, *words, "--traceback"])
    with pytest.raises(ValueError, match=r"absent\.yaml"):
        launch(launcher(name).main)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("two\n  lines"), "error: two lines (--traceback shows where)"),
        (
            FileNotFoundError(2, "No such file or directory", "rows.jsonl"),
            "error: [Errno 2] No such file or directory: 'rows.jsonl' (--traceback shows where)",
        ),
        (OSError("m is no model"), "error: m is no model (--traceback shows where)"),
    ],
)
def test_what_is_a_mistake(
    error: Exception, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["x"])

    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as stop:
        launch(main)
    assert stop.value.code == 2
    assert capsys.readouterr().err == line + "\n"


@pytest.mark.parametrize("error", [KeyError("k"), RuntimeError("r"), ConnectionError(104, "reset")])
def test_a_programming_error_keeps_its_traceback(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["x"])

    def main() -> None:
        raise error

    with pytest.raises(type(error)):
        launch(main)


@pytest.mark.parametrize(
    ("error", "noted"),
    [
        (RuntimeError("Error building extension 'deepspeed_shm_comm'"), True),
        (RuntimeError("Unable to JIT load the x op due to ninja not being installed."), True),
        (ModuleNotFoundError("No module named 'trl'"), True),
        (RuntimeError("shapes differ"), False),
    ],
)
def test_an_incomplete_installation_is_said(
    error: Exception, noted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["x"])

    def main() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        launch(main)
    assert getattr(raised.value, "__notes__", []) == ([DOCTOR] if noted else [])


def test_the_status_of_main_is_the_process_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["x"])
    with pytest.raises(SystemExit) as stop:
        launch(lambda: 130)
    assert stop.value.code == 130


@pytest.mark.slow
def test_a_mistake_in_a_real_process(tmp_path: Path) -> None:
    words = [ROOT / "scripts" / "write_results.py", "--evaluation", "p", "--evalution", "q"]
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "error: unknown option '--evalution'; did you mean '--evaluation'? "
        "(--traceback shows where)"
    )
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", [name for name in LAUNCHERS if name != "run_recipe"])
def test_help_shows_every_key_with_its_line(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = launcher(name)
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as stop:
        module.main()
    assert stop.value.code == 0
    shown = "".join(capsys.readouterr().out.split())
    ours = [kind for kind in module.CONFIGS if is_project_config(kind)]
    assert ours
    first = {key: line for kind in reversed(ours) for key, line in field_docs(kind).items()}
    for key, line in first.items():
        assert f"--{key}" in shown
        assert "".join(line.split()) in shown, key
    assert "--traceback" in shown


def test_every_key_has_one_line() -> None:
    module = launcher("write_reference")
    kinds = {kind for configs in module.launcher_configs().values() for kind in configs}
    for entries in module.choices().values():
        kinds |= set(entries.values())
    ours = [kind for kind in kinds if is_project_config(kind)]
    assert len(ours) > 40
    for kind in ours:
        docs = field_docs(kind)
        for field in dataclasses.fields(kind):
            assert field.name in docs, f"{kind.__name__}.{field.name} has no line below it"
            line = docs[field.name]
            assert "\n" not in line and line.endswith("."), (kind, field.name, line)


def test_the_pages_of_keys_and_stages_are_the_code_s() -> None:
    for name, text in launcher("write_reference").reference().items():
        message = f"docs/reference/{name} is not the code's: run make docs"
        assert (ROOT / "docs" / "reference" / name).read_text() == text, message
