"""Load and hostility for the search server: scripts/serve.py is started on a bundle, asked by many
clients at once, attacked, killed, and watched.

python tests/benchmarks/serve_load.py outputs/bundle outputs/countdown-demo/data/test.jsonl
    [--parts client load disconnect hostile crowd restart] [--clients 64] [--seconds 120]
    [--effort medium] [--connections 1000] [--serve "--max_running 16 --head_seconds 3"]

Every part prints a JSON line with what it found; status 1 says that one found what must not be.
`rss_mib` is the resident memory of the server before, at its highest, and after.

client      OpenAI's client: chat, completions, streams, effort levels, errors, equal seeds.
load        `--clients` ask without pause for `--seconds`; each request is answered, or refused with
            429 and Retry-After, and the client then waits that time.
disconnect  clients close the connection in mid-stream: their searches end and free their places.
hostile     wrong, huge, slow and unfinished requests while a good client asks.
crowd       `--connections` silent connections, and 100 that read nothing, while a good client asks.
restart     the server is killed and started again under clients that retry: all get answers, and
            equal seeds give equal answers before and after.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import quantiles
from typing import Any

import httpx
import openai
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.unit.hostile_http import (
    CHAT,
    exchange,
    hostile_bodies,
    malformed_heads,
    post,
    unfinished_requests,
)

PAUSE_SECONDS = 0.05  # between two looks at the server's memory


class Served:
    """A server process of its own, and its memory."""

    def __init__(self, bundle: Path, problems: Path, options: list[str]) -> None:
        rows = problems.read_text(encoding="utf-8").splitlines()
        self.problems = [json.loads(row)["prompt"].strip() for row in rows]
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address: tuple[str, int] = free.getsockname()
        self.url = f"http://{self.address[0]}:{self.address[1]}"
        self.model = bundle.resolve().name
        self._command = [sys.executable, "scripts/serve.py", "--bundle", str(bundle)]
        self._command += ["--port", str(self.address[1]), *options]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command)
        self._seen = psutil.Process(self.process.pid)

    async def ready(self) -> None:
        async with httpx.AsyncClient() as client:
            while self.process.poll() is None:
                try:
                    if (await client.get(f"{self.url}/health")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.1)
        raise SystemExit(f"the server ended with status {self.process.returncode}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def rss_mib(self) -> float:
        return round(self._seen.memory_info().rss / 2**20, 1)

    def client(self, retries: int = 0) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=retries)

    async def health(self) -> dict[str, Any]:
        async with httpx.AsyncClient(timeout=30) as client:
            return (await client.get(f"{self.url}/health")).json()

    async def until_idle(self, seconds: float) -> bool:
        """Whether no search runs or waits within `seconds`."""
        for _ in range(int(seconds / 0.1)):
            now = await self.health()
            if now["running"] == now["waiting"] == 0:
                return True
            await asyncio.sleep(0.1)
        return False


def ask(served: Served, index: int, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": served.problems[index % len(served.problems)]}]
    return {"model": served.model, "messages": messages, "seed": index} | more


async def watched(served: Served, work: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    """What `work` finds, with the server's memory before, at its highest, and 3 s after."""
    before = highest = served.rss_mib()
    task = asyncio.ensure_future(work)
    while not task.done():
        await asyncio.wait({task}, timeout=PAUSE_SECONDS)
        highest = max(highest, served.rss_mib())
    await asyncio.sleep(3)
    return await task | {"rss_mib": [before, highest, served.rss_mib()]}


def times(seconds: list[float]) -> dict[str, Any]:
    """Requests, and the median and 95th percentile of their seconds."""
    if len(seconds) < 2:
        return {"answers": len(seconds)}
    cuts = quantiles(seconds, n=100)
    return {"answers": len(seconds), "p50": round(cuts[49], 3), "p95": round(cuts[94], 3)}


