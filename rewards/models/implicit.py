"""The implicit process reward of two causal language models (Yuan et al. 2412.01981, section 3).

A model can be trained on outcomes alone, with the reward
r(y) = beta log(pi(y | x) / pi_ref(y | x)). Such a model contains process rewards too. Let q_t be
beta x the log-ratio of the first t tokens. It is the soft value of the prefix (proposition 3.1 of
the paper). PRIME (2502.01456, section 3) uses the differences of q_t as rewards of tokens.

Here, the score of a step is sigmoid(q_t) at its end. With the cross-entropy loss of the paper, the
score of the last step is the probability of a correct answer that the model was trained to predict.
For models trained by DPO, the score is not a probability. It only ranks, and needs calibration.
Both models read the same tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch

from data.types import ModelUsage, SteppedSolution
from rewards.base import check_steps
from rewards.models.bit_identity import batches_of_one_length
from rewards.models.causal_lm import NextTokens, split_rows
from rewards.models.position_reader import padded_rows
from rewards.models.rendering import Render
from rewards.models.text_models import check_lengths


class ImplicitRewardModel:
    """Implements `rewards.base.TextRewardModel`.

    `flops(start, end)` gives the FLOPs of one sequence's forward pass through both decoders,
    without their heads. `beta` must be the beta of the training. Raises ValueError when `beta` is
    not positive and when the two models have different vocabulary sizes.
    """

    def __init__(
        self,
        model: Any,
        reference: Any,
        render: Render,
        pad_token_id: int,
        flops: Callable[[int, int], float],
        *,
        beta: float,
        max_tokens: int,
        max_rows: int = 64,
    ) -> None:
        if not beta > 0:
            raise ValueError(f"beta is {beta}; it must be positive")
        sizes = (model.config.vocab_size, reference.config.vocab_size)
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"the implicit reward's model has {sizes[0]} tokens, its reference {sizes[1]}: "
                "they must share one tokenizer"
            )
        self.model = NextTokens(model)
        self.reference = NextTokens(reference)
        self.render = render
        self.pad_token_id = pad_token_id
        self.flops = flops
        self.beta = beta
        self.max_tokens = max_tokens
        self.max_rows = max_rows

    @torch.inference_mode()
    def score_solutions(
        self, solutions: Sequence[SteppedSolution]
    ) -> tuple[list[list[float]], list[ModelUsage]]:
        check_steps(solutions)
        rendered = [self.render(solution) for solution in solutions]
        lengths = [len(r.token_ids) for r in rendered]
        check_lengths(lengths, self.max_tokens)
        for i, r in enumerate(rendered):
            if r.prompt_length < 1:
                raise ValueError(f"solution {i} has an empty prompt, so nothing predicts a step")
        scores: list[list[float]] = [[] for _ in solutions]
        for batch in batches_of_one_length(lengths, [1] * len(lengths), self.max_rows):
            sequences = [rendered[i].token_ids for i in batch]
            # Each token of the solution is predicted at the position before it.
            before = [range(rendered[i].prompt_length - 1, lengths[i] - 1) for i in batch]
            ratios = self._log_ratios(sequences, before)
            for i, of_tokens in zip(batch, ratios, strict=True):
                sums = list(accumulate(of_tokens, initial=0.0))
                first = rendered[i].prompt_length - 1
                at = [max(0, end - first) for end in rendered[i].step_ends]
                values: Any = torch.tensor([self.beta * sums[n] for n in at], dtype=torch.float64)
                scores[i] = values.sigmoid().tolist()
        weight = self.model.head.weight
        per_token = 2.0 * weight.shape[0] * weight.shape[1]
        heads = per_token + 2.0 * self.reference.head.weight.numel()
        usage = [
            ModelUsage(
                prompt_tokens=2 * length,
                positions=2 * length,
                sequences=2,
                flops=self.flops(0, length) + heads * (length - r.prompt_length),
            )
            for length, r in zip(lengths, rendered, strict=True)
        ]
        return scores, usage

    def _log_ratios(
        self, sequences: Sequence[Sequence[int]], before: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """log(pi / pi_ref), in nats, of the tokens after the positions `before`, per sequence."""
        ids_RL, mask_RL = padded_rows(sequences, self.pad_token_id)
        tokens = [
            sequence[position + 1]
            for sequence, positions in zip(sequences, before, strict=True)
            for position in positions
        ]
        if not tokens:
            return [[] for _ in sequences]
        found: list[torch.Tensor] = []
        for model in (self.model, self.reference):
            hidden_NH = model.hidden(ids_RL, mask_RL, before)
            fill = len(hidden_NH) - len(tokens)
            logprobs_N = model.logprobs(hidden_NH, tokens + tokens[:1] * fill)
            found.append(logprobs_N.double().cpu())
        ratios_N: Any = found[0] - found[1]
        return split_rows(ratios_N.tolist(), before)
