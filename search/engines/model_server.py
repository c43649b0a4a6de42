"""The client of OpenAI-compatible servers: it sends `POST /v1/completions`, in one of two dialects
(search/engines/vllm_protocol.py, search/engines/openai_protocol.py).

A sample is a function of its request, so a request without an answer is sent again. The client
waits for a server that is down, restarting or overloaded. Before the first request, and after every
failure, it asks the server which model it has, and the dialect checks some answers: a server with
another model is refused, also one that was restarted with it.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import math
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Generic, Protocol, TypeVar

import httpx

OVERLOADED = 429
UNAVAILABLE = (OVERLOADED, 404, 500, 502, 503, 504)  # 404: perhaps restarted with another model
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between attempts; each pause is twice as long
MOST_ATTEMPTS = 10  # of one request at a server that is not busy
MOST_INVALID = 3  # answers in a row, when a server is checked
CONNECT_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 4.0  # uvicorn closes an idle connection after 5
A = TypeVar("A")  # an answer


class EngineUnavailable(RuntimeError):
    """The server did not answer within the waiting time."""


class EngineRefused(ValueError):
    """The server is not one that can answer for this policy, or a request is not for a server."""


class OtherModelServed(EngineRefused):
    """The server says that it has another model than the policy."""


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """How servers are asked. `in_flight` requests wait for one server at the same time. `headers`
    go with every request."""

    in_flight: int
    wait_seconds: float
    timeout_seconds: float
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, kw_only=True)
class AskedModel:
    """The policy that a server must have. `accepts` is asked with the names that the server gives
    its model. `as_served` says how a server with this policy is started."""

    name: str
    accepts: Callable[[str], bool]
    as_served: Callable[[], str]


class Dialect(Protocol[A]):
    """How requests and answers of one kind of server look.

    `always` goes with every request. `kind` says in an error who gives valid answers. The answers
    to `probes` are checked whenever a server is checked.
    """

    @property
    def always(self) -> Mapping[str, Any]: ...

    @property
    def kind(self) -> str: ...

    @property
    def probes(self) -> Sequence[Mapping[str, Any]]: ...

    def read(self, body: Any) -> A:
        """The answer. Raises KeyError, TypeError, IndexError, AttributeError and ValueError for a
        body that is none."""
        ...

    def check(self, address: str, answers: Sequence[A]) -> None:
        """Raises EngineRefused for a server that cannot answer for the policy."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Failure:
    reason: str
    told_seconds: float = 0.0
    busy: bool = False
    invalid: bool = False  # an answer that no vLLM server gives