async def load(served: Served, options: Any) -> dict[str, Any]:
    statuses: Counter[str] = Counter()
    seconds: list[float] = []
    end = time.monotonic() + options.seconds

    async def one(number: int, client: httpx.AsyncClient) -> None:
        index = number
        while time.monotonic() < end:
            body = ask(served, index, reasoning_effort=options.effort)
            started = time.monotonic()
            reply = await client.post(served.url + CHAT, json=body)
            if reply.status_code == 200 and reply.json()["choices"][0]["message"]["content"]:
                seconds.append(time.monotonic() - started)
                statuses["200"] += 1
                index += options.clients
            elif reply.status_code == 429 and int(reply.headers["Retry-After"]) >= 1:
                statuses["429"] += 1
                await asyncio.sleep(int(reply.headers["Retry-After"]))
            else:
                statuses[f"wrong {reply.status_code} {reply.text[:80]}"] += 1

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=300, limits=limits) as client:
        started = time.monotonic()
        done = await asyncio.gather(
            *(one(n, client) for n in range(options.clients)), return_exceptions=True
        )
        spent = time.monotonic() - started
    for error in done:
        if error is not None:
            statuses[f"wrong {error!r}"[:100]] += 1
    rate = round(statuses["200"] / spent, 2)
    return {"statuses": statuses, **times(seconds), "answers_per_second": rate}


async def beside_a_client(served: Served, attack: Callable[[], Awaitable[Any]]) -> dict[str, Any]:
    """What a good client sees while an attack goes on: every request must be answered."""
    seconds: list[float] = []
    wrong: list[str] = []
    attacking = asyncio.ensure_future(attack())
    async with httpx.AsyncClient(timeout=60) as client:
        index = 0
        while not attacking.done() or index < 3:
            started = time.monotonic()
            body = ask(served, index, reasoning_effort="low")
            reply = await client.post(served.url + CHAT, json=body)
            seconds.append(time.monotonic() - started)
            if reply.status_code != 200:
                wrong.append(f"wrong {reply.status_code} {reply.text[:80]}")
            index += 1
            await asyncio.sleep(0.05)
    return {"attack": await attacking, "client": times(seconds), "wrong": wrong}


async def hostile(served: Served, options: Any) -> dict[str, Any]:
    heads = [(n, parts, 0.0, status) for n, (parts, status) in malformed_heads().items()]
    bodies = [(n, [post(b)], 0.0, s) for n, (b, s) in hostile_bodies(served.model).items()]
    unfinished = [(name, *more) for name, more in unfinished_requests().items()]
    found: dict[str, Any] = {}

    async def attack() -> dict[str, Any]:
        for name, parts, pause, status in heads + bodies + unfinished:
            started = time.monotonic()
            reply = await exchange(served.address, parts, pause=pause, seconds=30)
            good = reply.status == status and len(reply.text) < 1000
            seconds = round(time.monotonic() - started, 2)
            found[name] = [status, seconds] if good else f"wrong {reply}"[:200]
        return found

    return await beside_a_client(served, attack)


async def crowd(served: Served, options: Any) -> dict[str, Any]:
    """Silent connections, and 100 that do not read the answers that they asked for."""

    async def attack() -> str:
        async def opened(number: int) -> list[Any]:
            return [await asyncio.open_connection(*served.address) for _ in range(number)]

        silent, unread = await opened(options.connections), await opened(100)
        for number, (_, writer) in enumerate(unread):
            writer.transport.pause_reading()
            body = ask(served, number, reasoning_effort="low", stream=True)
            writer.write(post(json.dumps(body).encode()))
        closed = 0
        for reader, writer in silent:
            closed += await asyncio.wait_for(reader.read(), 60) == b""
            writer.close()
        for _, writer in unread:
            writer.transport.abort()
        return f"{closed} silent connections closed"

    return await beside_a_client(served, attack)


