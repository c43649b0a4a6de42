"""Actor and critic in one module, so that one engine holds both; they share no parameter.

B rows, L tokens, P = L - 1 positions, V vocabulary, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

CRITICS = ("policy", "reward_model", "reward_backbone")


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Of each position's next token: `logprobs_BP`, nats, at the sampling temperature;
    `entropy_BP` of the distribution it was drawn from; `values_BP` of the state before it."""

    logprobs_BP: Tensor
    entropy_BP: Tensor
    values_BP: Tensor


class Critic(nn.Module):
    """A value at every token: a head on a backbone of its own, and where it starts from a reward
    model, that model's P(correct) before it, so that its first values are the reward model's."""

    def __init__(self, backbone: Any, score: nn.Module | None) -> None:
        super().__init__()
        self.backbone = backbone
        self.score = score  # a reward model's two-class head, trained on
        self.head = nn.Linear(backbone.config.hidden_size, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Values, (B, L)."""
        hidden_BLD = self.backbone(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False
        ).last_hidden_state
        values_BL = self.head(hidden_BLD).squeeze(-1).float()
        if self.score is not None:
            logits_BL2 = self.score(hidden_BLD).float()
            values_BL = values_BL + torch.softmax(logits_BL2, dim=-1)[..., 1]
        return values_BL


class ActorCritic(nn.Module):
    def __init__(self, policy: Any, critic: Critic) -> None:
        super().__init__()
        self.policy = policy
        self.critic = critic

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, temperature: float = 1.0
    ) -> Predictions:
        logprobs_BP, entropy_BP = token_logprobs(
            self.policy, input_ids, attention_mask, temperature
        )
        values_BP = self.critic(input_ids, attention_mask)[:, :-1]
        return Predictions(logprobs_BP=logprobs_BP, entropy_BP=entropy_BP, values_BP=values_BP)


def token_logprobs(
    policy: Any, input_ids: Tensor, attention_mask: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """log pi(token p + 1 | tokens 0..p) and the entropy at p, nats, (B, P) each."""
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


def build_critic(start: str, policy: str, reward_model: str | None) -> Critic:
    """`start` policy: the policy's backbone under a head of zeros; reward_model: the reward
    model's backbone and its P(correct) (for rewards that are not shaped); reward_backbone: its
    backbone under a head of zeros (for shaped rewards, whose values must not start at Phi again:
    Wiewiora 2003).

    Raises ValueError for another start, or one that needs a reward model where none is given.
    """
    from transformers import AutoModel, AutoModelForTokenClassification
    from trl.trainer.utils import disable_dropout_in_model

    if start not in CRITICS:
        raise ValueError(f"critic is {start!r}; allowed: {', '.join(CRITICS)}")
    if start == "policy":
        backbone, score = AutoModel.from_pretrained(policy, dtype="auto"), None
    elif reward_model is None:
        raise ValueError(f"critic is {start!r}, but no reward_model is given")
    else:
        model = AutoModelForTokenClassification.from_pretrained(reward_model, dtype="auto")
        backbone = model.base_model
        score = model.score if start == "reward_model" else None
    disable_dropout_in_model(backbone)
    return Critic(backbone, score)
