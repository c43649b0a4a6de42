"""Rough estimates of a stage from its settings, for a dry run. They are never used to decide.

Memory counts weights, gradients and Adam's two moments in fp32 and the activations of one
micro-batch; disk counts weights and kept checkpoints; tokens are an upper bound. What the settings
do not say stays None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BYTES = 4  # fp32
DEFAULT_LENGTH = 64  # tokens of a sequence where nothing says more
DEFAULT_VOCABULARY = 64  # a number tokenizer's
LIVE_TENSORS = 16  # hidden-sized tensors kept a layer and token for the backward pass


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Parameters, bytes of memory, bytes on disk, tokens through a model; None: not known."""

    parameters: float | None = None
    memory: float | None = None
    disk: float | None = None
    tokens: float | None = None


def count_parameters(model: Mapping[str, Any]) -> float | None:
    """A Llama-like decoder's parameters from its config; None where the config does not say."""
    hidden, layers = model.get("hidden_size"), model.get("num_hidden_layers")
    if not (isinstance(hidden, int) and isinstance(layers, int)):
        return None
    heads = model.get("num_attention_heads", 1)
    shared = model.get("num_key_value_heads", heads) / heads
    attention = hidden * hidden * (2 + 2 * shared)
    feed_forward = 3 * hidden * model.get("intermediate_size", 4 * hidden)
    tables = 1 if model.get("tie_word_embeddings") else 2
    vocabulary = model.get("vocab_size", DEFAULT_VOCABULARY)
    return layers * (attention + feed_forward + 2 * hidden) + tables * vocabulary * hidden + hidden


def estimate_stage(
    settings: Mapping[str, Any], inherited: Mapping[str, Any] | None, num_processes: int
) -> tuple[Estimate, Mapping[str, Any] | None]:
    """A stage's estimate and the model config it works with: its own, or the one `inherited` from
    the stage whose model it reads."""
    model = settings.get("model_config") or inherited
    if not isinstance(model, Mapping):
        return Estimate(), None
    parameters = count_parameters(model)
    if parameters is None:
        return Estimate(), model
    if "per_device_train_batch_size" in settings or "max_steps" in settings:
        return _training(settings, model, parameters, num_processes), model
    return _generation(settings, parameters), model


def _training(
    settings: Mapping[str, Any], model: Mapping[str, Any], parameters: float, num_processes: int
) -> Estimate:
    batch = settings.get("per_device_train_batch_size", 8)
    length = settings.get("max_length") or DEFAULT_LENGTH
    activations = BYTES * batch * length * model["hidden_size"] * model["num_hidden_layers"]
    logits = 3 * BYTES * batch * length * model.get("vocab_size", DEFAULT_VOCABULARY)
    steps = settings.get("max_steps")
    rows = batch * settings.get("gradient_accumulation_steps", 1) * num_processes
    checkpoints = settings.get("save_total_limit") or 1
    return Estimate(
        parameters=parameters,
        memory=4 * BYTES * parameters + LIVE_TENSORS * activations + logits,
        disk=BYTES * parameters * (1 + 3 * checkpoints),
        tokens=steps * rows * length if isinstance(steps, int) else None,
    )


def _generation(settings: Mapping[str, Any], parameters: float) -> Estimate:
    """Problems x samples x length. A search's budget is in simulations of one sample or more."""
    problems = settings.get("num_problems") or settings.get("search_problems")
    budgets = settings.get("budgets") or settings.get("solutions")
    samples = sum(budgets) if isinstance(budgets, list) else budgets
    tokens = None
    if isinstance(problems, int) and isinstance(samples, int):
        tokens = problems * samples * DEFAULT_LENGTH
    return Estimate(
        parameters=parameters,
        memory=2 * BYTES * parameters,
        tokens=tokens,
    )


def human(value: float | None, unit: str = "") -> str:
    """Three digits and a prefix: 1.8 M; '?' for None."""
    if value is None:
        return "?"
    for prefix in ("", "k", "M", "G", "T"):
        if value < 1000 or prefix == "T":
            return f"{value:.3g} {prefix}{unit}".rstrip()
        value /= 1000
    return f"{value:.3g}"
