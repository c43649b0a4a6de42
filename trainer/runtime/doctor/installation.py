"""Python, the tools that build extensions, torch and its driver, DeepSpeed's builds, versions."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shlex
import shutil
import sys
import sysconfig
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.runtime.doctor.findings import Finding, last_line, limited, missing, ok, run_quietly

SET_UP = "run make setup"
COMPILE_SECONDS, TORCH_SECONDS, DRIVER_SECONDS = 60.0, 180.0, 30.0
BUILD_SECONDS = 1800.0  # a build's lock that is older was left by a killed process
ASK_TORCH = """
import json, torch
found = {"version": torch.__version__, "cuda": torch.version.cuda, "devices": []}
found["file"] = torch.__file__
if torch.cuda.is_available():
    count = torch.cuda.device_count()
    found["devices"] = [torch.cuda.get_device_name(i) for i in range(count)]
print(json.dumps(found))
"""


@dataclass(frozen=True, kw_only=True)
class Torch:
    """The torch that programs import, from `file`. `cuda` is the version that it was built for,
    None without CUDA. `devices` are the GPUs that it can use."""

    version: str
    cuda: str | None
    devices: tuple[str, ...]
    file: str


@dataclass(frozen=True, kw_only=True)
class Driver:
    """What nvidia-smi says. `cuda` is the newest CUDA version that the driver can run, () if it is
    not said."""

    version: str
    gpus: tuple[str, ...]
    cuda: tuple[int, ...]


def check_python(include: Path) -> Finding:
    """Python's headers in `include`, which some packages need when pip builds them."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    if not (include / "Python.h").is_file():
        return missing(
            "python",
            f"{version}, but its headers are missing: there is no {include / 'Python.h'}",
            f"apt-get install python{sys.version_info.major}-dev (Debian, Ubuntu), or install "
            "Python from python.org or with uv, with its headers",
        )
    return ok("python", f"{version} with headers, {sys.executable}")


def python_headers() -> Path:
    return Path(sysconfig.get_path("include"))


def check_compiler(environment: Mapping[str, str]) -> Finding:
    """Whether the C++ compiler, `$CXX` or c++, reads the standard library. torch and DeepSpeed
    take the same one."""
    name, *options = shlex.split(environment.get("CXX", "")) or ["c++"]
    mend = "apt-get install g++ (Debian, Ubuntu); another compiler is named by the variable CXX"
    compiler = shutil.which(name, path=environment.get("PATH", ""))
    if compiler is None:
        return missing("compiler", f"there is no C++ compiler: {name} is not on the PATH", mend)
    words = [compiler, *options, "-x", "c++", "-fsyntax-only", "-"]
    status, _, errors = run_quietly(
        words, COMPILE_SECONDS, environment=environment, given="#include <vector>\nint main() {}\n"
    )
    if status != 0:
        said = (errors.strip().splitlines() or ["no message"])[0]
        return missing("compiler", f"{compiler} compiles nothing: {said[:300]}", mend)
    return ok("compiler", compiler)


def check_ninja(environment: Mapping[str, str]) -> Finding:
    """torch starts ninja from the PATH when DeepSpeed builds an extension."""
    ninja = shutil.which("ninja", path=environment.get("PATH", ""))
    status, said, _ = (
        run_quietly([ninja, "--version"], DRIVER_SECONDS, environment=environment)
        if ninja
        else (-1, "", "")
    )
    if status != 0:
        return limited(
            "ninja",
            "ninja is not on the PATH: DeepSpeed (ZeRO-2 and ZeRO-3) cannot build its extensions",
            "apt-get install ninja-build, or pip install ninja and activate the environment",
        )
    return ok("ninja", f"{said.strip()}, {ninja}")


def ask_torch(environment: Mapping[str, str]) -> Torch | str:
    """The installed torch, or why it cannot be imported. It is imported in another process."""
    status, said, errors = run_quietly(
        [sys.executable, "-c", ASK_TORCH], TORCH_SECONDS, environment=environment
    )
    if status != 0:
        return last_line(errors)
    found = json.loads(said.splitlines()[-1])
    return Torch(**found | {"devices": tuple(found["devices"])})


def ask_driver(environment: Mapping[str, str]) -> Driver | None:
    """None where there is no NVIDIA driver, or nvidia-smi finds no GPU."""
    program = shutil.which("nvidia-smi", path=environment.get("PATH", ""))
    if program is None:
        return None
    query = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    status, said, _ = run_quietly(query, DRIVER_SECONDS, environment=environment)
    rows = [[word.strip() for word in line.rsplit(",", 1)] for line in said.splitlines() if line]
    if status != 0 or not rows or any(len(row) != 2 for row in rows):
        return None
    _, table, _ = run_quietly([program], DRIVER_SECONDS, environment=environment)
    newest = re.search(r"CUDA Version:\s*([\d.]+)", table)
    return Driver(
        version=rows[0][1],
        gpus=tuple(name for name, _ in rows),
        cuda=_numbers(newest[1]) if newest else (),
    )


