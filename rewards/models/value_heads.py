"""Reward models with one number per position, whose sigmoid is P(correct).

Skywork's PRM has such a head. Sequence classifiers with one label, which TRL's RewardTrainer
writes, have one too. They are outcome models trained by the Bradley-Terry loss. Their
sigmoid(score) is the probability that the model prefers the solution to a solution with score 0. It
is not a share of correct solutions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from rewards.models.bit_identity import use_plain_attention_on_cpu
from rewards.models.position_reader import PositionReader

Values = Callable[[Tensor, Tensor], Tensor]  # (ids_RL, mask_RL) -> values_RL


def value_head_reader(
    model: Any, values: Values, pad_token_id: int, flops: Callable[[int, int], float]
) -> PositionReader:
    """A `rewards.base.RewardModel` with the score sigmoid(value) at each position."""
    use_plain_attention_on_cpu(model.eval())

    def read(
        ids_RL: Tensor, mask_RL: Tensor, step_ends: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        values_RL = values(ids_RL.to(model.device), mask_RL.to(model.device))
        scores_RL = values_RL.float().sigmoid().cpu()
        return [[float(scores_RL[i, end]) for end in ends] for i, ends in enumerate(step_ends)]

    return PositionReader(read, pad_token_id, flops)


def sequence_classifier_values(model: Any) -> Values:
    """A function that gives the score of a sequence classifier's one label at every position.

    transformers itself gives the score only at the last token that is not padding. That is another
    token when the padding token also ends a text. Raises ValueError for a model with several labels
    and for a model without a linear head on its hidden states.
    """
    if model.config.num_labels != 1:
        raise ValueError(
            f"the outcome reward model has num_labels={model.config.num_labels}; it must have 1"
        )
    if not hasattr(model, "score"):
        raise ValueError(
            f"the outcome reward model is a {type(model).__name__}, whose head does not read "
            "single positions; it must be the sequence classification model of a decoder"
        )

    def values(ids_RL: Tensor, mask_RL: Tensor) -> Tensor:
        hidden_RLH = model.base_model(input_ids=ids_RL, attention_mask=mask_RL).last_hidden_state
        return model.score(hidden_RLH)[..., 0]

    return values
