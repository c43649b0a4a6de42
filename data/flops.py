"""Floating point operations of a decoder-only transformer's forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class FlopModel:
    """2 x active parameters per position (embedding look-ups do no arithmetic, the output head
    does), plus 4 x layers x width x context for attention's two products (Kaplan et al. 2020)."""

    body_parameters: int  # of matrix products at every position
    head_parameters: int  # of the output head, which a prefill runs at its last position alone
    layers: int
    attention_width: int  # heads x head size

    def forward(self, start: int, end: int, outputs: int | None = None) -> float:
        """FLOPs of running positions start..end-1 of one sequence, each attending to all before,
        with the output head at `outputs` of them (None: at all)."""
        context = (end * (end + 1) - start * (start + 1)) / 2
        heads = end - start if outputs is None else outputs
        return (
            2.0 * (self.body_parameters * (end - start) + self.head_parameters * heads)
            + 4.0 * self.layers * self.attention_width * context
        )


def flop_model(model: Any) -> FlopModel:
    """Read the sizes off a transformers model (causal LM or token classification)."""
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
        body_parameters=total - _size(embedding) - (0 if tied else outputs),
        head_parameters=outputs,
        layers=config.num_hidden_layers,
        attention_width=config.num_attention_heads * head_size,
    )


def _size(parameter: Any) -> int:
    """Numbers in a parameter: of the whole of it where DeepSpeed's ZeRO-3 keeps a share here."""
    return int(getattr(parameter, "ds_numel", None) or parameter.numel())
