"""Serve a bundle over HTTP until the process is told to stop."""

from __future__ import annotations

import resource
import sys
from functools import partial

from trainer.runtime.http_connections import ConnectionLimits
from trainer.runtime.web_server import serve_until_stopped
from trainer.searching.bundles import read_bundle
from trainer.searching.server_engines import SearchEngineConfig
from trainer.serving.app import build_app
from trainer.serving.config import SearchServerConfig
from trainer.serving.service import SearchService, load_service

OTHER_FILES = 128  # files of the process that are no connections


def serve(config: SearchServerConfig, sampling: SearchEngineConfig) -> None:
    """Serve until SIGTERM or SIGINT. The port is open while the models load.

    Raises ValueError for a folder that is no bundle, and the errors of loading its models.
    """
    read_bundle(config.bundle)
    files = allow_open_files()
    serve_until_stopped(
        lambda ended: build_app(partial(_load, config, sampling), config, ended),
        host=config.host,
        port=config.port,
        shutdown_seconds=config.shutdown_seconds,
        limits=connection_limits(config, files),
    )


def connection_limits(config: SearchServerConfig, files: int) -> ConnectionLimits:
    """The limits of connections where a process may have `files` open files."""
    return ConnectionLimits(
        head_seconds=config.head_seconds,
        stall_seconds=config.stall_seconds,
        most=min(config.max_connections, max(1, files - OTHER_FILES)),
    )


def _load(config: SearchServerConfig, sampling: SearchEngineConfig) -> SearchService:
    service = load_service(config, sampling)
    print(
        f"{service.bundle.name} ({service.fingerprint}) is served at "
        f"http://{config.host}:{config.port}/v1",
        flush=True,
    )
    return service


def allow_open_files() -> int:
    """Raise the limit on open files as far as the system allows, and return it: connections are
    files."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return sys.maxsize if most == resource.RLIM_INFINITY else most
