"""The rows of a decoded batch, in each of which a sample grows. Legend: R rows."""

# torch declares no type of what `tolist` gives.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from data.types import Sample, StopReason, TokenDraws
from search.base import SampleRequest
from search.noise import row_key


@dataclass(slots=True)
class Row:
    """A sample of request `request`, with its index, while it is decoded."""

    request: int
    index: int
    token_ids: list[int] = field(default_factory=list[int])
    step_logprobs: list[float] = field(default_factory=list[float])
    step_entropies: list[float] = field(default_factory=list[float])
    new_step: bool = True
    stop_reason: StopReason | None = None
    kept: bool = False  # the keys and values of the row are kept
    draws: list[tuple[float, float, float]] = field(
        default_factory=list[tuple[float, float, float]]
    )

    def add(self, token: int, logprob: float, entropy: float, *, ends_step: bool) -> None:
        """Add a token. Log-probability and entropy are in nats."""
        self.token_ids.append(token)
        if self.new_step:
            self.step_logprobs.append(0.0)
            self.step_entropies.append(0.0)
        self.step_logprobs[-1] += logprob
        self.step_entropies[-1] += entropy
        self.new_step = ends_step

    def sample(self, *, with_draws: bool) -> Sample:
        """The finished sample."""
        assert self.stop_reason is not None
        draws: TokenDraws | None = None
        if with_draws:
            logprobs, entropies, drawn = zip(*self.draws, strict=True)
            draws = TokenDraws(logprobs=logprobs, entropies=entropies, draw_logprobs=drawn)
        return Sample(
            token_ids=tuple(self.token_ids),
            step_logprobs=tuple(self.step_logprobs),
            step_entropies=tuple(self.step_entropies),
            stop_reason=self.stop_reason,
            draws=draws,
        )


def add_draws(alive: Sequence[Row], logprob_R: Tensor, entropy_R: Tensor, drawn_R: Tensor) -> None:
    """Add the numbers of `data.types.TokenDraws` of the rows' last tokens."""
    logprobs: list[float] = logprob_R.tolist()
    entropies: list[float] = entropy_R.tolist()
    draws: list[float] = drawn_R.tolist()
    numbers = zip(logprobs, entropies, draws, strict=True)
    for row, of_token in zip(alive, numbers, strict=True):
        if len(row.draws) < len(row.token_ids):  # the row was not finished before this token
            row.draws.append(of_token)


def row_starts(
    items: Sequence[tuple[str, SampleRequest]], rows: Sequence[Row], seed: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each row the key of its noise, its temperature, its first token (the last of its prefix)
    and the position of this token, all (R,)."""
    asked = [items[row.request] for row in rows]
    keys = [
        row_key(seed, problem_id, request.node, row.index)
        for (problem_id, request), row in zip(asked, rows, strict=True)
    ]
    columns = (
        keys,
        [request.temperature for _, request in asked],
        [request.prefix[-1] for _, request in asked],
        [len(request.prefix) - 1 for _, request in asked],
    )
    keys_R, temperature_R, token_R, position_R = (
        torch.tensor(column, device=device) for column in columns
    )
    return keys_R, temperature_R, token_R, position_R
