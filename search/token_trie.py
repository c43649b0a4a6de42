"""Which token sequences were drawn so far, and how much probability is left at every place.

Incremental sampling without replacement (Shi et al., 2002.09067, algorithm 1): all sequences drawn
so far form a trie. Every place in it knows which share of its probability was not drawn yet. A draw
walks down the trie from a place. It takes each next token with the probability that is left below
that token, and leaves the trie at the first token that was never drawn. From there on the policy
samples freely. Each draw is therefore an exact draw from the policy's distribution over all
sequences that were not drawn before.

The trie needs no distribution over the vocabulary. The tokens that were never drawn at a place are
one branch, with the probability `unseen`. The engine draws among them (`SampleRequest.excluded`)
and says with which probability q it took its token. So the token has the probability unseen x q,
and unseen x (1 - q) stays. These products are exact where differences would cancel: the last token
of a place has q = 1, and leaves 0.

The trie is compressed: a chain holds the tokens of one sequence from the place where it left the
trie.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from data.types import TokenDraws

# After two draws of one round, a smaller share of what was unseen is a rounding error.
ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class Walk:
    """The place where a draw leaves the trie: the tokens from the root of the trie to this place,
    the tokens that were drawn there before, and the probability of all others."""

    prefix: tuple[int, ...]
    excluded: tuple[int, ...]
    unseen: float


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A whole sequence from the root of the trie, and its numbers."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]  # nats, per token, at temperature 1
    entropies: tuple[float, ...]  # nats, per token, at temperature 1


class _Chain:
    """Token i leads to place i. The next token of place i is token i + 1 or the first token of one
    of `branches[i]`."""

    __slots__ = ("branches", "entropies", "left", "logprobs", "shares", "tokens", "unseen")

    def __init__(
        self, tokens: Sequence[int], shares: Sequence[float], draws: TokenDraws, start: int
    ) -> None:
        self.tokens = tuple(tokens)
        self.shares = array("d", shares)  # probability of token i at the place before it
        self.logprobs = array("d", draws.logprobs[start:])
        self.entropies = array("d", draws.entropies[start:])
        self.left = array("d", [0.0]) * len(self.tokens)  # share of place i not drawn
        # share of place i whose tokens were never drawn there; the last place is an end
        self.unseen = array("d", [*map(_others, draws.draw_logprobs[start + 1 :]), 0.0])
        self.branches: dict[int, list[_Chain]] = {}


_Place = tuple[_Chain, int]


class TokenTrie:
    """The sequences drawn from one prompt (see the docstring of this module).

    All sequences must end by the same rule: at the same tokens or at the same length. Probabilities
    are those of the sampling temperature.
    """

    def __init__(self) -> None:
        nothing = TokenDraws(logprobs=(0.0,), entropies=(0.0,), draw_logprobs=(0.0,))
        self._root = _Chain((-1,), (1.0,), nothing, 0)
        self._root.left[0] = self._root.unseen[0] = 1.0

    def left(self, prefix: Sequence[int] = ()) -> float:
        """The share of the probability of `prefix`, in [0, 1], whose sequences were not drawn."""
        chain, i = self._path(prefix)[-1]
        return chain.left[i]

    def probability(self, prefix: Sequence[int]) -> float:
        """The probability that a sequence begins with `prefix`."""
        return math.prod(chain.shares[i] for chain, i in self._path(prefix))

    def walk(self, dice: Callable[[int], float], start: Sequence[int] = ()) -> Walk:
        """Walk from the place `start` to a place where the next token is a new one. `dice(depth)`
        are independent numbers, uniform in (0, 1). Something must be left below `start`."""
        prefix = list(start)
        place = self._path(start)[-1]
        while True:
            chain, i = place
            children = list(_children(place))
            weights = [c.shares[k] * c.left[k] for c, k in children]
            rest = dice(len(prefix)) * (math.fsum(weights) + chain.unseen[i])
            chosen: _Place | None = None
            for child, weight in zip(children, weights, strict=True):
                if weight > 0:
                    chosen = child
                    rest -= weight
                    if rest < 0:
                        break
            if chosen is None or (rest >= 0 and chain.unseen[i] > 0):
                assert chain.unseen[i] > 0, "a walk needs probability that is left"
                return Walk(
                    prefix=tuple(prefix),
                    excluded=tuple(c.tokens[k] for c, k in children),
                    unseen=chain.unseen[i],
                )
            place = chosen
            prefix.append(place[0].tokens[place[1]])

    def add(self, walk: Walk, token_ids: Sequence[int], draws: TokenDraws) -> Drawn | None:
        """Add the sequence that goes on after `walk` with a sample of these tokens. Returns the
        whole sequence, or None when it was added after the walk began."""
        path = self._path(walk.prefix)
        for k, token in enumerate(token_ids):
            child = _child(path[-1], token)
            if child is None:
                before = walk.unseen if k == 0 else 1.0
                self._branch(path[-1], before, token_ids, draws, k)
                _refresh(path)
                return _drawn(path, token_ids[k:], draws, k)
            path.append(child)
        assert path[-1][0].left[path[-1][1]] == 0, "a sequence ends where another one goes on"
        return None

    def _branch(
        self, place: _Place, before: float, token_ids: Sequence[int], draws: TokenDraws, k: int
    ) -> None:
        """Hang the tokens from k on below `place`. `before` was unseen there when token k was
        drawn."""
        chain, i = place
        first = before * math.exp(draws.draw_logprobs[k])
        if chain.unseen[i] == before:
            chain.unseen[i] = before * _others(draws.draw_logprobs[k])
        else:
            rest = chain.unseen[i] - first
            chain.unseen[i] = rest if rest > ROUNDING * before else 0.0
        shares = [first, *map(math.exp, draws.draw_logprobs[k + 1 :])]
        branch = _Chain(token_ids[k:], shares, draws, k)
        for j in range(len(branch.tokens) - 2, -1, -1):
            branch.left[j] = branch.unseen[j] + branch.shares[j + 1] * branch.left[j + 1]
        chain.branches.setdefault(i, []).append(branch)

    def _path(self, prefix: Sequence[int]) -> list[_Place]:
        """The places from the root to the end of `prefix`, both included."""
        path: list[_Place] = [(self._root, 0)]
        for token in prefix:
            child = _child(path[-1], token)
            assert child is not None, "no drawn sequence begins with this prefix"
            path.append(child)
        return path


def _others(draw_logprob: float) -> float:
    """1 - exp(draw_logprob), without cancellation."""
    return max(0.0, -math.expm1(draw_logprob))


def _children(place: _Place) -> Iterator[_Place]:
    """The next places, in the order in which they were drawn first."""
    chain, i = place
    if i + 1 < len(chain.tokens):
        yield chain, i + 1
    for branch in chain.branches.get(i, ()):
        yield branch, 0


def _child(place: _Place, token: int) -> _Place | None:
    chain, i = place
    if i + 1 < len(chain.tokens) and chain.tokens[i + 1] == token:
        return chain, i + 1
    for branch in chain.branches.get(i, ()):
        if branch.tokens[0] == token:
            return branch, 0
    return None


def _refresh(path: Sequence[_Place]) -> None:
    """Compute again what is left at the places of a path, from its end to the root."""
    for chain, i in reversed(path):
        below = math.fsum(c.shares[k] * c.left[k] for c, k in _children((chain, i)))
        chain.left[i] = min(1.0, chain.unseen[i] + below)


def _drawn(path: Sequence[_Place], tokens: Sequence[int], draws: TokenDraws, k: int) -> Drawn:
    inside = path[1:]  # without the root, which has no token
    return Drawn(
        token_ids=(*(c.tokens[i] for c, i in inside), *tokens),
        logprobs=(*(c.logprobs[i] for c, i in inside), *draws.logprobs[k:]),
        entropies=(*(c.entropies[i] for c, i in inside), *draws.entropies[k:]),
    )
