"""A small HTTP server that speaks the protocol of vLLM's completions over a real tiny model.

It draws with the noise of our own engine, keyed by a request's seed: with the same weights it gives
the samples of the transformers engine. Faults can be injected: each one is used up by one request.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from data.token_text import TokenText
from search.engines.drawing import draw

BLOCK = 4  # tokens of a cached block


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone is no error here."""


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class PolicyServer:
    """Serves a model on a free port of 127.0.0.1. `asked` has the body of every completion that was
    asked for. `faults` are words: busy, down, garbage, drop, hang, error. Servers may share what
    they have read as `logits`."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        model_id: str,
        *,
        context: int = 256,
        logits: dict[Any, torch.Tensor] | None = None,
    ) -> None:
        self.model, self.model_id, self.context = model.eval(), model_id, context
        self.root = model_id
        self.text = TokenText(tokenizer)
        self.end_ids = frozenset({tokenizer.eos_token_id})
        self.texts = self.text.token_texts()
        self.asked: list[dict[str, Any]] = []
        self.faults: list[str] = []
        self.hang_seconds = 1.0
        self.together = 1  # no sample is given before so many requests were there at once
        self.poison = 0  # max_tokens of requests that never get an answer
        self.processed = False  # log-probabilities after temperature and masks
        self.token_ids = True  # a version that returns token ids
        self.text_only = False  # text in and out, as with any OpenAI-compatible server
        self.names_stops = self.gives_logprobs = self.gives_usage = True  # of such a server
        self.heeds_stops = True
        self.most_at_once = self._at_once = 0
        self._logits = {} if logits is None else logits  # by model and ids
        self._cached: set[tuple[int, ...]] = set()
        self._lock, self._counts = threading.Lock(), threading.Lock()
        self.connections: set[socket.socket] = set()
        self.port = 0
        self.start()

    def start(self) -> None:
        """Listen, on the earlier port after `stop`. A new process has an empty cache."""
        owner = self
        self._cached.clear()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                owner.connections.add(self.connection)

            def finish(self) -> None:
                owner.connections.discard(self.connection)
                super().finish()

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                owner.answer(self, 200, owner.models())

            def do_POST(self) -> None:
                owner.complete(self)

        self._http = _Quiet(("127.0.0.1", self.port), Handler)
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """As a kill of the process: what was asked for gets no answer."""
        self._http.shutdown()
        self._http.server_close()
        for connection in tuple(self.connections):
            _cut(connection)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def models(self) -> dict[str, Any]:
        row = {"id": self.model_id, "root": self.root, "max_model_len": self.context}
        return {"object": "list", "data": [row]}

    def answer(self, handler: Any, status: int, body: Any) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def complete(self, handler: Any) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._counts:
            self.asked.append(body)
            fault = self.faults.pop(0) if self.faults else ""
            fault = "down" if body["max_tokens"] == self.poison else fault
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            status, answer = self._answered(body, fault)
        finally:
            with self._counts:
                self._at_once -= 1
        if status:
            self.answer(handler, status, answer)
        else:
            _cut(handler.connection)
            handler.close_connection = True

    def _answered(self, body: dict[str, Any], fault: str) -> tuple[int, Any]:
        deadline = time.monotonic() + (0 if "allowed_token_ids" in body else 5)
        while self.most_at_once < self.together and time.monotonic() < deadline:
            time.sleep(0.005)
        if fault == "hang":
            time.sleep(self.hang_seconds)
        status = {"busy": 429, "down": 503, "error": 500, "drop": 0}.get(fault)
        room = self.context - len(self._prompt(body))
        if status is not None:
            return status, {"error": {"message": fault}}
        if fault == "garbage":
            return 200, b"<html>"
        if body["model"] != self.model_id:
            return 404, {"error": {"message": "no such model"}}
        if body["max_tokens"] > room:
            return 400, {"error": {"message": f"room for {room} tokens"}}
        with self._lock:
            return 200, self._completion(body)

    def _prompt(self, body: dict[str, Any]) -> tuple[int, ...]:
        given = body["prompt"]
        return self.text.encode_prompt(given) if self.text_only else tuple(given)

    def _as_text(
        self, ids: list[int], logprobs: list[float], finish: str, stop: int | str | None
    ) -> dict[str, Any]:
        """A choice without token ids. The text ends before the string that ended it."""
        text = self.text.tokenizer.decode([id for id in ids if id not in self.end_ids])
        if isinstance(stop, str) and stop in text:
            text = text[: text.index(stop)]
        choice: dict[str, Any] = {"index": 0, "text": text, "finish_reason": finish}
        if self.names_stops:
            choice["stop_reason"] = stop if isinstance(stop, str) else None
        if self.gives_logprobs:
            shown = [self.text.tokenizer.decode([id]) for id in ids]
            choice["logprobs"] = {"tokens": shown, "token_logprobs": logprobs}
        return choice

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt = self._prompt(body)
        known = max((len(p) for p in self._cached if prompt[: len(p)] == p), default=0)
        cached = min(known, (len(prompt) - 1) // BLOCK * BLOCK)
        ids, logprobs, finish, stop = self._draw(body, prompt)
        whole = prompt + tuple(ids[:-1])
        self._cached |= {whole[:end] for end in range(BLOCK, len(whole) + 1, BLOCK)}
        choice: dict[str, Any] = {
            "index": 0,
            "text": "".join(self.texts[token] for token in ids),
            "finish_reason": finish,
            "stop_reason": stop,
            "logprobs": {"token_logprobs": logprobs},
        }
        if self.token_ids and body.get("return_token_ids"):
            choice["token_ids"] = ids
        if self.text_only:
            choice = self._as_text(ids, logprobs, finish, stop)
        details = {"cached_tokens": cached} if cached else None
        if not self.gives_usage:
            return {"choices": [choice]}
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(ids)}
        return {"choices": [choice], "usage": usage | {"prompt_tokens_details": details}}

    @torch.inference_mode()
    def _draw(
        self, body: dict[str, Any], prompt: tuple[int, ...]
    ) -> tuple[list[int], list[float], str, int | str | None]:
        ids: list[int] = []
        logprobs: list[float] = []
        key_R = torch.tensor([body["seed"]])
        temperature_R = torch.tensor([float(body["temperature"])])
        allowed: Sequence[int] | None = body.get("allowed_token_ids")
        while True:
            logits_RV = self._read((*prompt, *ids))
            raw_RV, masked_RV = logits_RV, logits_RV
            if allowed is not None:
                masked_RV = torch.full_like(logits_RV, -torch.inf)
                masked_RV[:, allowed] = logits_RV[:, allowed]
                token = max(allowed, key=lambda id: float(logits_RV[0, id]))
            else:
                token = int(draw(logits_RV, key_R, temperature_R, len(ids))[0])
            shown_RV = masked_RV if self.processed else raw_RV
            logprobs.append(float(torch.log_softmax(shown_RV, dim=-1)[0, token]))
            ids.append(token)
            if token in body.get("stop_token_ids", self.end_ids if self.text_only else ()):
                return ids, logprobs, "stop", token
            for text in body.get("stop", ()) if self.heeds_stops else ():
                if text in self.texts[token]:
                    return ids, logprobs, "stop", text
            if len(ids) >= body["max_tokens"]:
                return ids, logprobs, "length", None

    def _read(self, ids: tuple[int, ...]) -> torch.Tensor:
        key = (id(self.model), ids)
        if key not in self._logits:
            output = self.model(input_ids=torch.tensor([ids]))
            self._logits[key] = output.logits[:, -1].float()
        return self._logits[key]

    def seeds(self) -> Counter[int]:
        """How often each sample was asked for, without the comparison of weights."""
        return Counter(body["seed"] for body in self.asked if "allowed_token_ids" not in body)
