"""An HTTP server that runs until its process is told to stop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import uvicorn

    from trainer.runtime.http_connections import ConnectionLimits

# Of a client that is busy for longer than uvicorn's 5 seconds, a request would be lost.
KEEP_ALIVE_SECONDS = 75


def uvicorn_server(
    app: Any,
    *,
    host: str,
    port: int,
    shutdown_seconds: int,
    limits: ConnectionLimits | None = None,
) -> uvicorn.Server:
    """A server of an ASGI app, with the default `ConnectionLimits` if none are given."""
    import uvicorn

    from trainer.runtime.http_connections import ConnectionLimits, LimitedConnection

    connection: Any = partial(LimitedConnection, limits=limits or ConnectionLimits())
    return uvicorn.Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            http=connection,
            ws="none",
            log_level="error",  # every malformed request is a warning
            timeout_graceful_shutdown=shutdown_seconds,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
    )


def serve_until_stopped(
    build_app: Callable[[Callable[[BaseException], None]], Any],
    *,
    host: str,
    port: int,
    shutdown_seconds: int,
    limits: ConnectionLimits | None = None,
) -> None:
    """Serve an ASGI app until SIGTERM or SIGINT. Requests in flight then have `shutdown_seconds`.

    `build_app(ended)` makes the app. The app calls `ended(error)` when it cannot serve: the server
    stops, and the first such error is raised here.
    """
    errors: list[BaseException] = []

    def ended(error: BaseException) -> None:
        errors.append(error)
        server.should_exit = True

    server = uvicorn_server(
        build_app(ended), host=host, port=port, shutdown_seconds=shutdown_seconds, limits=limits
    )
    server.run()
    if errors:
        raise errors[0]
