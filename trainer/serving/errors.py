"""Errors as OpenAI's API has them: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import logging
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import ValidationError

from search.engines.model_server import EngineUnavailable

LOG = logging.getLogger(__name__)
MOST_OF_A_KEY = 100  # characters that are repeated of a key that a client wrote
MOST_MISTAKES = 1000  # each of them costs a dict to say which is the first
RETRY_SECONDS = 5  # after which a client may ask again while an engine does not answer
TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class APIError(Exception):
    """A request that is refused. `param` names the key of the body that is wrong. After `closes`,
    the connection is closed, as the body may not have been read."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        headers: dict[str, str] | None = None,
        closes: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.headers = headers or {}
        self.closes = closes

    def content(self) -> dict[str, Any]:
        if self.status >= 500:
            kind = "server_error"
        else:
            kind = TYPES.get(self.status, "invalid_request_error")
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> JSONResponse:
        headers = self.headers | {"Connection": "close"} if self.closes else self.headers
        return JSONResponse(self.content(), self.status, headers)


def failure(error: Exception) -> APIError:
    """What a client is told of an error of the server, whose text goes to the log."""
    if isinstance(error, EngineUnavailable):
        LOG.error("a request failed: %s", error)
        return APIError(
            503,
            "the engine that samples for this server does not answer: try again later",
            code="engine_unavailable",
            headers={"Retry-After": str(RETRY_SECONDS)},
        )
    LOG.error("a request failed", exc_info=error)
    return APIError(500, "the server failed to answer; its log says why", code="failed")


def invalid_body(error: ValidationError) -> APIError:
    """The first thing that is wrong with a body. Values are not repeated."""
    if error.error_count() > MOST_MISTAKES:
        return APIError(400, f"the body has {error.error_count():,} mistakes", code="invalid_value")
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])[:MOST_OF_A_KEY]
    if first["type"] == "json_invalid":
        return APIError(400, f"the body is not valid JSON: {first['msg']}", code="invalid_json")
    if first["type"] == "extra_forbidden":
        return APIError(400, f"unknown parameter: {place!r}", code="unknown_parameter", param=place)
    text = first["msg"].removeprefix("Value error, ")
    said = f"{place}: {text}" if place else text
    return APIError(400, said, code="invalid_value", param=place or None)
