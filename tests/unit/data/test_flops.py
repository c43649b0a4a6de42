"""FLOPs of a mixture of experts: only the experts that a token goes through."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    MixtralConfig,
    PretrainedConfig,
    Qwen2MoeConfig,
)

from data.flops import flop_model

SIZES: dict[str, Any] = {
    "vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "num_experts_per_tok": 2,
}  # fmt: skip
# Per layer: two norms of 32; Q and O of 32 x 32, K and V of 32 x 16.
LAYER = 2 * 32 + 2 * 32 * 32 + 2 * 32 * 16
NORM = 32


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # A router of 4 x 32; two active experts of 3 x 32 x 24.
        (
            MixtralConfig(intermediate_size=24, num_local_experts=4, **SIZES),
            2 * (LAYER + 4 * 32 + 2 * 3 * 32 * 24) + NORM,
        ),
        # Biases of Q, K and V (32 + 16 + 16); a shared expert of 3 x 32 x 8 with its gate of 32.
        (
            Qwen2MoeConfig(
                num_experts=4, moe_intermediate_size=16, shared_expert_intermediate_size=8, **SIZES
            ),
            2 * (LAYER + 64 + 4 * 32 + 2 * 3 * 32 * 16 + 3 * 32 * 8 + 32) + NORM,
        ),
    ],
)
def test_a_token_goes_through_its_active_experts(config: PretrainedConfig, expected: int) -> None:
    flops = flop_model(AutoModelForCausalLM.from_config(config))
    assert flops.body_parameters == expected
    assert flops.head_parameters == 50 * 32


def test_dense_layers_and_shared_experts_stay_active() -> None:
    config = DeepseekV3Config(
        vocab_size=50, hidden_size=32, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, n_routed_experts=4, num_experts_per_tok=2,
        n_group=2, topk_group=1, moe_intermediate_size=16, first_k_dense_replace=1, q_lora_rank=8,
        kv_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=4, v_head_dim=4,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    everything = sum(p.numel() for p in model.parameters())
    # Without the embedding and the head, and without 2 of the 4 routed experts of one layer.
    expected = everything - 2 * 50 * 32 - 2 * 3 * 32 * 16
    assert flop_model(model).body_parameters == expected


def test_experts_without_a_count_are_an_error() -> None:
    config = MixtralConfig(intermediate_size=24, num_local_experts=4, **SIZES)
    model = AutoModelForCausalLM.from_config(config)
    model.config.num_experts_per_tok = 0
    with pytest.raises(ValueError, match="mixtral has experts, but its config has no num_experts_"):
        flop_model(model)
