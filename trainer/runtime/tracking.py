"""Tracking in W&B: one run per stage, offline unless the user is logged in.

The functions that use W&B import it, so that reading a recipe stays quick.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import netrc
import os
import secrets
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.runtime.config import RuntimeConfig
from trainer.runtime.manifests import (
    MANIFEST,
    read_json,
    read_manifest,
)
from trainer.runtime.processes import is_main_process


@dataclass(frozen=True, kw_only=True)
class Run:
    """A W&B run. With `handle` None every call does nothing. `growing` holds the tables that get
    more rows, by name."""

    handle: Any = None
    growing: dict[str, Any] = field(default_factory=dict[str, Any])

    def log(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        if self.handle is not None:
            self.handle.log(dict(metrics), step=step)

    def use_folder(self, name: str, folder: str | Path, kind: str) -> None:
        """Record an input. Offline, W&B refuses lineage, so the hash goes to the run's config."""
        if self.handle is None:
            return
        manifest = read_json(Path(folder) / MANIFEST) or {}
        self.handle.config.update(
            {f"input/{name}": manifest.get("fingerprint", str(folder))}, allow_val_change=True
        )
        if not self.handle.offline:
            self.handle.use_artifact(_artifact(name, Path(folder), kind))

    def log_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log a W&B table of rows that have the same keys. An empty list logs nothing."""
        if self.handle is None or not rows:
            return
        import wandb

        columns: list[Any] = list(rows[0])
        table = wandb.Table(columns=columns, data=[[row[c] for c in columns] for row in rows])
        self.handle.log({name: table})

    def extend_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows to one W&B table that grows with the run. All its rows have the same keys; lists
        are logged as JSON."""
        if self.handle is None or not rows:
            return
        import wandb

        columns: list[Any] = list(rows[0])
        if name not in self.growing:
            self.growing[name] = wandb.Table(
                columns=columns, log_mode="INCREMENTAL", allow_mixed_types=True
            )
        for row in rows:
            values = [row[column] for column in columns]
            texts = [json.dumps(v) if isinstance(v, list) else v for v in values]
            self.growing[name].add_data(*texts)
        self.handle.log({name: self.growing[name]})

    def log_page(self, name: str, path: Path) -> None:
        """Log a self-contained HTML file."""
        if self.handle is not None:
            import wandb

            self.handle.log({name: wandb.Html(str(path), inject=False)})

    def log_folder(self, name: str, folder: str | Path, kind: str) -> None:
        """Log a complete stage folder as an artifact: its manifest, and references to its files
        with their hashes as metadata. Only the manifest is copied or uploaded."""
        if self.handle is not None:
            self.handle.log_artifact(_artifact(name, Path(folder), kind))


def wandb_mode() -> str:
    """WANDB_MODE if it is set, else 'online' for a user who is logged in, else 'offline'."""
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    return "online" if os.environ.get("WANDB_API_KEY") or _in_netrc() else "offline"


@contextlib.contextmanager
def start_wandb(runtime: RuntimeConfig, *, stage: str, recipe: Mapping[str, Any]) -> Iterator[Run]:
    """A W&B run under `output_dir`, on rank 0 only. The W&B callback of transformers joins it.

    The folder keeps the run's id, so a resumed stage continues its run. Other ranks,
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