def check_torch(
    torch: Torch | str, driver: Driver | None, visible: str | None, installed: str | None = None
) -> Finding:
    """torch against the driver, and against the `installed` version, None if pip knows of none.
    `visible` is the variable CUDA_VISIBLE_DEVICES."""
    if isinstance(torch, str):
        return missing("torch", f"torch cannot be imported: {torch}", SET_UP)
    if installed is not None and _public(torch.version) != _public(installed):
        return missing(
            "torch",
            f"{installed} is installed, but programs import {torch.version} from {torch.file}",
            "take that folder out of the variable PYTHONPATH; if it is not there, run pip install "
            "--force-reinstall torch -c constraints.txt",
        )
    if torch.devices:
        built = f"{torch.version}, CUDA {torch.cuda}"
        return ok("torch", f"{built}; it can use {_counted(torch.devices)}")
    if driver is None:
        if torch.cuda is None:
            return ok("torch", f"{torch.version}, a build for the CPU; no NVIDIA driver here")
        return limited(
            "torch",
            f"{torch.version} is built for CUDA {torch.cuda}, but nvidia-smi finds no GPU: "
            "everything runs on the CPU",
            "on a machine with a GPU, install its driver; give a container its GPUs (--gpus all)",
        )
    newest = ".".join(str(part) for part in driver.cuda) or "an unknown version"
    gpus = f"{_counted(driver.gpus)} (driver {driver.version}, up to CUDA {newest})"
    if torch.cuda is None:
        return limited(
            "torch",
            f"{torch.version} is a build for the CPU: it cannot use {gpus}",
            f"install a build of torch for CUDA {newest} or older (pytorch.org, Get started)",
        )
    if driver.cuda and _numbers(torch.cuda) > driver.cuda:
        return missing(
            "torch",
            f"{torch.version} is built for CUDA {torch.cuda}, which is too new for {gpus}",
            f"update the driver, or install a build of torch for CUDA {newest} or older",
        )
    return missing(
        "torch",
        f"{torch.version}, CUDA {torch.cuda}, finds none of {gpus}; CUDA_VISIBLE_DEVICES is "
        f"{'not set' if visible is None else repr(visible)}",
        "unset CUDA_VISIBLE_DEVICES, and look for errors of the driver in dmesg",
    )


def check_deepspeed(torch: Torch | str, environment: Mapping[str, str], now: float) -> Finding:
    """DeepSpeed compiles extensions at their first use. A build that was killed leaves a lock, and
    the next one waits for it for ever; nvcc must have torch's CUDA version."""
    version = installed_version("deepspeed")
    if version is None:
        return limited("deepspeed", "is not installed: no ZeRO-2 and no ZeRO-3", SET_UP)
    folder = extensions_folder(environment)
    for lock in sorted(folder.glob("**/lock")):
        age = now - lock.stat().st_mtime
        if age > BUILD_SECONDS:
            return missing(
                "deepspeed",
                f"a build was killed {age / 3600:.1f} hours ago; every stage with ZeRO waits for "
                f"its lock {lock}",
                f"rm -r {lock.parent}",
            )
    cuda = None if isinstance(torch, str) or not torch.devices else torch.cuda
    compiler = nvcc_version(environment) if cuda else None
    if cuda and (compiler is None or compiler[:1] != _numbers(cuda)[:1]):
        has = ".".join(map(str, compiler)) if compiler else "missing"
        return limited(
            "deepspeed",
            f"{version}: nvcc is {has} and torch is built for CUDA {cuda}, so extensions for the "
            "GPU (zero3_offload) cannot be built",
            f"install the CUDA toolkit {cuda}, and set CUDA_HOME to it",
        )
    built = sorted({path.parent.name for path in folder.glob("**/*.so")})
    return ok("deepspeed", f"{version}; built in {folder}: {', '.join(built) or 'nothing yet'}")


def extensions_folder(environment: Mapping[str, str]) -> Path:
    """Where torch builds extensions."""
    named = environment.get("TORCH_EXTENSIONS_DIR")
    cache = environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME", "/")) / ".cache"
    return Path(named) if named else Path(cache) / "torch_extensions"


def nvcc_version(environment: Mapping[str, str]) -> tuple[int, ...] | None:
    home = environment.get("CUDA_HOME") or environment.get("CUDA_PATH")
    path = f"{home}/bin" if home else f"{environment.get('PATH', '')}:/usr/local/cuda/bin"
    nvcc = shutil.which("nvcc", path=path)
    if nvcc is None:
        return None
    _, said, _ = run_quietly([nvcc, "--version"], DRIVER_SECONDS, environment=environment)
    release = re.search(r"release ([\d.]+)", said)
    return _numbers(release[1]) if release else None


def check_versions(root: Path) -> Finding:
    """The packages that `pyproject.toml` in `root` names: installed, within its ranges, and beside
    the versions of `constraints.txt`, with which everything was tested."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return missing("versions", "packaging is not installed", SET_UP)
    project: dict[str, Any] = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    tested = dict(
        line.lower().split("==")
        for line in (root / "constraints.txt").read_text("utf-8").splitlines()
        if "==" in line and not line.startswith("#")
    )
    lacking: list[str] = []
    other: list[str] = []
    for text in project["dependencies"]:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue
        version = installed_version(wanted.name)
        range_ = f"{wanted.name}{wanted.specifier}"
        if version is None:
            lacking.append(f"{range_} (not installed)")
        elif not wanted.specifier.contains(version, prereleases=True):
            lacking.append(f"{range_} (installed: {version})")
        elif _public(version) != tested.get(wanted.name.lower(), version):
            other.append(f"{wanted.name} {version} (tested: {tested[wanted.name.lower()]})")
    if lacking:
        return missing("versions", f"needed: {', '.join(lacking)}", SET_UP)
    if other:
        return limited(
            "versions",
            f"within the allowed ranges, but not as tested: {', '.join(other)}",
            "if something fails, pip install -c constraints.txt -e .",
        )
    return ok("versions", f"the {len(project['dependencies'])} packages have the tested versions")


def installed_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _public(version: str) -> str:
    """The version without its build: 2.13.0 for 2.13.0+cpu."""
    return version.partition("+")[0]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def _counted(names: tuple[str, ...]) -> str:
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
