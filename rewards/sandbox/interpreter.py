"""Which Python runs inside a sandbox, what of this project it gets to run, and which packages."""

from __future__ import annotations

import base64
import importlib.util
import marshal
import os
import stat
import subprocess
import sys
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
PACKAGES_FOLDER = "/packages"
# What programs may import beside the standard library, and what these need themselves.
PACKAGES = ("numpy", "sympy", "mpmath")
PROGRAM = ("literals", "objects", "channel", "choice", "operations", "run_program")
MODULES = {
    "run_program": PROGRAM,
    "run_stdin": (*PROGRAM, "run_stdin"),
    "run_tests": ("literals", "objects", "channel", "remote", "run_tests"),
}
ASK = "import importlib.util, sys; print(importlib.util.MAGIC_NUMBER.hex(), sys.version)"
PROBE_SECONDS = 30.0


class NoInterpreter(RuntimeError):
    """No Python on this machine that every user may run."""


@cache
def python() -> str:
    """An interpreter that every user may run: the one this environment was made from, or the
    system's. Raises NoInterpreter where neither will do."""
    base = getattr(sys, "_base_executable", sys.executable)
    for candidate in (os.path.realpath(base), "/usr/local/bin/python3", "/usr/bin/python3"):
        if os.path.isfile(candidate) and open_to_all(Path(candidate)):  # noqa: PTH113
            return candidate
    raise NoInterpreter(
        f"the Python of this environment ({base}) lies in a folder that other users may not enter, "
        "and there is no /usr/bin/python3 to run code with"
    )


@cache
def is_same_version(interpreter: str) -> bool:
    """Whether it runs what this process's Python has compiled: of the same version."""
    base = getattr(sys, "_base_executable", sys.executable)
    if interpreter in (sys.executable, base, os.path.realpath(base)):
        return True
    said = subprocess.run(
        [interpreter, "-I", "-S", "-c", ASK],
        capture_output=True,
        text=True,
        timeout=PROBE_SECONDS,
        env={},
        cwd="/",
    ).stdout
    magic, _, version = said.partition(" ")
    return (
        magic == importlib.util.MAGIC_NUMBER.hex()
        and version.split(".")[:2] == sys.version.split(".")[:2]
    )


@cache
def sources(main_module: str, interpreter: str) -> list[tuple[str, str, bool]]:
    """(name, code, whether it is compiled) of the modules that `main_module` needs, in order."""
    found: list[tuple[str, str, bool]] = []
    for name in MODULES[main_module]:
        text = (HERE / f"{name}.py").read_text(encoding="utf-8")
        whole = f"rewards.sandbox.{name}"
        if is_same_version(interpreter):
            code = marshal.dumps(compile(text, whole, "exec"))
            found.append((whole, base64.b64encode(code).decode(), True))
        else:
            found.append((whole, text, False))
    return found


@cache
def package_folders(interpreter: str) -> tuple[str, ...]:
    """The folders of the packages that can be given to the interpreter: none of them where it is
    of another version than ours, or where other users may not read them."""
    found: list[str] = []
    for name in PACKAGES if is_same_version(interpreter) else ():
        spec = importlib.util.find_spec(name)
        places = (spec.submodule_search_locations or []) if spec else []
        if not places or not open_to_all(folder := Path(places[0]).resolve()):
            continue
        found.append(str(folder))
        libraries = folder.with_name(f"{name}.libs")
        if libraries.is_dir():
            found.append(str(libraries))
    return tuple(found)


def open_to_all(path: Path) -> bool:
    if os.getuid() != 0:
        return os.access(path, os.X_OK)
    path = path.resolve()
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in [path, *path.parents])
