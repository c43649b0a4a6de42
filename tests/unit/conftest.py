"""A real, tiny model: small enough for unit tests, wide enough to be unsure of every token."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trainer.models.loading import build_policy

TINY = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
}


@pytest.fixture(scope="session")
def tiny_policy() -> tuple[Any, Any]:
    torch.manual_seed(3)
    return build_policy(TINY, "numbers", 40)
