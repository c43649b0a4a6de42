"""The search server of a bundle, over real HTTP in a thread of the test."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai

from tests.unit.hostile_http import CHAT
from trainer.runtime.web_server import uvicorn_server
from trainer.searching.server_engines import IN_PROCESS, SearchEngineConfig
from trainer.serving.app import build_app
from trainer.serving.config import SearchServerConfig
from trainer.serving.serve import connection_limits
from trainer.serving.service import SearchService, load_service

PROBLEM = "3 4 7 -> 11"


@dataclass(frozen=True)
class Served:
    address: str
    service: SearchService

    def ask(self, **body: Any) -> httpx.Response:
        content = {"model": "bundle", "messages": [{"role": "user", "content": PROBLEM}]} | body
        return httpx.post(self.address + CHAT, json=content, timeout=30)

    def client(self, key: str = "none") -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.address}/v1", api_key=key, max_retries=0)


@contextmanager
def serving(
    bundle: Path, engine: SearchEngineConfig = IN_PROCESS, **fields: Any
) -> Iterator[Served]:
    config = SearchServerConfig(bundle=str(bundle), device="cpu", **fields)
    loaded: list[SearchService] = []
    errors: list[BaseException] = []

    def load() -> SearchService:
        loaded.append(load_service(config, engine))
        return loaded[0]

    app = build_app(load, config, errors.append)
    limits = connection_limits(config, files=10_000)
    server = uvicorn_server(app, host="", port=0, shutdown_seconds=2, limits=limits)
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        try:
            wait_until(lambda: bool(errors) or _ready(address))
            assert not errors
            yield Served(address, loaded[0])
        finally:
            server.should_exit = True
            thread.join()


def _ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health").status_code == 200
    except httpx.TransportError:
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen in 10 s")
