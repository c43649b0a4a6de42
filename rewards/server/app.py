"""The scoring server's HTTP interface: `POST /score` and `GET /health`.

The answer to a POST is `{"results": [...]}`, with one result per request, in the order of the
requests. Each result has its own `status`: 200 with `scores` and `usage`, or another status with
`error`. The HTTP status is the status of the results when they all have the same one, else 207.

An error of the whole POST has the answer `{"error": ...}` and one of these HTTP statuses:
- 409: the server has another model than the one in the request.
- 413: the POST has more requests than allowed.
- 422: the body is not a valid `ScoreBody`.
- 503 with Retry-After: the model is loading, or the queue is full.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from rewards.server.batching import BatchingConfig, MicroBatcher, QueueFull
from rewards.server.client import Scored
from rewards.server.connection import unless_gone
from rewards.server.schema import ScoreBody
from rewards.server.scoring import Reply, ServedModel

RETRY_SECONDS = "1"
GONE = 499  # the client closed the connection, so it does not read this status


class Service:
    """Loads the model and serves it, on a separate thread. `ended(error)` is called when an error
    in loading or in the loop that answers ends the service."""

    def __init__(
        self,
        load: Callable[[], ServedModel],
        config: BatchingConfig,
        ended: Callable[[BaseException], None],
    ) -> None:
        self.config = config
        self.batcher: MicroBatcher | None = None
        self._load = load
        self._ended = ended

    @asynccontextmanager
    async def running(self, app: FastAPI) -> AsyncGenerator[None]:
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="scoring")
        task = asyncio.create_task(self._serve(executor))
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        executor.shutdown(wait=False, cancel_futures=True)

    async def _serve(self, executor: ThreadPoolExecutor) -> None:
        try:
            model = await asyncio.get_running_loop().run_in_executor(executor, self._load)
            self.batcher = MicroBatcher(model, self.config, executor)
            await self.batcher.run()
        except Exception as error:
            self.batcher = None
            self._ended(error)


def build_app(
    load: Callable[[], ServedModel],
    config: BatchingConfig,
    ended: Callable[[BaseException], None],
) -> FastAPI:
    """The application of the server. It loads the model when it starts to run."""
    service = Service(load, config, ended)
    app = FastAPI(title="thinktree scoring server", lifespan=service.running)

    @app.get("/health")
    async def health() -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        batcher = service.batcher
        if batcher is None:
            return _error(503, "the reward model is being loaded")
        counts = {name: getattr(batcher, name) for name in ("waiting", "answered", "batches")}
        return JSONResponse({"status": "ready", **asdict(batcher.model.description), **counts})

    @app.post("/score")
    async def score(body: ScoreBody, request: Request) -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        batcher = service.batcher
        if batcher is None:
            return _error(503, "the reward model is being loaded")
        served = batcher.model.description
        if body.fingerprint not in ("", served.fingerprint):
            return _error(
                409,
                f"the reward model served is {served.reward_model} with the fingerprint "
                f"{served.fingerprint}, not {body.fingerprint}",
            )
        if len(body.requests) > config.max_waiting:
            return _error(
                413, f"{len(body.requests)} requests; a POST may hold {config.max_waiting}"
            )
        try:
            answers = batcher.submit([asked.question() for asked in body.requests])
        except QueueFull:
            return _error(503, f"{batcher.waiting} requests wait, of {config.max_waiting} allowed")
        return _results(await unless_gone(request, asyncio.gather(*answers)))

    @app.exception_handler(RequestValidationError)
    async def invalid(  # pyright: ignore[reportUnusedFunction]
        request: Request, error: RequestValidationError
    ) -> JSONResponse:
        """Answer with places and reasons only. FastAPI's default answer repeats the whole body."""
        found = [
            f"{'.'.join(map(str, problem['loc'][1:])) or 'body'}: {problem['msg']}"
            for problem in error.errors()
        ]
        return _error(422, "; ".join(found[:5]))

    return app


def _results(answers: Sequence[Reply] | None) -> JSONResponse:
    if answers is None:
        return _error(GONE, "the connection was closed")
    results = [_result(answer) for answer in answers]
    statuses = {result["status"] for result in results}
    return JSONResponse({"results": results}, statuses.pop() if len(statuses) == 1 else 207)


def _result(answer: Reply) -> dict[str, Any]:
    if isinstance(answer, Scored):
        # JSON has no NaN.
        scores = [score if score == score else None for score in answer.scores]
        return {"status": 200, "scores": scores, "usage": asdict(answer.usage)}
    lengths = {"length": answer.length, "limit": answer.limit} if answer.limit else {}
    return {"status": answer.status, "error": answer.reason, **lengths}


def _error(status: int, reason: str) -> JSONResponse:
    headers = {"Retry-After": RETRY_SECONDS} if status == 503 else None
    return JSONResponse({"error": reason}, status, headers=headers)
