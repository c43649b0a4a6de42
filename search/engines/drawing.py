"""The draw of one token per row from the distribution of a whole vocabulary.

Legend: R rows, V vocabulary, K candidate tokens, T rows that draw from the tail.

The Gumbel-max trick needs noise for every token, and most of a large vocabulary has nearly no
probability. So the K largest logits have noise of their own, and all other tokens, the tail, are
first one candidate together: the maximum of independent Gumbel variables with locations x_i is a
Gumbel variable with the location logsumexp(x) (Maddison et al. 2014, "A* Sampling", section 2).
Only a row whose tail wins draws a token of its tail. The result is an exact draw from all V tokens:
its probabilities are the ones that a trainer reads off the same logits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from search.noise import gumbel_noise

TOP_K = 256  # tokens with noise of their own; a smaller vocabulary has no tail
LARGE = 4096  # a vocabulary of this size is drawn from in parts of ROWS_IN_CACHE rows
ROWS_IN_CACHE = 4
LOWEST = -1e30  # finite, so that its product with a probability of 0 is 0


def draw(
    logits_RV: Tensor,
    keys_R: Tensor,
    temperature_R: Tensor,
    position: int,
    excluded_RV: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw one token per row with the Gumbel-max trick. A row with temperature 0 takes the token
    with the largest logit. A token that `excluded_RV` marks is never drawn.

    Returns the token ids (R,), their log-probabilities (R,) and the entropies of the distributions
    (R,). The last two are in nats, from the whole vocabulary's logits without noise at
    temperature 1, excluded tokens included.
    """
    # All of a few rows stays in the CPU's cache while it is read several times.
    size = len(logits_RV) if logits_RV.shape[1] < LARGE else ROWS_IN_CACHE
    if len(logits_RV) <= size or logits_RV.device.type != "cpu":
        return _draw(logits_RV, keys_R, temperature_R, position, excluded_RV)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for start in range(0, len(logits_RV), size):
        rows = slice(start, start + size)
        excluded = None if excluded_RV is None else excluded_RV[rows]
        parts.append(_draw(logits_RV[rows], keys_R[rows], temperature_R[rows], position, excluded))
    tokens, logprobs, entropies = zip(*parts, strict=True)
    return torch.cat(tokens), torch.cat(logprobs), torch.cat(entropies)


def _draw(
    logits_RV: Tensor,
    keys_R: Tensor,
    temperature_R: Tensor,
    position: int,
    excluded_RV: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    logits_RV = logits_RV.float()
    logprobs_RV = torch.log_softmax(logits_RV, dim=-1)
    probabilities_RV = logprobs_RV.exp()
    # A token without probability adds 0 x log 0 = 0 to the entropy.
    entropy_R = -(probabilities_RV * logprobs_RV.clamp_min(LOWEST)).sum(dim=-1)
    greedy_R1 = (temperature_R == 0)[:, None]
    scale_R1 = torch.where(greedy_R1, 1.0, temperature_R[:, None])
    scaled_RV, softmax_RV = logprobs_RV, probabilities_RV
    if excluded_RV is not None:
        scaled_RV = scaled_RV.masked_fill(excluded_RV, -torch.inf)
    if excluded_RV is not None or bool((scale_R1 != 1).any()):
        scaled_RV = torch.log_softmax(scaled_RV / scale_R1, dim=-1)
        softmax_RV = scaled_RV.exp()
    has_tail = logits_RV.shape[1] > TOP_K
    if has_tail:
        top_RK, ids_RK = scaled_RV.topk(TOP_K, dim=-1)
    else:
        top_RK = scaled_RV
        ids_RK = torch.arange(logits_RV.shape[1], device=logits_RV.device).expand_as(logits_RV)
    noise_RK = gumbel_noise(keys_R, position, ids_RK)
    noised_RK = top_RK.double() + noise_RK.masked_fill(greedy_R1, 0.0)
    winner_R1 = noised_RK.argmax(dim=-1, keepdim=True)
    token_R = ids_RK.gather(1, winner_R1).squeeze(1)
    if has_tail:
        best_R1 = noised_RK.gather(1, winner_R1).masked_fill(greedy_R1, torch.inf)
        # scatter_ changes the probabilities, which are not needed any more
        mass_R1 = softmax_RV.scatter_(1, ids_RK, 0.0).sum(dim=-1, keepdim=True)
        wins_R = _tail_wins(mass_R1, best_R1, keys_R, position, logits_RV.shape[1])
        token_R = _with_tail(scaled_RV, ids_RK, token_R, wins_R, keys_R, position)
    return token_R, logprobs_RV.gather(1, token_R[:, None]).squeeze(1), entropy_R


def draw_logprobs(
    logits_RV: Tensor, token_R: Tensor, temperature_R: Tensor, excluded_RV: Tensor | None = None
) -> Tensor:
    """The log-probabilities (R,), in nats, float64, with which `draw` took these tokens: at the
    temperature of the row, among the tokens that are not excluded. 0 at temperature 0."""
    scale_R = torch.where(temperature_R == 0, torch.ones_like(temperature_R), temperature_R)
    scaled_RV = logits_RV.float().double() / scale_R[:, None]
    if excluded_RV is not None:
        scaled_RV = scaled_RV.masked_fill(excluded_RV, -torch.inf)
    logprob_R = torch.log_softmax(scaled_RV, dim=-1).gather(1, token_R[:, None]).squeeze(1)
    return torch.where(temperature_R == 0, torch.zeros_like(logprob_R), logprob_R)


def excluded_tokens(rows: Sequence[Sequence[int]], logits_RV: Tensor) -> Tensor | None:
    """A mask (R, V) of the token ids that each row must not draw. None when no row excludes any.

    Raises ValueError for a row that excludes the whole vocabulary.
    """
    if not any(rows):
        return None
    excluded_RV = torch.zeros_like(logits_RV, dtype=torch.bool)
    for row, tokens in enumerate(rows):
        if len(set(tokens)) >= logits_RV.shape[1]:
            raise ValueError(f"a request excludes all {logits_RV.shape[1]} tokens there are")
        excluded_RV[row, list(tokens)] = True
    return excluded_RV


def _tail_wins(
    mass_R1: Tensor, best_R1: Tensor, keys_R: Tensor, position: int, vocabulary: int
) -> Tensor:
    """Whether the tail, of this probability, wins against the best of the other tokens (R,). Noise
    of the id V (the tail as one candidate) has no other use."""
    one_R1 = torch.full_like(keys_R, vocabulary)[:, None]
    noised_R1 = mass_R1.double().log() + gumbel_noise(keys_R, position, one_R1)
    return (noised_R1 > best_R1).squeeze(1)


def _with_tail(
    scaled_RV: Tensor,
    top_ids_RK: Tensor,
    token_R: Tensor,
    wins_R: Tensor,
    keys_R: Tensor,
    position: int,
) -> Tensor:
    """The tokens, with one of the tail in the rows whose tail wins. Noise of the ids V+1 to 2V (the
    tokens of the tail) has no other use."""
    rows_T = torch.nonzero(wins_R).squeeze(1)
    if len(rows_T) == 0:
        return token_R
    vocabulary = scaled_RV.shape[1]
    tail_TV = scaled_RV[rows_T].scatter(1, top_ids_RK[rows_T], -torch.inf).double()
    ids_TV = torch.arange(vocabulary, device=tail_TV.device).expand(len(rows_T), -1)
    noise_TV = gumbel_noise(keys_R[rows_T], position, vocabulary + 1 + ids_TV)
    return token_R.index_copy(0, rows_T, (tail_TV + noise_TV).argmax(dim=-1))
