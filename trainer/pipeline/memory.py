"""Computes the memory of a stage from sizes alone.

Weights, gradients and Adam's states follow ZeRO (1910.02054, section 3). N processes train T of P
parameters. A parameter has w bytes of weights, g of gradients and o of Adam's states:

    weights    w P   (/ N from stage 3 on, plus the gathered parameters of stage 3, at most 1e9)
    gradients  g T   (/ N from stage 2 on)
    Adam       o T   (/ N from stage 1 on): two moments, and a master copy if weights are bf16

The next formula gives the activations kept for the backward pass, in bytes per token and layer, for
transformers' Llama and Qwen2 with scaled-dot-product attention (tests compare it with the memory
that autograd saves). A number has e bytes. h is the width, m the feed-forward width, a the number
of heads of width d, and k the number of key-value heads:

    2 (4 + 2 e) h  +  2 e d (a + k)  +  4 e m  +  4 a + 8

The 4 comes from the two norms, which work in fp32. If rows are padded, attention gets copies of
keys and values for every head and a mask of the row's length S: 4 e d a + e S instead of 2 e d (a +
k). With gradient checkpointing every layer keeps only its input, e h, and one layer at a time keeps
the rest. The language-model loss keeps V (vocabulary) logits per token about three times in fp32:
12 V. A cache for sampling holds 2 e k d bytes per token and layer.

The formulas do not count CUDA's context (about 0.5 GB), the allocator's fragmentation (5 to 20 %)
and the buffers of collectives. All figures are bytes per process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LIVE_PARAMETERS = 1e9  # DeepSpeed's stage3_max_live_parameters
LOSS_BYTES = 12  # per logit: the logit, its log-softmax and its gradient


@dataclass(frozen=True, kw_only=True)
class ModelSizes:
    """A Llama-like decoder. `heads` x `head_dim` is the width of its queries."""

    width: int
    intermediate: int
    layers: int
    heads: int
    shared_heads: int  # key-value heads
    head_dim: int
    vocabulary: int
    tied: bool
    attention_bias: bool

    @property
    def parameters(self) -> int:
        tables = (1 if self.tied else 2) * self.vocabulary * self.width
        return tables + self.layers * self.layer_parameters + self.width

    @property
    def layer_parameters(self) -> int:
        queries, keys = self.heads * self.head_dim, self.shared_heads * self.head_dim
        bias = queries + 2 * keys if self.attention_bias else 0
        matrices = 2 * self.width * (queries + keys) + 3 * self.width * self.intermediate
        return matrices + bias + 2 * self.width

    def lora_parameters(self, rank: int) -> int:
        """Parameters of the adapters on every linear layer but the output head."""
        queries, keys = self.heads * self.head_dim, self.shared_heads * self.head_dim
        attention = 2 * (self.width + queries) + 2 * (self.width + keys)
        return self.layers * rank * (attention + 3 * (self.width + self.intermediate))


NEEDED_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads")


def missing_sizes(config: Mapping[str, Any]) -> list[str]:
    """The fields that `sizes_of` needs and that the config lacks."""
    return [name for name in NEEDED_SIZES if not isinstance(config.get(name), int)]


def sizes_of(config: Mapping[str, Any], vocabulary: int = 0) -> ModelSizes | None:
    """The sizes from the fields of a transformers config; None if they are incomplete. `vocabulary`
    is used if the config has no vocabulary size."""
    if missing_sizes(config):
        return None
    width, layers, heads = (config[name] for name in NEEDED_SIZES)
    return ModelSizes(
        width=width,
        intermediate=config.get("intermediate_size") or 4 * width,
        layers=layers,
        heads=heads,
        shared_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or width // heads,
        vocabulary=config.get("vocab_size") or vocabulary,
        tied=bool(config.get("tie_word_embeddings")),
        attention_bias=config.get("model_type") == "qwen2" or bool(config.get("attention_bias")),
    )


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Bytes per number of weights, gradients, Adam's states and activations."""

    weights: int
    gradients: int
    optimizer: int
    activations: int


