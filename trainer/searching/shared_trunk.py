"""A reward model on the policy's trunk: weights, keys and values are there once for both."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from rewards.models.prm import ProcessRewardModel
from search.engines.transformers_engine import TransformersEngine
from search.scorer import RewardScorer


def share_trunk(engine: TransformersEngine, scorer: RewardScorer) -> None:
    """If the scorer's reward model has the trunk of the engine's policy, both use the same weights
    and the same kept prefixes, and a search counts what one of them has read as known to both."""
    reward_model = scorer.reward_model
    assert isinstance(reward_model, ProcessRewardModel)
    policys, own = engine.model.base_model, reward_model.model.base_model
    if not same_trunk(policys, own):
        return
    scorer.shares_trunk = True
    for policys_part, own_part in zip(policys.modules(), own.modules(), strict=True):
        for name in own_part._parameters:
            own_part._parameters[name] = policys_part._parameters[name]
    reward_model.share_prefixes(engine.prefixes)


def same_trunk(first: Any, second: Any) -> bool:
    """Whether two models without heads have the same kind and, bit by bit, the same weights."""
    if type(first) is not type(second):
        return False
    ours: dict[str, nn.Parameter] = dict(first.named_parameters())
    theirs: dict[str, nn.Parameter] = dict(second.named_parameters())
    return ours.keys() == theirs.keys() and all(
        weights.dtype == theirs[name].dtype
        and weights.shape == theirs[name].shape
        and torch.equal(weights, theirs[name])
        for name, weights in ours.items()
    )
