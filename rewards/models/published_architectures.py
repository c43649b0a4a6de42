"""Architectures of published process reward models that transformers does not have.

The folders of these models refer to their own code (`auto_map`). This code is never run. The
classes here have the same parameters with the same names, so `from_pretrained` can read the
weights.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import Qwen2Config
from transformers.modeling_outputs import TokenClassifierOutput
from transformers.models.qwen2.modeling_qwen2 import Qwen2Model, Qwen2PreTrainedModel


class Qwen2ForProcessRewardModel(Qwen2PreTrainedModel):
    """Qwen2.5-Math-PRM (2501.07301): two linear layers with a ReLU between them, two classes."""

    _keys_to_ignore_on_load_unexpected = ["lm_head"]  # noqa: RUF012

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__(config)  # pyright: ignore[reportUnknownMemberType]
        size: int = config.hidden_size
        self.model = Qwen2Model(config)
        self.score = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, 2))
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> TokenClassifierOutput:
        hidden_RLH = self.model(
            input_ids=input_ids, attention_mask=attention_mask
        ).last_hidden_state
        return TokenClassifierOutput(logits=self.score(hidden_RLH))


class ValueHead(nn.Module):
    """A linear layer that gives one number per position."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.summary = nn.Linear(size, 1)

    def forward(self, hidden_RLH: Tensor) -> Tensor:
        return self.summary(hidden_RLH)


class Qwen2ForPrmModel(Qwen2PreTrainedModel):
    """Skywork-o1-Open-PRM: a value head on Qwen2. The dropout of the original is left out, because
    only training uses it."""

    _keys_to_ignore_on_load_unexpected = ["lm_head"]  # noqa: RUF012

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__(config)  # pyright: ignore[reportUnknownMemberType]
        self.model = Qwen2Model(config)
        self.v_head = ValueHead(config.hidden_size)
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> TokenClassifierOutput:
        hidden_RLH = self.model(
            input_ids=input_ids, attention_mask=attention_mask
        ).last_hidden_state
        return TokenClassifierOutput(logits=self.v_head(hidden_RLH))


PUBLISHED: dict[str, Any] = {
    "Qwen2ForProcessRewardModel": Qwen2ForProcessRewardModel,
    "Qwen2ForPrmModel": Qwen2ForPrmModel,
}
