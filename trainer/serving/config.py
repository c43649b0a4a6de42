"""The settings of scripts/serve.py."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SearchServerConfig:
    """Which bundle is served, where, to whom, and within which limits."""

    bundle: str
    """Folder of the bundle (scripts/export_bundle.py)."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8000
    """Port to listen on."""
    device: str | None = None
    """torch's name of a device; null: an accelerator if there is one, else the CPU."""
    api_keys: str | None = None
    """File of API keys, one per line; null: everybody who reaches the port may ask."""
    seed: int = 0
    """Seed of the engine; a request's own seed is added to it."""
    max_rows: int = 512
    """Samples that are decoded at once."""
    kept_prefixes_mib: int = 0
    """Memory for keys and values of prefixes, MiB per model; 0: none are kept."""
    max_running: int = 64
    """Searches that run at the same time; each of a request's `n` answers is a search."""
    max_waiting: int = 256
    """Searches that may wait for a place; further requests are refused with status 429."""
    max_choices: int = 8
    """Largest `n` of a request, and most prompts of a request of /v1/completions."""
    max_body_kib: int = 1024
    """Largest body of a request, in KiB."""
    body_seconds: float = 30.0
    """Seconds in which the body of a request must arrive."""
    head_seconds: float = 15.0
    """Seconds in which the head of a request must arrive, from the opening of the connection."""
    stall_seconds: float = 60.0
    """Seconds for which a client may leave its answer unread."""
    max_connections: int = 4096
    """Connections that are open at the same time; further ones are refused with status 503."""
    deadline_seconds: float = 120.0
    """Seconds for a request, with its waiting; a request may ask for fewer."""
    max_traces: int = 1000
    """Requests whose search trees are kept, to be fetched by their trace id; 0: none."""
    traces_mib: int = 64
    """Memory for search trees, compressed, in MiB; the oldest ones make room."""
    shutdown_seconds: int = 30
    """Seconds that requests in flight have when the server is told to stop."""

    def __post_init__(self) -> None:
        if not 1 <= self.port < 2**16:
            raise ValueError(f"port is {self.port}; it must be in [1, 65535]")
        for name in ("max_running", "max_choices", "max_body_kib", "max_connections"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("max_waiting", "max_traces", "traces_mib", "shutdown_seconds"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")
        for name in ("head_seconds", "body_seconds", "stall_seconds", "deadline_seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
