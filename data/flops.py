"""The floating point operations (FLOPs) of a decoder-only transformer's forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")  # keys of a model's config


@dataclass(frozen=True, kw_only=True)
class FlopModel:
    """The sizes that decide the FLOPs of a forward pass (Kaplan et al. 2020).

    A position costs 2 FLOPs per active parameter. The output head is active, and embedding look-ups
    are not, because they do no arithmetic. In a mixture of experts, a position goes through
    `num_experts_per_tok` of the routed experts, so this share of their parameters is active; router
    and shared experts are active at every position. The two products of attention cost 4 x layers x
    width x context per position.
    """

    body_parameters: int  # parameters of the matrix products at every position
    head_parameters: int  # parameters of the output head; a prefill runs it at its last position
    layers: int
    attention_width: int  # heads x head size

    def forward(self, start: int, end: int, outputs: int | None = None) -> float:
        """The FLOPs of positions start..end-1 of one sequence. Each position attends to itself and
        to all positions before it. The output head runs at `outputs` positions (None: at all)."""
        context = (end * (end + 1) - start * (start + 1)) / 2
        heads = end - start if outputs is None else outputs
        return (
            2.0 * (self.body_parameters * (end - start) + self.head_parameters * heads)
            + 4.0 * self.layers * self.attention_width * context
        )


def flop_model(model: Any) -> FlopModel:
    """The sizes of a transformers model (causal language model or token classification).

    Raises ValueError for a mixture of experts whose config does not say how many are active.
    """
    config = model.config.get_text_config()
    embedding = model.get_input_embeddings().weight
    total = sum(map(_size, model.parameters()))
    head = model.get_output_embeddings()
    tied = head is not None and head.weight is embedding
    outputs = 0 if head is None else sum(map(_size, head.parameters()))
    head_size = getattr(config, "head_dim", None) or (
        config.hidden_size // config.num_attention_heads
    )
    return FlopModel(
        body_parameters=total
        - _size(embedding)
        - (0 if tied else outputs)
        - _inactive_parameters(model, config),
        head_parameters=outputs,
        layers=config.num_hidden_layers,
        attention_width=config.num_attention_heads * head_size,
    )


def _inactive_parameters(model: Any, config: Any) -> int:
    """The parameters of routed experts that a position does not go through, on average."""
    routed = sum(_size(p) for name, p in model.named_parameters() if "experts" in name.split("."))
    if not routed:
        return 0
    experts = next((n for key in EXPERT_COUNTS if (n := getattr(config, key, None))), None)
    active = getattr(config, "num_experts_per_tok", None)
    if not experts or not active:
        raise ValueError(
            f"the model of type {config.model_type} has experts, but its config has no "
            f"num_experts_per_tok or none of {', '.join(EXPERT_COUNTS)}: its FLOPs are unknown"
        )
    return routed - routed * active // experts


def _size(parameter: Any) -> int:
    """The number of elements of a parameter. With DeepSpeed's ZeRO-3, which keeps only a share of a
    parameter on each process, this is the number of the whole parameter."""
    return int(getattr(parameter, "ds_numel", None) or parameter.numel())
