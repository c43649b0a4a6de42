"""Reward models with one number a position: P(correct) is its sigmoid.

Skywork's PRM has such a head, and so have sequence classifiers with one label, as TRL's
RewardTrainer writes them. Such an outcome model is trained by the Bradley-Terry loss:
sigmoid(score) is the probability that it prefers the solution to one of score 0, no share of
correct ones.
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
    """sigmoid(value) at each position; a `rewards.base.RewardModel`."""
    use_plain_attention_on_cpu(model.eval())

    def read(
        ids_RL: Tensor, mask_RL: Tensor, step_ends: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        values_RL = values(ids_RL.to(model.device), mask_RL.to(model.device))
        scores_RL = values_RL.float().sigmoid().cpu()
        return [[float(scores_RL[i, end]) for end in ends] for i, ends in enumerate(step_ends)]

    return PositionReader(read, pad_token_id, flops)


def sequence_classifier_values(model: Any) -> Values:
    """The one label's score of a sequence classifier, at every position rather than at the last
    one that is not padding, which in transformers is another where the padding token ends a text.

    Raises ValueError for a model with several labels and one without a linear head on its hidden
    states.
    """
    if model.config.num_labels != 1:
        raise ValueError(
            f"the outcome reward model has num_labels={model.config.num_labels}; it must have 1"
        )
    if not hasattr(model, "score"):
        raise ValueError(
            f"the outcome reward model is a {type(model).__name__}, whose head does not read "
            "single positions; a decoder's sequence classification model does"
        )

    def values(ids_RL: Tensor, mask_RL: Tensor) -> Tensor:
        hidden_RLH = model.base_model(input_ids=ids_RL, attention_mask=mask_RL).last_hidden_state
        return model.score(hidden_RLH)[..., 0]

    return values
