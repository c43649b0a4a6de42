"""The check of the installation: each thing is taken away, and its line says what is missing."""

from __future__ import annotations

import json
import os
import resource
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from rewards.sandbox.isolation import why_not_isolated
from trainer.runtime.doctor import installation, machine, services
from trainer.runtime.doctor.findings import Finding, State, as_text, exit_status, missing, ok
from trainer.runtime.doctor.installation import Driver, Torch

ROOT = Path(__file__).resolve().parents[4]
FILE = "site-packages/torch/__init__.py"
CPU = Torch(version="2.13.0+cpu", cuda=None, devices=(), file=FILE)
CUDA = Torch(version="2.13.0", cuda="13.0", devices=(), file=FILE)
DRIVER = Driver(version="535.1", gpus=("H200", "H200"), cuda=(12, 2))


def program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def closed_port() -> str:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{bound.getsockname()[1]}"


@contextmanager
def answering(answers: dict[str, tuple[int, Any]]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path, (404, {}))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_headers_and_compiler(tmp_path: Path) -> None:
    found = installation.check_python(tmp_path)
    assert found.state is State.MISSING and "Python.h" in found.found
    (tmp_path / "Python.h").touch()
    assert installation.check_python(tmp_path).state is State.OK

    found = installation.check_compiler({"PATH": str(tmp_path)})
    assert found.state is State.MISSING
    assert "c++ is not on the PATH" in found.found and "apt-get install g++" in found.mend
    program(tmp_path, "broken", "echo 'fatal error: vector: No such file' >&2; exit 1")
    found = installation.check_compiler({"PATH": str(tmp_path), "CXX": "broken"})
    assert found.state is State.MISSING and "vector: No such file" in found.found
    program(tmp_path, "c++", "cat > /dev/null")
    words = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert installation.check_compiler(words).state is State.OK


def test_ninja(tmp_path: Path) -> None:
    found = installation.check_ninja({"PATH": str(tmp_path)})
    assert found.state is State.LIMITED
    assert "ninja is not on the PATH" in found.found and "ninja-build" in found.mend
    program(tmp_path, "ninja", "echo 1.11.1")
    found = installation.check_ninja({"PATH": str(tmp_path)})
    assert found == ok("ninja", f"1.11.1, {tmp_path / 'ninja'}")