# bf16: weights and Adam's moments are bf16. bf16_master (DeepSpeed): moments and a master copy are
# fp32. bf16_autocast: all is fp32, with a bf16 copy of the weights during a step. bf16_lora: frozen
# bf16 weights, and adapters in fp32 (peft's default).
PRECISIONS = {
    "fp32": Precision(weights=4, gradients=4, optimizer=8, activations=4),
    "bf16": Precision(weights=2, gradients=2, optimizer=4, activations=2),
    "bf16_master": Precision(weights=2, gradients=2, optimizer=12, activations=2),
    "bf16_autocast": Precision(weights=6, gradients=4, optimizer=8, activations=2),
    "bf16_lora": Precision(weights=2, gradients=4, optimizer=8, activations=2),
}


@dataclass(frozen=True, kw_only=True)
class Training:
    """A process trains `rows` of `length` tokens at once. `lora_rank` 0: all parameters are
    trained. `head`: whether the model computes logits over the vocabulary (a reward model does
    not)."""

    sizes: ModelSizes
    rows: int
    length: int
    precision: str
    lora_rank: int = 0
    zero_stage: int = 0
    processes: int = 1
    gradient_checkpointing: bool = False
    offload_optimizer: bool = False
    offload_weights: bool = False
    head: bool = True


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes per process on its device. Offloaded numbers lie in the host's memory and do not
    count."""

    weights: float = 0.0
    gradients: float = 0.0
    optimizer: float = 0.0
    activations: float = 0.0
    logits: float = 0.0
    cache: float = 0.0

    @property
    def total(self) -> float:
        return sum(vars(self).values())


def layer_activations(
    sizes: ModelSizes, length: int, bytes_each: int, *, padded: bool = True
) -> float:
    """Bytes per token that one layer keeps for the backward pass."""
    queries, keys = sizes.heads * sizes.head_dim, sizes.shared_heads * sizes.head_dim
    attention = 4 * queries + length if padded else 2 * (queries + keys)
    norms = 2 * (4 + 2 * bytes_each) * sizes.width
    statistics = 4 * sizes.heads + 8
    return norms + bytes_each * (attention + 4 * sizes.intermediate) + statistics


def training_memory(training: Training) -> Memory:
    """Raises ValueError for an unknown precision."""
    if training.precision not in PRECISIONS:
        allowed = ", ".join(PRECISIONS)
        raise ValueError(f"precision is {training.precision!r}; allowed: {allowed}")
    precision, sizes = PRECISIONS[training.precision], training.sizes
    rank = training.lora_rank
    trained = sizes.lora_parameters(rank) if rank else sizes.parameters
    parameters = sizes.parameters + (trained if rank else 0)
    share = [1 if training.zero_stage < stage else training.processes for stage in (1, 2, 3)]
    weights = 0.0 if training.offload_weights else precision.weights * parameters / share[2]
    if training.zero_stage == 3:
        weights += precision.weights * min(LIVE_PARAMETERS, parameters)
    tokens = training.rows * training.length
    layer = layer_activations(sizes, training.length, precision.activations)
    kept = sizes.layers * layer
    if training.gradient_checkpointing:
        kept = sizes.layers * precision.activations * sizes.width + layer
    return Memory(
        weights=weights,
        gradients=precision.gradients * trained / share[1],
        optimizer=0.0 if training.offload_optimizer else precision.optimizer * trained / share[0],
        activations=tokens * kept,
        logits=LOSS_BYTES * tokens * sizes.vocabulary if training.head else 0.0,
    )


def cache_bytes(sizes: ModelSizes, tokens: int, bytes_each: int) -> float:
    """Bytes of the keys and values of `tokens` tokens in all layers."""
    return 2.0 * bytes_each * sizes.layers * sizes.shared_heads * sizes.head_dim * tokens


def sampling_memory(
    sizes: ModelSizes, rows: int, length: int, bytes_each: int, models: int = 1
) -> Memory:
    """Memory of sampling: `models` of one size (2 for a policy and its reward model), and a cache
    for `rows` sequences of `length` tokens. The logits of a step are fp32."""
    return Memory(
        weights=float(models * bytes_each * sizes.parameters),
        logits=8.0 * rows * sizes.vocabulary,
        cache=cache_bytes(sizes, rows * length, bytes_each),
    )
