"""What servers of a policy did for each stage, from the stages' manifests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from data.types import ServedTokens


@dataclass(frozen=True, kw_only=True)
class ServerWork:
    """The `ServedTokens` of the stage named `stage`, in tokens. `cached_share` is the share of the
    prompt tokens that were in a server's cache, in [0, 1]."""

    stage: str
    requests: int
    computed_tokens: int
    cached_tokens: int
    generated_tokens: int
    cached_share: float


def server_work(manifests: Mapping[str, Mapping[str, Any]]) -> list[ServerWork]:
    """The work of every stage that asked servers, in the order of the stages."""
    found: list[ServerWork] = []
    for name, manifest in manifests.items():
        metrics = manifest["metrics"]
        if "server_requests" in metrics:
            tokens = {f.name: int(metrics[f"server_{f.name}"]) for f in fields(ServedTokens)}
            prompts = tokens["computed_tokens"] + tokens["cached_tokens"]
            share = tokens["cached_tokens"] / prompts if prompts else 0.0
            found.append(ServerWork(stage=name, cached_share=share, **tokens))
    return found
