"""Samples without replacement: requests of a search, answered with distinct sequences alone.

A round of several draws takes independent samples of what is left, and drops every sequence that an
earlier draw of the round found. Sampling with replacement without the repetitions is sampling
without replacement, so the result is exact for rounds of any size. Dropped samples cost tokens.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from data.types import Sample, StopReason
from search.base import SampleRequest, Session
from search.noise import uniform
from search.token_trie import Drawn, TokenTrie, Walk


@dataclass(frozen=True, kw_only=True)
class DistinctRequest:
    """A request for `request.n` draws below `start`, which are the tokens between the root of the
    trie and the end of the request's prefix. `request.max_new_tokens` counts from the root of the
    trie, so that all sequences of a trie end by the same rule."""

    request: SampleRequest
    trie: TokenTrie
    start: tuple[int, ...] = ()


async def draw_distinct(
    session: Session, requests: Sequence[DistinctRequest]
) -> list[list[Sample]]:
    """The new sequences below each request's `start`, in the order of their draws. They are added
    to the request's trie.

    There is at least one, unless another request of this call took all that was left. The policy
    generates everything in one batch. Something must be left below every `start`.
    """
    walks = [[_walk(session, asked, i) for i in range(asked.request.n)] for asked in requests]
    parts: list[SampleRequest] = []
    sources: list[list[tuple[int, int]]] = []  # per request and walk: part, sample of the part
    for asked, of_request in zip(requests, walks, strict=True):
        sources.append(_split(asked, of_request, parts))
    results = await session.sample(parts)
    found: list[list[Sample]] = []
    for asked, of_request, source in zip(requests, walks, sources, strict=True):
        new: list[Sample] = []
        for walk, (part, i) in zip(of_request, source, strict=True):
            sample = results[part].samples[i]
            assert sample.draws is not None
            drawn = asked.trie.add(walk, sample.token_ids, sample.draws)
            if drawn is not None:
                new.append(_below(session, drawn, len(asked.start), sample.stop_reason))
        found.append(new)
    return found


def _walk(session: Session, asked: DistinctRequest, i: int) -> Walk:
    """The walk of draw i of a request. Its dice differ from those of all other draws of the search,
    and from those that strategies use, whose indices are small."""
    first = (asked.request.first_index + i + 1) << 24

    def dice(depth: int) -> float:
        seed, problem = session.engine.seed, session.problem.id
        return uniform(seed, problem, asked.request.node, first + depth)

    return asked.trie.walk(dice, asked.start)


def _split(
    asked: DistinctRequest, walks: Sequence[Walk], parts: list[SampleRequest]
) -> list[tuple[int, int]]:
    """Append one request per place where walks ended, so that a prefix runs once for all of its
    samples. Returns the part of each walk, and the sample of the part."""
    counts = Counter(walk.prefix for walk in walks)
    first: dict[tuple[int, ...], int] = {}
    used: Counter[tuple[int, ...]] = Counter()
    index = asked.request.first_index
    sources: list[tuple[int, int]] = []
    for walk in walks:
        if walk.prefix not in first:
            first[walk.prefix] = len(parts)
            part = replace(
                asked.request,
                prefix=asked.request.prefix + walk.prefix[len(asked.start) :],
                n=counts[walk.prefix],
                first_index=index,
                max_new_tokens=asked.request.max_new_tokens - len(walk.prefix),
                excluded=walk.excluded,
                with_draws=True,
            )
            parts.append(part)
            index += part.n
        sources.append((first[walk.prefix], used[walk.prefix]))
        used[walk.prefix] += 1
    return sources


def _below(session: Session, drawn: Drawn, start: int, stop_reason: StopReason) -> Sample:
    """The drawn sequence without its first `start` tokens, as a sample with one number per step."""
    token_ids = drawn.token_ids[start:]
    ends = session.engine.step_ends(token_ids)
    begins = [0, *(end + 1 for end in ends[:-1])]
    steps = [slice(start + a, start + b + 1) for a, b in zip(begins, ends, strict=True)]
    return Sample(
        token_ids=token_ids,
        step_logprobs=tuple(math.fsum(drawn.logprobs[step]) for step in steps),
        step_entropies=tuple(math.fsum(drawn.entropies[step]) for step in steps),
        stop_reason=stop_reason,
    )
