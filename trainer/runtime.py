"""What every stage script needs beside its own work: seed, manifest, checkpoints, W&B.

Every function works with or without torch.distributed initialised; heavy libraries are imported
where they are used, so that reading a recipe stays quick.
"""

from __future__ import annotations

import contextlib
import importlib.util
import netrc
import os
import random
import secrets
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.manifests import (
    MANIFEST,
    is_complete,
    is_main_process,
    read_json,
    read_manifest,
    write_manifest,
)

if TYPE_CHECKING:
    from trainer.checkpoints import CheckpointManifest, latest_checkpoint

__all__ = [
    "CheckpointManifest",
    "Run",
    "RuntimeConfig",
    "is_complete",
    "is_main_process",
    "latest_checkpoint",
    "read_manifest",
    "set_seed",
    "start_wandb",
    "wandb_mode",
    "write_manifest",
]


def __getattr__(name: str) -> Any:
    """The two names that need transformers, imported (5 s) only when asked for."""
    if name in ("CheckpointManifest", "latest_checkpoint"):
        from trainer import checkpoints

        return getattr(checkpoints, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """Options every stage has. `run_name` is the stage's and `run_group` the whole run's name in
    W&B; `wandb: false` records nothing there. After `hang_seconds` without progress all stacks go
    to the log (0: never)."""

    output_dir: str
    seed: int = 17
    run_name: str | None = None
    run_group: str | None = None
    wandb: bool = True
    hang_seconds: float = 600.0

    def __post_init__(self) -> None:
        if not self.output_dir:
            raise ValueError("output_dir must name a folder, got ''")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be in [0, 2**32), got {self.seed}")
        if not self.hang_seconds >= 0:
            raise ValueError(f"hang_seconds is {self.hang_seconds}; it must be at least 0")


def cpu_processes() -> bool:
    """Whether this is one of several plain processes on a machine without an accelerator.
    accelerate and transformers must be told: else each process believes that it is alone."""
    import torch

    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return several and not deepspeed_launched() and not torch.accelerator.is_available()


def deepspeed_launched() -> bool:
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true"


def process_backend() -> str | None:
    """What processes that DeepSpeed runs without an accelerator talk over. accelerate, which knows
    no such processes, must be told; elsewhere (None) it chooses well."""
    import torch

    alone = not deepspeed_launched() or torch.accelerator.is_available()
    return None if alone else "gloo"


def process_state() -> Any:
    """accelerate's `PartialState`. Raises RuntimeError when the launcher started more processes
    than joined: they would overwrite each other's files."""
    from accelerate import PartialState

    state = PartialState(cpu=cpu_processes(), backend=process_backend())
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if state.num_processes != launched:
        raise RuntimeError(
            f"{launched} processes were launched, but only {state.num_processes} joined: check "
            "distributed_type and use_cpu in the accelerate config"
        )
    return state


def set_seed(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices), the same on every process."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A W&B run, or nothing (`handle` None): the same calls either way."""

    handle: Any = None

    def log(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        if self.handle is not None:
            self.handle.log(dict(metrics), step=step)

    def use_folder(self, name: str, folder: str | Path, kind: str) -> None:
        """Record an input. Offline its hash goes to the run's config, as W&B refuses lineage."""
        if self.handle is None:
            return
        manifest = read_json(Path(folder) / MANIFEST) or {}
        self.handle.config.update(
            {f"input/{name}": manifest.get("fingerprint", str(folder))}, allow_val_change=True
        )
        if not self.handle.offline:
            self.handle.use_artifact(_artifact(name, Path(folder), kind))

    def log_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """A W&B table of rows that have the same keys; nothing for no rows."""
        if self.handle is None or not rows:
            return
        import wandb

        columns: list[Any] = list(rows[0])
        table = wandb.Table(columns=columns, data=[[row[c] for c in columns] for row in rows])
        self.handle.log({name: table})

    def log_page(self, name: str, path: Path) -> None:
        """A self-contained HTML file."""
        if self.handle is not None:
            import wandb

            self.handle.log({name: wandb.Html(str(path), inject=False)})

    def log_folder(self, name: str, folder: str | Path, kind: str) -> None:
        """Log a complete stage folder as an artifact: its manifest, and references to its files
        with their hashes as metadata. No file but the manifest is copied or uploaded."""
        if self.handle is not None:
            self.handle.log_artifact(_artifact(name, Path(folder), kind))


def wandb_mode() -> str:
    """WANDB_MODE where it is set, 'online' for a user who is logged in, else 'offline'."""
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    return "online" if os.environ.get("WANDB_API_KEY") or _in_netrc() else "offline"


@contextlib.contextmanager
def start_wandb(runtime: RuntimeConfig, *, stage: str, recipe: Mapping[str, Any]) -> Iterator[Run]:
    """A W&B run under `output_dir`, on rank 0 only; transformers' own callback joins it.

    The run's id is kept in the folder, so a resumed stage continues its run. Other ranks,
    `wandb: false`, mode 'disabled' and a machine without wandb get a `Run` that does nothing.
    """
    mode = wandb_mode()
    installed = importlib.util.find_spec("wandb") is not None
    if not (runtime.wandb and installed and is_main_process()) or mode == "disabled":
        yield Run()
        return
    import wandb

    folder = Path(runtime.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    id_file = folder / "wandb_run_id"
    if not id_file.exists():
        id_file.write_text(secrets.token_hex(4), encoding="utf-8")
    settings = wandb.Settings(silent=True, console="off")
    handle = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "thinktree"),
        dir=str(folder),
        id=id_file.read_text(encoding="utf-8").strip(),
        resume="allow" if mode == "online" else None,
        group=runtime.run_group,
        name=runtime.run_name or stage,
        job_type=stage,
        config=dict(recipe),
        mode=mode,  # pyright: ignore[reportArgumentType]
        settings=settings,
    )
    try:
        yield Run(handle=handle)
    except BaseException:
        handle.finish(exit_code=1)
        raise
    handle.finish()


def _artifact(name: str, folder: Path, kind: str) -> Any:
    import wandb

    manifest = read_manifest(folder)
    artifact = wandb.Artifact(
        name,
        type=kind,
        metadata={key: manifest[key] for key in ("fingerprint", "outputs", "inputs", "metrics")},
    )
    artifact.add_file(str(folder / MANIFEST))
    for path in manifest["outputs"]:
        artifact.add_reference(f"file://{(folder / path).resolve()}", name=path, checksum=False)
    return artifact


def _in_netrc() -> bool:
    base = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    path = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    try:
        return netrc.netrc(str(path)).authenticators(urllib.parse.urlparse(base).netloc) is not None
    except (OSError, netrc.NetrcParseError):
        return False
