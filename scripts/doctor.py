"""Check this machine and its installation; each line says ok, or what to do:

python scripts/doctor.py
python scripts/doctor.py --server http://localhost:8100 http://localhost:8000 --output_dir outputs

The exit status is 1 if something that is needed is missing. It needs no installed package, so it
also says why an installation failed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    if sys.version_info < (3, 11):  # noqa: UP036, an older Python reads this file too
        print(
            "missing  python  thinktree needs Python 3.11 or newer; this is", sys.version.split()[0]
        )
        print("         -> install one, and name it: make setup PYTHON=python3.12")
        return 1
    sys.path.insert(0, str(ROOT))  # this project need not be installed yet
    from trainer.runtime.doctor import findings, installation, machine, services

    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--server", nargs="*", default=[], help="addresses of scoring servers, "
                        "vLLM servers and OpenAI-compatible servers")  # fmt: skip
    parser.add_argument("--output_dir", type=Path, default=Path("outputs"), help="where runs go")
    options = parser.parse_args()
    torch = installation.ask_torch(os.environ)
    driver = installation.ask_driver(os.environ)
    found = [
        installation.check_python(installation.python_headers()),
        installation.check_compiler(os.environ),
        installation.check_ninja(os.environ),
        installation.check_torch(
            torch,
            driver,
            os.environ.get("CUDA_VISIBLE_DEVICES"),
            installation.installed_version("torch"),
        ),
        installation.check_versions(ROOT),
        installation.check_deepspeed(torch, os.environ, time.time()),
        machine.check_sandbox(),
        machine.check_memory(machine.available_memory()),
        machine.check_disk(options.output_dir),
        machine.check_room("disk of the hub", machine.hub_cache(os.environ), "HF_HOME"),
        machine.check_room("disk of TMPDIR", machine.temporary_folder(os.environ), "TMPDIR"),
        machine.check_shared_memory(),
        machine.check_open_files(),
        services.check_wandb(),
        services.check_hub(os.environ),
        *(services.check_server(address) for address in options.server),
    ]
    print(findings.as_text(found))
    return findings.exit_status(found)


if __name__ == "__main__":
    sys.exit(main())
