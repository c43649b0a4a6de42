"""Serve a bundle over HTTP until the process is told to stop."""

from __future__ import annotations

import resource
from functools import partial

from trainer.searching.bundles import read_bundle
from trainer.searching.server_engines import SearchEngineConfig
from trainer.serving.app import build_app
from trainer.serving.config import SearchServerConfig
from trainer.serving.service import SearchService, load_service

KEEP_ALIVE_SECONDS = 75


def serve(config: SearchServerConfig, sampling: SearchEngineConfig) -> None:
    """Serve until SIGTERM or SIGINT. The port is open while the models load.

    Raises ValueError for a folder that is no bundle, and the errors of loading its models.
    """
    import uvicorn

    read_bundle(config.bundle)
    allow_open_files()
    errors: list[BaseException] = []

    def ended(error: BaseException) -> None:
        errors.append(error)
        server.should_exit = True

    app = build_app(partial(_load, config, sampling), config, ended)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=config.host,
            port=config.port,
            log_level="warning",
            timeout_graceful_shutdown=config.shutdown_seconds,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
    )
    server.run()
    if errors:
        raise errors[0]


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
