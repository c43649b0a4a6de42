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
    logits_RV = logits_RV.float()
    logprobs_RV = torch.log_softmax(logits_RV, dim=-1)
    if excluded_RV is not None:
        logits_RV = logits_RV.masked_fill(excluded_RV, -torch.inf)
    has_tail = logits_RV.shape[1] > TOP_K
    if has_tail:
        top_RK, ids_RK = logits_RV.topk(TOP_K, dim=-1)
    else:
        top_RK = logits_RV
        ids_RK = torch.arange(logits_RV.shape[1], device=logits_RV.device).expand_as(logits_RV)
    noise_RK = gumbel_noise(keys_R, position, ids_RK)
    greedy_R1 = (temperature_R == 0)[:, None]
    scale_R1 = torch.where(
        greedy_R1, torch.ones_like(temperature_R)[:, None], temperature_R[:, None]
    )
    noised_RK = top_RK.double() / scale_R1 + noise_RK.masked_fill(greedy_R1, 0.0)
    winner_R1 = noised_RK.argmax(dim=-1, keepdim=True)
    token_R = ids_RK.gather(1, winner_R1).squeeze(1)
    if has_tail:
        best_R1 = noised_RK.gather(1, winner_R1)
        tail_RV = (logits_RV / scale_R1).scatter(1, ids_RK, -torch.inf)
        token_R = _with_tail(tail_RV, best_R1, token_R, keys_R, position, ~greedy_R1)
    probabilities_RV = logprobs_RV.exp()
    terms_RV = torch.where(probabilities_RV == 0, 0.0, -logprobs_RV * probabilities_RV)
    entropy_R = terms_RV.sum(dim=-1)
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


def _with_tail(
    tail_RV: Tensor,
    best_R1: Tensor,
    token_R: Tensor,
    keys_R: Tensor,
    position: int,
    sampled_R1: Tensor,
) -> Tensor:
    """The tokens, with one of the tail in the rows whose tail wins against `best_R1`. Noise of the
    ids V (the tail as one candidate) and V+1 to 2V (its tokens) has no other use."""
    vocabulary = tail_RV.shape[1]
    one_R1 = torch.full_like(token_R, vocabulary)[:, None]
    noised_R1 = tail_RV.double().logsumexp(dim=-1, keepdim=True) + gumbel_noise(
        keys_R, position, one_R1
    )
    rows_T = torch.nonzero((sampled_R1 & (noised_R1 > best_R1)).squeeze(1)).squeeze(1)
    if len(rows_T) == 0:
        return token_R
    ids_TV = torch.arange(vocabulary, device=tail_RV.device).expand(len(rows_T), -1)
    noise_TV = gumbel_noise(keys_R[rows_T], position, vocabulary + 1 + ids_TV)
    chosen_T = (tail_RV[rows_T].double() + noise_TV).argmax(dim=-1)
    return token_R.index_copy(0, rows_T, chosen_T)