class Places:
    """At most `limit` holders at once. Of those that wait, the one with the lowest `order` is
    next, and the first to come among equal ones."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._arrivals = count()

    @asynccontextmanager
    async def hold(self, order: int) -> AsyncGenerator[None]:
        if self._free:
            self._free -= 1
        else:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (order, next(self._arrivals), turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._pass_on()
                raise
        try:
            yield
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        while self._waiting:
            turn = heapq.heappop(self._waiting)[2]
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class _Patience:
    """Waits between the attempts of one request. Gives up when the server has answered nothing for
    `wait_seconds`, or not this request in `attempts` attempts; a busy server is waited for."""

    def __init__(self, server: ModelServer[Any], attempts: float) -> None:
        self._server, self._attempts = server, attempts
        self._first, self._pause = math.inf, FIRST_PAUSE

    async def wait(self, failure: _Failure) -> None:
        seconds, now = self._server.settings.wait_seconds, time.monotonic()
        self._first = min(self._first, now)
        self._attempts -= not failure.busy
        left = seconds - (now - max(self._first, self._server.answered_at))
        if left <= 0 or self._attempts <= 0:
            long = f"for {seconds:g} s (engine_wait_seconds)" if left <= 0 else "one request"
            raise EngineUnavailable(
                f"the server {self._server.address} did not answer {long}: {failure.reason}"
            )
        await asyncio.sleep(min(max(self._pause, failure.told_seconds), left))
        self._pause = min(2 * self._pause, LONGEST_PAUSE)


class ModelServer(Generic[A]):
    """One address. `context` is the context that its model was started with, in tokens."""

    def __init__(
        self, address: str, asked: AskedModel, settings: ServerSettings, dialect: Dialect[A]
    ) -> None:
        self.address, self.asked, self.settings = address, asked, settings
        self.dialect = dialect
        self.context = 0
        self.model_id = ""
        self.places = Places(settings.in_flight)
        self.answered_at = -math.inf  # seconds of the monotonic clock
        self._checked = False

    def bind(self, client: httpx.AsyncClient) -> None:
        """Use this client, which belongs to the running event loop."""
        self._client = client
        self._checking = asyncio.Lock()

    async def complete(self, fields: Mapping[str, Any], order: int = 0) -> A:
        """The answer to a request. Raises EngineUnavailable and EngineRefused."""
        patience = _Patience(self, MOST_ATTEMPTS)
        async with self.places.hold(order):
            while True:
                await self.check()
                answer = await self._attempt(fields)
                if not isinstance(answer, _Failure):
                    return answer
                await patience.wait(answer)

    async def check(self) -> None:
        """Wait until the server answers and has the right model. Raises EngineRefused if it has
        another one, and EngineUnavailable."""
        async with self._checking:
            patience, invalid = _Patience(self, math.inf), 0
            while not self._checked:
                failure = await self._check()
                if failure is None:
                    break
                invalid += failure.invalid
                if invalid == MOST_INVALID:
                    raise EngineRefused(f"the server {self.address} gives {failure.reason}")
                await patience.wait(failure)

    async def _check(self) -> _Failure | None:
        response = await self._send("GET", "/v1/models")
        if isinstance(response, _Failure):
            return response
        try:
            models = [
                (str(row["id"]), str(row.get("root") or ""), int(row.get("max_model_len") or 0))
                for row in response.json()["data"]
            ]
        except (ValueError, KeyError, TypeError, AttributeError):
            reason = f"no list of models: {response.text[:200]!r}"
            return _Failure(reason=reason, invalid=True)
        names = [(id, limit) for id, root, limit in models if self._accepts(id, root)]
        if not names:
            served = ", ".join(f"{id!r} (of {root!r})" for id, root, _ in models) or "nothing"
            raise OtherModelServed(
                f"the server {self.address} serves {served}, not the policy {self.asked.name!r}: "
                f"{self.asked.as_served()}"
            )
        self.model_id, self.context = names[0]
        answers: list[A] = []
        for probe in self.dialect.probes:
            answer = await self._attempt(probe)
            if isinstance(answer, _Failure):
                return answer
            answers.append(answer)
        self.dialect.check(self.address, answers)
        self._checked = True
        return None

    def _accepts(self, id: str, root: str) -> bool:
        return self.asked.accepts(id) or (bool(root) and self.asked.accepts(root))

    async def _attempt(self, fields: Mapping[str, Any]) -> A | _Failure:
        body = {"model": self.model_id, **self.dialect.always, **fields}
        response = await self._send("POST", "/v1/completions", body)
        if isinstance(response, _Failure):
            return response
        try:
            found = self.dialect.read(response.json())
            self.answered_at = time.monotonic()
            return found
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            self._checked = False
            reason = f"no answer of {self.dialect.kind} ({error!r}): {response.text[:200]!r}"
            return _Failure(reason=reason, invalid=True)

    async def _send(self, method: str, path: str, body: Any = None) -> httpx.Response | _Failure:
        """An answer with status 200. Raises EngineRefused for a request that the server refuses."""
        try:
            response = await self._client.request(method, self.address + path, json=body)
        except httpx.TransportError as error:
            self._checked = False
            return _Failure(reason=f"{type(error).__name__}: {error}")
        if response.status_code == 200:
            return response
        said = f"status {response.status_code}: {response.text[:300]!r}"
        if response.status_code not in UNAVAILABLE:
            raise EngineRefused(f"the server {self.address} refused a request: {said}")
        busy = response.status_code == OVERLOADED
        self._checked = self._checked and busy
        told = response.headers.get("Retry-After", "")
        seconds = float(told) if told.isdecimal() else 0.0
        return _Failure(reason=said, told_seconds=seconds, busy=busy)


class ModelServers(Generic[A]):
    """The servers of one policy. All requests of a problem go to one server, so that its tree is in
    one cache; the problem's name decides which one."""

    def __init__(
        self,
        addresses: Sequence[str],
        asked: AskedModel,
        settings: ServerSettings,
        dialect: Dialect[A],
    ) -> None:
        self.servers = [ModelServer(address, asked, settings, dialect) for address in addresses]
        self.settings = settings
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: httpx.AsyncClient | None = None

    def of(self, problem: str) -> ModelServer[A]:
        """The server of a problem, for the running event loop."""
        self._bind()
        digest = hashlib.blake2b(problem.encode(), digest_size=8).digest()
        return self.servers[int.from_bytes(digest, "little") % len(self.servers)]

    def check_room(self, problem: str, tokens: int) -> None:
        """Raises EngineRefused if the problem's server was started with a smaller context. Before
        a server was asked for its context, nothing is known of it."""
        server = self.of(problem)
        if 0 < server.context < tokens:
            raise EngineRefused(
                f"the server {server.address} was started with a context of {server.context} "
                f"tokens, but problem {problem} needs {tokens}: start it with a context of "
                f"{tokens} or more (vLLM: --max-model-len)"
            )

    async def choose_servers(self) -> None:
        """Check every server (`ModelServer.check`), and keep those that have this policy: of the
        addresses of a run with several policies, each policy has its own.

        Raises OtherModelServed if no server has it, and the errors of `ModelServer.check`.
        """
        self._bind()
        checks = (server.check() for server in self.servers)
        found = await asyncio.gather(*checks, return_exceptions=True)
        for error in found:
            if error is not None and not isinstance(error, OtherModelServed):
                raise error
        kept = [server for server, error in zip(self.servers, found, strict=True) if error is None]
        if not kept:
            raise next(error for error in found if error is not None)
        self.servers = kept

    async def close(self) -> None:
        """Close the connections of the running event loop."""
        if self._client is not None and self._loop is asyncio.get_running_loop():
            await self._client.aclose()
        self._client = self._loop = None

    def _bind(self) -> None:
        if self._loop is asyncio.get_running_loop():
            return
        self._loop = asyncio.get_running_loop()
        seconds = self.settings.timeout_seconds
        self._client = httpx.AsyncClient(
            headers=self.settings.headers,
            timeout=httpx.Timeout(seconds, connect=CONNECT_SECONDS, pool=None),
            limits=httpx.Limits(max_connections=None, keepalive_expiry=KEEP_ALIVE_SECONDS),
        )
        for server in self.servers:
            server.bind(self._client)
