"""Causal language models as reward models: read their next-token distribution.

The output head runs only at the positions that are read. A head of 100,000 tokens at every position
would fill the memory. Legend: R rows, L padded length, H hidden size, N positions read, C chosen
tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from rewards.models.bit_identity import padded, use_plain_attention_on_cpu
from rewards.models.position_reader import PositionReader

CHUNK = 512  # number of positions whose whole distributions are in memory at the same time


class NextTokens:
    """Reads a causal language model at single positions.

    Raises ValueError for a model that scales or caps its logits. The logits must be the output
    embeddings applied to the last hidden states.
    """

    def __init__(self, model: Any) -> None:
        self.model = model.eval()
        use_plain_attention_on_cpu(model)
        self.decoder = model.get_decoder()
        self.head = model.get_output_embeddings()
        self._check()

    @torch.inference_mode()
    def _check(self) -> None:
        # The check avoids the first ids, because the embedding of a padding token may be all zeros.
        size = len(self.head.weight)
        ids_RL = torch.tensor([[size // 3, size // 2]], device=self.model.device)
        theirs_V = self.model(input_ids=ids_RL).logits[0, -1]
        ours_V = self.head(self.decoder(input_ids=ids_RL).last_hidden_state[0, -1])
        difference = (theirs_V.float() - ours_V.float()).abs().max()
        if difference > 1e-3 * theirs_V.float().abs().max():
            raise ValueError(
                f"{type(self.model).__name__} does more to its logits than apply the output "
                "embeddings; such a model cannot be read as a reward model"
            )

    def hidden(self, ids_RL: Tensor, mask_RL: Tensor, positions: Sequence[Sequence[int]]) -> Tensor:
        """The last hidden states (N, H) at the given positions, row after row.

        `positions[i]` belongs to row i. The result is filled up to a multiple of 16 states, so that
        no state depends on the number of states.
        """
        device = self.model.device
        hidden_RLH = self.decoder(
            input_ids=ids_RL.to(device), attention_mask=mask_RL.to(device)
        ).last_hidden_state
        rows = [i for i, of_row in enumerate(positions) for _ in of_row]
        columns = [position for of_row in positions for position in of_row]
        fill = padded(len(rows)) - len(rows)
        return hidden_RLH[rows + [0] * fill, columns + [0] * fill]

    def chosen_logits(self, hidden_NH: Tensor, tokens: Sequence[int]) -> Tensor:
        """The logits (N, C) of the next tokens `tokens`, in fp32."""
        weight_CH = self.head.weight[list(tokens)].float()
        bias_C = self.head.bias[list(tokens)].float() if self.head.bias is not None else 0.0
        return (hidden_NH.float()[:, None, :] * weight_CH).sum(dim=-1) + bias_C

    def logprobs(self, hidden_NH: Tensor, tokens_N: Sequence[int]) -> Tensor:
        """The log-probabilities (N,) of one next token per position, in nats, in fp32."""
        found: list[Tensor] = []
        ids_N = torch.tensor(list(tokens_N), device=hidden_NH.device)
        for start in range(0, len(hidden_NH), CHUNK):
            logits_NV = self.head(hidden_NH[start : start + CHUNK]).float()
            chosen_N = logits_NV.gather(1, ids_N[start : start + CHUNK, None])[:, 0]
            found.append(chosen_N - logits_NV.logsumexp(dim=-1))
        return torch.cat(found)


def split_rows(values: Sequence[float], positions: Sequence[Sequence[int]]) -> list[list[float]]:
    """Split values that are in the order of `NextTokens.hidden` into one list per row. Values after
    the last position are dropped."""
    left: Iterator[float] = iter(values)
    return [[next(left) for _ in of_row] for of_row in positions]


def candidate_reader(
    model: Any, good: int, bad: int, pad_token_id: int, flops: Callable[[int, int], float]
) -> PositionReader:
    """A `rewards.base.RewardModel` with the score P(good) / (P(good) + P(bad)) of the next token.

    `flops` gives the FLOPs of the decoder's forward pass, without the head. Raises ValueError when
    the two tokens are the same.
    """
    if good == bad:
        raise ValueError(f"good and bad are both token {good}; they must differ")
    next_tokens = NextTokens(model)

    def read(
        ids_RL: Tensor, mask_RL: Tensor, step_ends: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        hidden_NH = next_tokens.hidden(ids_RL, mask_RL, step_ends)
        logits_NC = next_tokens.chosen_logits(hidden_NH, (good, bad))
        values: Any = torch.softmax(logits_NC, dim=-1)[:, 0]
        return split_rows(values.tolist(), step_ends)

    return PositionReader(
        read, pad_token_id, flops, flops_per_read=2.0 * 2 * next_tokens.head.weight.shape[1]
    )
