"""An HTTP server that runs until its process is told to stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Of a client that is busy for longer than uvicorn's 5 seconds, a request would be lost.
KEEP_ALIVE_SECONDS = 75


def serve_until_stopped(
    build_app: Callable[[Callable[[BaseException], None]], Any],
    *,
    host: str,
    port: int,
    shutdown_seconds: int,
) -> None:
    """Serve an ASGI app until SIGTERM or SIGINT. Requests in flight then have `shutdown_seconds`.

    `build_app(ended)` makes the app. The app calls `ended(error)` when it cannot serve: the server
    stops, and the first such error is raised here.
    """
    import uvicorn

    errors: list[BaseException] = []

    def ended(error: BaseException) -> None:
        errors.append(error)
        server.should_exit = True

    server = uvicorn.Server(
        uvicorn.Config(
            build_app(ended),
            host=host,
            port=port,
            log_level="warning",
            timeout_graceful_shutdown=shutdown_seconds,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
    )
    server.run()
    if errors:
        raise errors[0]
