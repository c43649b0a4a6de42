"""The HTTP interface of the server: OpenAI's chat completions, completions and models; the search
tree of a past request; health and metrics.

An error has OpenAI's form (trainer/serving/errors.py) and one of these statuses:
- 400: the body is not what the schema allows, or the prompt cannot be read or searched.
- 401: no valid API key. 404: no such model, trace or path. 405: another method.
- 408: the body did not arrive in time. 413: it is too large.
- 429 with Retry-After: the queue is full.
- 503 with Retry-After: the models are loading, or the deadline passed in the queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from rewards.server.connection import unless_gone
from trainer.serving.access import read_body
from trainer.serving.config import SearchServerConfig
from trainer.serving.errors import APIError, failure, invalid_body
from trainer.serving.metrics import Metrics
from trainer.serving.prompts import problem_of_chat, problem_of_text
from trainer.serving.responses import stream, whole_response
from trainer.serving.schema import ChatBody, CompletionBody, SearchBody
from trainer.serving.service import SearchService

GONE = 499  # the client closed the connection, so it does not read this status
Body = TypeVar("Body", bound=SearchBody)


class Server:
    """Loads the service in a thread, and answers for it. `ended(error)` is called when the service
    cannot be loaded."""

    def __init__(
        self,
        load: Callable[[], SearchService],
        config: SearchServerConfig,
        ended: Callable[[BaseException], None],
    ) -> None:
        self.config = config
        self.service: SearchService | None = None
        self.metrics = Metrics(lambda: self.service)
        self._load = load
        self._ended = ended

    @asynccontextmanager
    async def running(self, app: FastAPI) -> AsyncGenerator[None]:
        loading = asyncio.create_task(self._open())
        yield
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        if self.service is not None:
            await self.service.close()

    async def _open(self) -> None:
        try:
            self.service = await asyncio.to_thread(self._load)
        except Exception as error:
            self._ended(error)

    def ready(self) -> SearchService:
        if self.service is None:
            raise APIError(
                503, "the models are being loaded", code="loading", headers={"Retry-After": "1"}
            )
        return self.service

    async def chat(self, request: Request) -> Response:
        service, owner, arrived = self._admit(request)
        body = await self._body(request, ChatBody)
        problems = [problem_of_chat(body.messages, service.bundle, service.engine.tokenizer)]
        job = await service.job("chatcmpl", body, problems, owner, arrived)
        return await self._respond(request, service, body, job, chat=True)

    async def completion(self, request: Request) -> Response:
        service, owner, arrived = self._admit(request)
        body = await self._body(request, CompletionBody)
        problems = [problem_of_text(prompt, service.bundle) for prompt in body.prompts()]
        job = await service.job("cmpl", body, problems, owner, arrived)
        return await self._respond(request, service, body, job, chat=False)

    def _admit(self, request: Request) -> tuple[SearchService, str, float]:
        service = self.ready()
        return service, service.keys.owner(request), asyncio.get_running_loop().time()

    async def _body(self, request: Request, kind: type[Body]) -> Body:
        config = self.config
        content = await read_body(request, config.max_body_kib * 1024, config.body_seconds)
        try:
            return kind.model_validate_json(content)
        except ValidationError as error:
            raise invalid_body(error) from None

    async def _respond(
        self, request: Request, service: SearchService, body: SearchBody, job: Any, *, chat: bool
    ) -> Response:
        headers = {"X-Trace-Id": job.trace_id}
        running = service.start(job)
        if body.stream:
            events = stream(running, chat=chat, with_usage=body.with_usage_chunk)
            return StreamingResponse(events, media_type="text/event-stream", headers=headers)
        answers = await unless_gone(request, running.all_answers())
        if answers is None:
            return Response(status_code=GONE)
        return JSONResponse(whole_response(job, answers, chat=chat), headers=headers)

    async def models(self, request: Request) -> Response:
        service, _, _ = self._admit(request)
        return JSONResponse({"object": "list", "data": [_model(service)]})

    async def model(self, request: Request) -> Response:
        service, _, _ = self._admit(request)
        name = request.path_params["name"]
        if name != service.bundle.name:
            raise APIError(404, f"there is no model {name[:100]!r}", code="model_not_found")
        return JSONResponse(_model(service))

    async def trace(self, request: Request) -> Response:
        service, owner, _ = self._admit(request)
        found = service.traces.get(request.path_params["trace_id"], owner)
        if found is None:
            raise APIError(
                404, "there is no such trace, or it is no longer kept", code="trace_not_found"
            )
        return Response(found, media_type="application/json")

    async def health(self, request: Request) -> Response:
        service = self.ready()
        places = service.places
        counts = {"running": places.running, "waiting": places.waiting}
        return JSONResponse({"status": "ready", "model": service.bundle.name, **counts})

    async def show_metrics(self, request: Request) -> Response:
        content, media_type = self.metrics.page()
        return Response(content, media_type=media_type)


def build_app(
    load: Callable[[], SearchService],
    config: SearchServerConfig,
    ended: Callable[[BaseException], None],
) -> FastAPI:
    """The application of the server. It loads its models when it starts to run."""
    server = Server(load, config, ended)
    app = FastAPI(
        title="thinktree search server",
        lifespan=server.running,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.add_route("/v1/chat/completions", server.chat, methods=["POST"])
    app.add_route("/v1/completions", server.completion, methods=["POST"])
    app.add_route("/v1/models", server.models, methods=["GET"])
    app.add_route("/v1/models/{name:path}", server.model, methods=["GET"])
    app.add_route("/v1/traces/{trace_id}", server.trace, methods=["GET"])
    app.add_route("/health", server.health, methods=["GET"])
    app.add_route("/metrics", server.show_metrics, methods=["GET"])
    app.add_exception_handler(APIError, _refusal)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(Exception, _failure)
    app.add_middleware(server.metrics.middleware())
    return app


async def _refusal(request: Request, error: Any) -> Response:
    return error.response()


async def _no_route(request: Request, error: Any) -> Response:
    code = "method_not_allowed" if error.status_code == 405 else "unknown_path"
    return APIError(error.status_code, str(error.detail), code=code).response()


async def _failure(request: Request, error: Exception) -> Response:
    return failure(error).response()


def _model(service: SearchService) -> dict[str, Any]:
    bundle = service.bundle
    levels = {
        level.name: {
            "strategy": level.measured_as,
            "budget": level.budget,
            "accuracy": [level.accuracy, level.low, level.high],
            "problems": level.problems,
            "tokens": level.generated_tokens,
        }
        for level in bundle.levels
    }
    return {
        "id": bundle.name,
        "object": "model",
        "created": 0,
        "owned_by": "thinktree",
        "reasoning_effort": levels,
    }