def test_torch_that_cannot_be_imported(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.12: cannot open')\n")
    torch = installation.ask_torch({**os.environ, "PYTHONPATH": str(tmp_path)})
    found = installation.check_torch(torch, None, None)
    assert found.state is State.MISSING
    assert "libcudart.so.12: cannot open" in found.found and "make setup" in found.mend


def test_a_torch_that_hides_the_installed_one(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(
        "from types import SimpleNamespace as N\n__version__ = '2.1.0'\n"
        "version = N(cuda=None)\ncuda = N(is_available=lambda: False)\n"
    )
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "doctor.py")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    [at] = [i for i, line in enumerate(lines) if line.startswith("missing  torch")]
    assert f"but programs import 2.1.0 from {tmp_path / 'torch.py'}" in lines[at]
    assert "PYTHONPATH" in lines[at + 1]
    assert installation.check_torch(CPU, None, None, "2.13.0").state is State.OK  # another build


def test_torch_says_its_version_and_its_gpus(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(
        "from types import SimpleNamespace as N\n__version__ = '2.13.0'\n"
        "version = N(cuda='12.8')\ncuda = N(is_available=lambda: True, device_count=lambda: 2,\n"
        "         get_device_name=lambda i: 'NVIDIA H200')\n"
    )
    torch = installation.ask_torch({**os.environ, "PYTHONPATH": str(tmp_path)})
    file = str(tmp_path / "torch.py")
    gpus = ("NVIDIA H200", "NVIDIA H200")
    assert torch == Torch(version="2.13.0", cuda="12.8", devices=gpus, file=file)
    found = installation.check_torch(torch, None, None)
    assert found == ok("torch", "2.13.0, CUDA 12.8; it can use 2 x NVIDIA H200")


@pytest.mark.parametrize(
    ("torch", "driver", "state", "found", "mend"),
    [
        (CPU, None, State.OK, "a build for the CPU; no NVIDIA driver", ""),
        (CPU, DRIVER, State.LIMITED, "cannot use 2 x H200", "CUDA 12.2 or older"),
        (CUDA, None, State.LIMITED, "nvidia-smi finds no GPU", "--gpus all"),
        (CUDA, DRIVER, State.MISSING, "CUDA 13.0, which is too new", "update the driver"),
        (
            Torch(version="2.13.0", cuda="12.1", devices=(), file=FILE),
            DRIVER,
            State.MISSING,
            "CUDA_VISIBLE_DEVICES is '7'",
            "unset CUDA_VISIBLE_DEVICES",
        ),
    ],
)
def test_torch_against_the_driver(
    torch: Torch, driver: Driver | None, state: State, found: str, mend: str
) -> None:
    line = installation.check_torch(torch, driver, "7")
    assert line.state is state
    assert found in line.found and mend in line.mend


def test_the_driver_is_read_from_nvidia_smi(tmp_path: Path) -> None:
    environment = {"PATH": str(tmp_path)}
    assert installation.ask_driver(environment) is None
    program(
        tmp_path,
        "nvidia-smi",
        'if [ "$1" ]; then echo "NVIDIA H200, 570.124.06"; else echo '
        '"| NVIDIA-SMI 570.124.06    Driver Version: 570.124.06    CUDA Version: 12.8     |"; fi',
    )
    assert installation.ask_driver(environment) == Driver(
        version="570.124.06", gpus=("NVIDIA H200",), cuda=(12, 8)
    )
    program(tmp_path, "nvidia-smi", "echo 'No devices were found'; exit 6")
    assert installation.ask_driver(environment) is None


def test_deepspeed_builds(tmp_path: Path) -> None:
    environment = {"PATH": "", "TORCH_EXTENSIONS_DIR": str(tmp_path)}
    build = tmp_path / "py311_cpu" / "deepspeed_shm_comm"
    build.mkdir(parents=True)
    lock = build / "lock"
    lock.touch()
    begun = lock.stat().st_mtime
    assert installation.check_deepspeed(CPU, environment, begun + 60).state is State.OK
    found = installation.check_deepspeed(CPU, environment, begun + 2 * 3600)
    assert found.state is State.MISSING
    assert "2.0 hours ago" in found.found and found.mend == f"rm -r {build}"
    lock.unlink()
    (build / "deepspeed_shm_comm.so").touch()
    found = installation.check_deepspeed(CPU, environment, begun)
    assert found.state is State.OK and found.found.endswith("deepspeed_shm_comm")


def test_deepspeed_needs_nvcc_of_torchs_cuda(tmp_path: Path) -> None:
    torch = Torch(version="2.13.0", cuda="13.0", devices=("H200",), file=FILE)
    (tmp_path / "bin").mkdir()
    environment = {
        "PATH": "",
        "CUDA_HOME": str(tmp_path),
        "TORCH_EXTENSIONS_DIR": str(tmp_path / "builds"),
    }
    found = installation.check_deepspeed(torch, environment, 0.0)
    assert found.state is State.LIMITED and "nvcc is missing" in found.found
    for release, state in (("12.8", State.LIMITED), ("13.1", State.OK)):
        said = f"Cuda compilation tools, release {release}, V{release}.93"
        program(tmp_path / "bin", "nvcc", f"echo '{said}'")
        found = installation.check_deepspeed(torch, environment, 0.0)
        assert found.state is state


def test_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\ndependencies = ["torch>=2.11", "trl>=1.16,<2", "absent>=1", '
        "\"never>=1 ; sys_platform == 'nowhere'\"]\n"
    )
    (tmp_path / "constraints.txt").write_text("# tested\ntorch==2.13.0\ntrl==1.16.0\n")
    for name, version in (("torch", "2.10.0+cu128"), ("trl", "1.16.0")):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = installation.check_versions(tmp_path)
    assert found.state is State.MISSING and "make setup" in found.mend
    assert found.found == "needed: torch>=2.11 (installed: 2.10.0+cu128), absent>=1 (not installed)"
    text = '[project]\ndependencies = ["torch>=2.9"]\n'
    (tmp_path / "pyproject.toml").write_text(text)
    found = installation.check_versions(tmp_path)
    assert found.state is State.LIMITED and "torch 2.10.0+cu128 (tested: 2.13.0)" in found.found


def test_every_package_has_a_tested_version() -> None:
    tested = (ROOT / "constraints.txt").read_text().lower()
    project = installation.tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [text.split(">")[0].strip() for text in project["dependencies"]]
    assert [name for name in names if f"\n{name}==" not in f"\n{tested}"] == []


def test_sandbox_without_bubblewrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = machine.check_sandbox(why_not_isolated.__wrapped__)
    assert found.state is State.LIMITED
    assert found.found.endswith("do not run: bubblewrap is not installed")
    assert found.mend == "apt-get install bubblewrap (Debian, Ubuntu)"


def test_switches_of_the_kernel_that_forbid_namespaces(tmp_path: Path) -> None:
    (tmp_path / "kernel").mkdir()
    (tmp_path / "user").mkdir()
    (tmp_path / "kernel/apparmor_restrict_unprivileged_userns").write_text("1\n")
    (tmp_path / "kernel/unprivileged_userns_clone").write_text("1\n")
    (tmp_path / "user/max_user_namespaces").write_text("0\n")
    assert machine.forbidding_switches(tmp_path) == [
        ("kernel.apparmor_restrict_unprivileged_userns", "0"),
        ("user.max_user_namespaces", "10000"),
    ]


def test_memory(tmp_path: Path) -> None:
    assert machine.available_memory(tmp_path, tmp_path) == -1
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    8388608 kB\n")
    assert machine.available_memory(tmp_path, tmp_path / "none") == 8 << 30
    (tmp_path / "memory.current").write_text(f"{1 << 30}\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.available_memory(tmp_path, tmp_path) == 8 << 30
    (tmp_path / "memory.max").write_text(f"{3 << 29}\n")  # a container of 1.5 GiB, 1 GiB used
    found = machine.check_memory(machine.available_memory(tmp_path, tmp_path))
    assert found.state is State.MISSING and found.found.startswith("512 MiB are free")
    assert machine.check_memory(2 << 30).state is State.LIMITED
    assert machine.check_memory(4 << 30).state is State.OK


def test_disk_and_shared_memory(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet" / "there"
    asked: list[Path] = []

    def full(path: Path) -> int:
        asked.append(path)
        return 100 << 20

    found = machine.check_disk(folder, full)
    assert found.state is State.MISSING and found.found.startswith("100 MiB are free")
    assert asked == [tmp_path] and "another disk" in found.mend
    assert machine.check_disk(folder, lambda path: 5 << 30).state is State.LIMITED
    assert machine.check_disk(folder, lambda path: 10 << 30).state is State.OK
    found = machine.check_shared_memory(tmp_path, lambda path: 64 << 20)
    assert found.state is State.LIMITED and "--shm-size" in found.mend
    assert machine.check_shared_memory(folder).state is State.LIMITED
    assert machine.check_shared_memory(tmp_path, lambda path: 1 << 30).state is State.OK


def test_the_hub_cache_and_temporary_files_need_room(tmp_path: Path) -> None:
    found = machine.check_room("hub cache", tmp_path / "new", "HF_HOME", lambda path: 0)
    assert found.state is State.LIMITED and "set HF_HOME" in found.mend
    assert found.found == f"0 MiB are free in {tmp_path / 'new'}"
    assert machine.check_room("x", tmp_path, "X", lambda path: 1 << 30).state is State.OK
    home = Path.home()
    assert machine.hub_cache({}) == home / ".cache" / "huggingface" / "hub"
    assert machine.hub_cache({"XDG_CACHE_HOME": "/a"}) == Path("/a/huggingface/hub")
    assert machine.hub_cache({"XDG_CACHE_HOME": "/a", "HF_HOME": "/b"}) == Path("/b/hub")
    assert machine.hub_cache({"HF_HOME": "/b", "HF_HUB_CACHE": "~/c"}) == home / "c"
    assert machine.temporary_folder({"TMPDIR": "", "TEMP": "/t"}) == Path("/t")
    assert machine.temporary_folder({}) == Path("/tmp")


def test_open_files() -> None:
    assert machine.check_open_files((1024, 1024)).state is State.OK
    assert machine.check_open_files((resource.RLIM_INFINITY, 4096)).state is State.OK
    assert machine.check_open_files((512, 4096)).mend == "ulimit -n 4096"
    found = machine.check_open_files((64, 512))
    assert found.state is State.MISSING and "limits.conf" in found.mend


def test_a_server_that_is_down() -> None:
    found = services.check_server(closed_port())
    assert found.state is State.MISSING and "refused" in found.found
    assert services.check_server("localhost:8000").found == "is no address"


def test_servers_say_their_model() -> None:
    models = {"data": [{"id": "outputs/round_2"}]}
    with answering({"/health": (200, {"reward_model": "outputs/prm_2"})}) as address:
        assert services.check_server(address).found.endswith("the reward model outputs/prm_2")
    with answering({"/health": (200, {}), "/v1/models": (200, models)}) as address:
        assert services.check_server(f"{address}/v1/").found == "serves outputs/round_2"
    with answering({"/health": (200, {}), "/v1/models": (401, {})}) as address:
        assert "API key" in services.check_server(address).found
    with answering({"/health": (503, {})}) as address:
        assert services.check_server(address).mend == "wait, and try again"
    with answering({}) as address:
        assert "neither a scoring server" in services.check_server(address).found


def test_wandb_and_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert services.check_wandb().found.startswith("offline (nobody is logged in)")
    monkeypatch.setenv("WANDB_API_KEY", "k")
    monkeypatch.setenv("WANDB_BASE_URL", closed_port())
    found = services.check_wandb()
    assert found.state is State.LIMITED and found.mend == "WANDB_MODE=offline"
    assert services.check_hub({"HF_HUB_OFFLINE": "1"}).state is State.OK
    found = services.check_hub({"HF_ENDPOINT": closed_port()})
    assert found.state is State.LIMITED and found.found.startswith("offline: ")
    with answering({}) as address:
        assert services.check_hub({"HF_ENDPOINT": address}).state is State.OK


def test_the_text_and_the_status() -> None:
    findings = [ok("disk", "5 GiB are free"), missing("torch", "is missing", "make setup")]
    assert as_text(findings).splitlines() == [
        "ok       disk   5 GiB are free",
        "missing  torch  is missing",
        "                -> make setup",
        "",
        "1 ok, 0 limited, 1 missing",
    ]
    assert exit_status(findings) == 1
    limited = Finding(name="ninja", state=State.LIMITED, found="is missing", mend="install it")
    assert exit_status([findings[0], limited]) == 0


def test_the_doctor_runs_where_nothing_is_installed(tmp_path: Path) -> None:
    """Without site-packages, and without a compiler, ninja or bubblewrap on the PATH."""
    (tmp_path / "torch.py").write_text("raise ImportError('no torch')\n")
    done = subprocess.run(
        [sys.executable, "-S", str(ROOT / "scripts" / "doctor.py"), "--server", closed_port()],
        cwd=tmp_path,
        env={
            "PATH": str(tmp_path),
            "HOME": str(tmp_path),
            "PYTHONPATH": str(tmp_path),
            "HF_HUB_OFFLINE": "1",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    for name, state in (
        ("compiler", "missing"), ("ninja", "limited"), ("versions", "missing"),
        ("torch", "missing"), ("sandbox", "limited"), ("W&B", "limited"), ("hub", "ok"),
        ("server", "missing"),
    ):  # fmt: skip
        [line] = [line for line in lines if line[9:].startswith(name)]
        assert line.startswith(state), line