async def disconnect(served: Served, options: Any) -> dict[str, Any]:
    """Each client of two rounds asks for 8 long searches, half of them as a stream, and leaves."""
    most = 0
    for stream in (True, False):
        opened = []
        for number in range(options.clients // 8):
            body = ask(served, number, reasoning_effort="high", n=8, stream=stream)
            reader, writer = await asyncio.open_connection(*served.address)
            writer.write(post(json.dumps(body).encode()))
            opened.append((reader, writer))
        if stream:
            for reader, _ in opened:
                await reader.readuntil(b'"role": "assistant"')
        else:
            await asyncio.sleep(0.3)
        now = await served.health()
        most = max(most, now["running"] + now["waiting"])
        for _, writer in opened:
            writer.transport.abort()
        started = time.monotonic()
        if not await served.until_idle(30):
            return {"wrong": f"still searching: {await served.health()}"}
    return {"searches": most, "idle_after_seconds": round(time.monotonic() - started, 2)}


async def client(served: Served, options: Any) -> dict[str, Any]:
    one = served.client()
    found: dict[str, Any] = {"openai": openai.__version__, "tokens": {}}
    for effort in ("low", "medium", "high"):
        body = ask(served, 3, reasoning_effort=effort)
        first, second = [await one.chat.completions.create(**body) for _ in range(2)]
        if first.choices != second.choices:
            return {"wrong": f"equal seeds differ at {effort}"}
        parts = [
            choice.delta.content or ""
            async for chunk in await one.chat.completions.create(**body, stream=True)
            for choice in chunk.choices
        ]
        if "".join(parts) != first.choices[0].message.content:
            return {"wrong": f"the stream differs at {effort}"}
        found["tokens"][effort] = first.usage.completion_tokens
    whole = await one.completions.create(
        model=served.model, prompt=f"{served.problems[3]}\n", seed=3
    )
    found["text"] = whole.choices[0].text
    for kind, change in (
        (openai.BadRequestError, {"temperature": 0.3}),
        (openai.BadRequestError, {"n": 1000}),
        (openai.NotFoundError, {"model": "none"}),
        (openai.InternalServerError, {"extra_body": {"deadline_seconds": 1e-9}}),
    ):
        try:
            await one.chat.completions.create(**(ask(served, 3) | change))
            return {"wrong": f"{change} is answered"}
        except kind as error:
            found[f"{list(change)}"] = f"{type(error).__name__}: {error.message[:90]}"
    return found


async def restart(served: Served, options: Any) -> dict[str, Any]:
    """The server is killed three times while clients ask; all retry with OpenAI's own retries."""
    asking = served.client(retries=100)
    answers: dict[int, set[str]] = {}
    going = [True]

    async def one(number: int) -> int:
        done = 0
        while going[0] or not done:
            body = ask(served, number % 8, reasoning_effort=options.effort)
            reply = await asking.chat.completions.create(**body)
            found = json.dumps([c.model_dump() for c in reply.choices], sort_keys=True)
            answers.setdefault(number % 8, set()).add(found)
            done += 1
        return done

    clients = [asyncio.create_task(one(number)) for number in range(16)]
    for _ in range(3):
        await asyncio.sleep(2)
        served.kill()
        await asyncio.sleep(0.5)
        served.start()
        await served.ready()
    await asyncio.sleep(2)
    going[0] = False
    done = await asyncio.gather(*clients, return_exceptions=True)
    wrong = [f"wrong {error!r}"[:200] for error in done if isinstance(error, BaseException)]
    wrong += [f"seed {seed} has {len(a)} answers" for seed, a in answers.items() if len(a) > 1]
    return {"kills": 3, "answers": sum(n for n in done if isinstance(n, int)), "wrong": wrong}


PARTS = {f.__name__: f for f in (client, load, disconnect, hostile, crowd, restart)}


async def run(options: Any) -> int:
    served = Served(options.bundle, options.problems, shlex.split(options.serve))
    failed = False
    try:
        await served.ready()
        for name in options.parts:
            work = PARTS[name](served, options)
            found = await (work if name == "restart" else watched(served, work))
            failed |= "wrong " in json.dumps(found) or bool(found.get("wrong"))
            print(json.dumps({"part": name} | found), flush=True)
    finally:
        served.process.send_signal(signal.SIGTERM)
        served.process.wait()
    return int(failed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("problems", type=Path, help="problems that the policy reads: test.jsonl")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--effort", default="medium", help="effort level of load and restart")
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--serve", default="", help="further options of scripts/serve.py")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parents[2])
    sys.exit(main())
