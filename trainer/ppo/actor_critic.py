"""Actor and critic in one module, so that one engine trains both. They share no parameter.

B rows, L tokens, P = L - 1 positions, V vocabulary, D width.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Predictions(NamedTuple):
    """Predictions about the next token of each position. `logprobs_BP` is its log-probability, in
    nats, at the sampling temperature. `entropy_BP` is the entropy of its distribution, in nats.
    `values_BP` is the value of the state before it. This is a tuple because DeepSpeed looks for
    tensors in tuples."""

    logprobs_BP: Tensor
    entropy_BP: Tensor
    values_BP: Tensor


class Critic(nn.Module):
    """Computes a value at every token, with a head on a separate backbone. A critic that starts
    from a reward model adds the head's output to P(correct) of that model's head. Its first values
    are then the reward model's scores."""

    def __init__(
        self, backbone: Any, score: nn.Module | None, temperature: float = 1.0, bias: float = 0.0
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.score = score  # the two-class head of a reward model; training continues with it
        # The calibration of the two classes (rewards/models/calibration.py).
        self.temperature, self.bias = temperature, bias
        self.head = nn.Linear(backbone.config.get_text_config().hidden_size, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Values of shape (B, L)."""
        hidden_BLD = self.backbone(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False
        ).last_hidden_state.to(self.head.weight.dtype)
        values_BL = self.head(hidden_BLD).squeeze(-1).float()
        if self.score is not None:
            logits_BL2 = self.score(hidden_BLD).float() / self.temperature
            shifted_BL2 = logits_BL2 + logits_BL2.new_tensor([0.0, self.bias])
            values_BL = values_BL + torch.softmax(shifted_BL2, dim=-1)[..., 1]
        return values_BL


class ActorCritic(nn.Module):
    def __init__(self, policy: Any, critic: Critic) -> None:
        super().__init__()
        self.policy = policy
        self.critic = critic

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        temperature: float = 1.0,
        values: bool = True,
    ) -> Predictions:
        """Without `values` the critic does not run, and all values are 0."""
        logprobs_BP, entropy_BP = token_logprobs(
            self.policy, input_ids, attention_mask, temperature
        )
        if values:
            values_BP = self.critic(input_ids, attention_mask)[:, :-1]
        else:  # DDP expects that every parameter has a part in the output
            parts = [p.sum() for p in self.critic.parameters() if p.requires_grad]
            values_BP = torch.zeros_like(logprobs_BP) + 0.0 * torch.stack(parts).sum()
        return Predictions(logprobs_BP=logprobs_BP, entropy_BP=entropy_BP, values_BP=values_BP)


def token_logprobs(
    policy: Any, input_ids: Tensor, attention_mask: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """log pi(token p + 1 | tokens 0..p) and the entropy at p, both in nats and of shape (B, P)."""
    logits_BPV = (
        policy(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        .logits[:, :-1]
        .float()
    )
    logprobs_BPV = torch.log_softmax(logits_BPV / temperature, dim=-1)
    chosen_BP = logprobs_BPV.gather(-1, input_ids[:, 1:, None]).squeeze(-1)
    with torch.no_grad():
        entropy_BP = -(logprobs_BPV.exp() * logprobs_BPV).nan_to_num().sum(-1)
    return chosen_BP, entropy_BP
