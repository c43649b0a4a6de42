"""Serve a bundle over HTTP until the process is told to stop."""

from __future__ import annotations

import resource
from functools import partial

from trainer.runtime.web_server import serve_until_stopped
from trainer.searching.bundles import read_bundle
from trainer.searching.server_engines import SearchEngineConfig
from trainer.serving.app import build_app
from trainer.serving.config import SearchServerConfig
from trainer.serving.service import SearchService, load_service


def serve(config: SearchServerConfig, sampling: SearchEngineConfig) -> None:
    """Serve until SIGTERM or SIGINT. The port is open while the models load.

    Raises ValueError for a folder that is no bundle, and the errors of loading its models.
    """
    read_bundle(config.bundle)
    allow_open_files()
    serve_until_stopped(
        lambda ended: build_app(partial(_load, config, sampling), config, ended),
        host=config.host,
        port=config.port,
        shutdown_seconds=config.shutdown_seconds,
    )


def _load(config: SearchServerConfig, sampling: SearchEngineConfig) -> SearchService:
    service = load_service(config, sampling)
    print(
        f"{service.bundle.name} ({service.fingerprint}) is served at "
        f"http://{config.host}:{config.port}/v1",
        flush=True,
    )
    return service


def allow_open_files() -> None:
    """Raise the limit on open files as far as the system allows: connections are files."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
