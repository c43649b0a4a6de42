"""The memory model against numbers worked out by hand, and against what autograd really keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from trainer.pipeline.memory import (
    Training,
    cache_bytes,
    layer_activations,
    sampling_memory,
    sizes_of,
    training_memory,
)
from trainer.pipeline.published_sizes import KNOWN_MODELS

# Published counts (the models' cards round them: 0.49, 1.54, 7.61 and 0.135 billion).
PUBLISHED = {
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-7B": 7_615_616_512,
    "HuggingFaceTB/SmolLM2-135M-Instruct": 134_515_008,
}
# 2 layers of width 4, one head: attention 4 x 16, feed-forward 3 x 4 x 8, norms 8 = 168 a layer;
# 10 tokens tied 40; last norm 4. 380 in all.
SMALL = {
    "hidden_size": 4,
    "num_hidden_layers": 2,
    "intermediate_size": 8,
    "num_attention_heads": 1,
    "vocab_size": 10,
    "tie_word_embeddings": True,
}


def sizes(config: dict[str, Any] | None = None, **changes: Any) -> Any:
    found = sizes_of({**(config or SMALL), **changes})
    assert found is not None
    return found


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_of_published_models(name: str) -> None:
    assert sizes(dict(KNOWN_MODELS[name].config)).parameters == PUBLISHED[name]


def test_the_zero_papers_example() -> None:
    """1910.02054, figure 1: 7.5 B parameters, 64 processes, bf16 and a master copy: 120 GB without
    ZeRO, 31.4 with stage 1, 16.6 with stage 2, 1.9 with stage 3."""
    one = sizes(hidden_size=1, intermediate_size=1, num_hidden_layers=1, vocab_size=7_500_000_000)
    states = []
    for stage in range(4):
        memory = training_memory(
            Training(
                sizes=one, rows=0, length=1, precision="bf16_master", zero_stage=stage, processes=64
            )
        )
        gathered = 2e9 if stage == 3 else 0  # the paper leaves out what is being used
        states.append((memory.weights - gathered + memory.gradients + memory.optimizer) / 1e9)
    assert states == pytest.approx([120, 31.4, 16.6, 1.875], abs=0.05)


def test_a_step_by_hand() -> None:
    training = Training(sizes=sizes(), rows=2, length=5, precision="fp32")
    memory = training_memory(training)
    assert (memory.weights, memory.gradients, memory.optimizer) == (1520, 1520, 3040)
    # A layer and token: norms 2 x 12 x 4 = 96, attention 4 x (4 x 4 + 5) = 84, feed-forward
    # 4 x 4 x 8 = 128, statistics 12: 320. 10 tokens in 2 layers.
    assert memory.activations == 10 * 2 * 320
    assert memory.logits == 12 * 10 * 10
    assert memory.total == 1520 + 1520 + 3040 + 6400 + 1200


def test_checkpointing_keeps_inputs_and_one_layer() -> None:
    training = Training(
        sizes=sizes(), rows=2, length=5, precision="fp32", gradient_checkpointing=True, head=False
    )
    assert training_memory(training).activations == 10 * (2 * 4 * 4 + 320)
    assert training_memory(training).logits == 0


def test_lora_trains_its_adapters_alone() -> None:
    # Rank 3: attention 4 matrices of 4 + 4, feed-forward 3 of 4 + 8: 3 x 68 a layer.
    assert sizes().lora_parameters(3) == 2 * 3 * 68
    training = Training(sizes=sizes(), rows=1, length=1, precision="bf16_lora", lora_rank=3)
    memory = training_memory(training)
    assert (memory.weights, memory.gradients, memory.optimizer) == (2 * 788, 4 * 408, 8 * 408)


def test_offloaded_states_are_not_on_the_device() -> None:
    training = Training(
        sizes=sizes(), rows=1, length=1, precision="bf16_master", zero_stage=3, processes=2,
        offload_optimizer=True, offload_weights=True,
    )  # fmt: skip
    memory = training_memory(training)
    assert memory.optimizer == 0
    assert memory.weights == 2 * 380  # what is gathered while it is used


def test_the_cache_by_hand() -> None:
    shared = sizes(num_attention_heads=2, num_key_value_heads=1)  # one head of 2 keys and values
    assert cache_bytes(shared, tokens=7, bytes_each=2) == 2 * 2 * 2 * 1 * 2 * 7
    memory = sampling_memory(sizes(), rows=3, length=5, bytes_each=2, models=2)
    assert (memory.weights, memory.cache) == (2 * 2 * 380, 2 * 2 * 2 * 4 * 15)


def test_unknown_precisions_are_refused() -> None:
    with pytest.raises(ValueError, match="precision is 'fp8'; allowed: fp32, bf16"):
        training_memory(Training(sizes=sizes(), rows=1, length=1, precision="fp8"))


@pytest.mark.parametrize("model_type", ["llama", "qwen2"])
def test_weights_gradients_and_adam_are_what_a_step_leaves(model_type: str) -> None:
    config = SMALL | {"num_attention_heads": 2, "num_key_value_heads": 1}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **config))
    adam = torch.optim.AdamW(model.parameters())
    ids = torch.ones(1, 5, dtype=torch.long)
    model(input_ids=ids, labels=ids).loss.backward()
    adam.step()
    weights = list(model.parameters())
    states = [s for row in adam.state.values() for s in row.values() if s.dim()]  # no counters
    found = [sum(t.nbytes for t in ts) for ts in (weights, [w.grad for w in weights], states)]
    training = Training(
        sizes=sizes({**config, "model_type": model_type}), rows=1, length=5, precision="fp32"
    )
    memory = training_memory(training)
    assert found == [memory.weights, memory.gradients, memory.optimizer]


def kept_bytes(config: dict[str, Any], dtype: torch.dtype, padded: bool, layers: int) -> float:
    """Bytes a token that autograd keeps of the layers' forward pass, each storage once, weights
    apart."""
    fields = {k: v for k, v in config.items() if k != "model_type"} | {"num_hidden_layers": layers}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **fields))
    model = model.to(dtype).train()
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    storages: dict[int, Any] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    mask = torch.ones(2, 32, dtype=torch.long)
    mask[0, -3:] = 0 if padded else 1
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept):
        model.model(input_ids=torch.ones(2, 32, dtype=torch.long), attention_mask=mask)
    return sum(size for size, _ in storages.values()) / 64


@pytest.mark.parametrize("model_type", ["llama", "qwen2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("padded", [False, True])
def test_activations_are_what_autograd_keeps(
    model_type: str, dtype: torch.dtype, padded: bool
) -> None:
    """Of two more layers, so that what the model keeps once does not count. To the byte."""
    config = {
        "model_type": model_type,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 20,
    }
    kept = [kept_bytes(config, dtype, padded, layers) for layers in (1, 3)]
    expected = layer_activations(sizes(config), 32, dtype.itemsize, padded=padded)
    assert (kept[1] - kept[0]) / 2 == expected
