"""Floating point operations of a decoder-only transformer's forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class FlopModel:
    """2 x active parameters per position (embedding look-ups do no arithmetic, the output head
    does), plus 4 x layers x width x context for attention's two products (Kaplan et al. 2020)."""

    matmul_parameters: int
    layers: int
    attention_width: int  # heads x head size

    def forward(self, start: int, end: int) -> float:
        """FLOPs of running positions start..end-1 of one sequence, each attending to all before."""
        context = (end * (end + 1) - start * (start + 1)) / 2
        return (
            2.0 * self.matmul_parameters * (end - start)
            + 4.0 * self.layers * self.attention_width * context
        )


def flop_model(model: Any) -> FlopModel:
    """Read the sizes off a transformers model (causal LM or token classification)."""
    config = model.config.get_text_config()
    embedding = model.get_input_embeddings().weight
    total = sum(parameter.numel() for parameter in model.parameters())
    head = model.get_output_embeddings()
    tied = head is not None and head.weight is embedding
    matmul = total if tied else total - embedding.numel()
    head_size = getattr(config, "head_dim", None) or (
        config.hidden_size // config.num_attention_heads
    )
    return FlopModel(
        matmul_parameters=matmul,
        layers=config.num_hidden_layers,
        attention_width=config.num_attention_heads * head_size,
    )
