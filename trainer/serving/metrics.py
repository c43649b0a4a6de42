"""What Prometheus reads of the server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

if TYPE_CHECKING:
    from trainer.serving.service import SearchService

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/models", "/v1/traces", "/health")


class Metrics:
    """Counts requests, and reads the rest from the service when it is asked. Requests of unknown
    paths are counted together, so that clients cannot make the page grow."""

    def __init__(self, service: Callable[[], SearchService | None]) -> None:
        self._service = service
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "thinktree_requests", "Requests answered.", ["path", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "thinktree_request_seconds",
            "Time until the last byte of an answer.",
            ["path"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self._registry.register(self)  # pyright: ignore[reportArgumentType]

    def collect(self) -> Iterator[Any]:
        """The numbers of the searches, for the registry."""
        service = self._service()
        if service is None:
            return
        spending, places = service.searches.spending, service.places
        for name, text, value in (
            ("searches_running", "Searches that run.", places.running),
            ("searches_waiting", "Searches that wait for a place.", places.waiting),
            ("traces_bytes", "Memory of the search trees that are kept.", service.traces.size),
        ):
            yield GaugeMetricFamily(f"thinktree_{name}", text, value)
        policy, reward = spending.usage.policy, spending.usage.reward
        for name, text, value in (
            ("batches", "Batches of the policy.", spending.batches),
            ("samples", "Samples of the policy.", spending.samples),
            ("generated_tokens", "Sampled tokens.", policy.generated_tokens),
            ("policy_positions", "Positions through the policy.", policy.positions),
            ("policy_flops", "FLOPs of the policy.", policy.flops),
            ("reward_positions", "Positions through the reward model.", reward.positions),
            ("reward_flops", "FLOPs of the reward model.", reward.flops),
        ):
            yield CounterMetricFamily(f"thinktree_{name}", text, value)

    def page(self) -> tuple[bytes, str]:
        """The page and its media type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def middleware(self) -> Callable[[Any], Any]:
        """ASGI middleware that counts every request with its status."""

        def wrap(app: Any) -> Any:
            async def counted(scope: Any, receive: Any, send: Any) -> None:
                if scope["type"] != "http":
                    await app(scope, receive, send)
                    return
                path = next((p for p in PATHS if scope["path"].startswith(p)), "other")
                status, started = [500], time.monotonic()

                async def sent(message: Any) -> None:
                    if message["type"] == "http.response.start":
                        status[0] = message["status"]
                    await send(message)

                try:
                    await app(scope, receive, sent)
                finally:
                    self._requests.labels(path, str(status[0])).inc()
                    self._seconds.labels(path).observe(time.monotonic() - started)

            return counted

        return wrap
