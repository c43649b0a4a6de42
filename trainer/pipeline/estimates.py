"""Estimates what a stage will do and need, from its recipe alone, for a dry run. No decision uses
these estimates.

Tokens are an upper bound: every row counts at its greatest length. trainer/pipeline/memory.py
estimates memory. Seconds are FLOPs divided by a share of a device's speed. Where sampling is
limited by memory bandwidth, they are the time to read all weights once per token.
trainer/pipeline/devices.py holds the shares and the speeds. A value that the recipe does not
determine is None."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from data.settings import suggestion
from trainer.pipeline.devices import DEVICES, Launch
from trainer.pipeline.memory import (
    PRECISIONS,
    Memory,
    ModelSizes,
    Training,
    sampling_memory,
    training_memory,
)
from trainer.pipeline.quantities import human
from trainer.pipeline.stage_models import DEFAULT_LENGTH, StageModel, prompt_length, row_length
from trainer.runtime.stage_registry import StageEntry

ENGINE_ROWS = 512  # sequences in one batch of the search engine


@dataclass(frozen=True, kw_only=True)
class StageEstimate:
    """The estimate of one stage. `lines` describe the stage in words. The numbers are bytes of
    memory per process, bytes on disk, tokens through a model, FLOPs and seconds; None: not
    known."""

    lines: tuple[str, ...] = ()
    parameters: float | None = None
    memory: Memory | None = None
    disk: float | None = None
    tokens: float | None = None
    flops: float | None = None
    seconds: float | None = None


def estimate_stage(
    entry: StageEntry | None, settings: Mapping[str, Any], model: StageModel, launch: Launch
) -> StageEstimate:
    """The estimate of one stage. `settings` is its recipe with its arguments. The estimate is empty
    for a stage without an entry. If the sizes of the stage's model are not known, the only line
    says why.

    Raises ValueError if the entry names an estimate that is not in ESTIMATES.
    """
    if entry is None or entry.estimate is None:
        return StageEstimate()
    if model.sizes is None:
        return StageEstimate(lines=(f"no estimates: {model.unknown}",))
    if entry.estimate not in ESTIMATES:
        raise ValueError(
            f"the stage of {entry.launcher} has the estimate {entry.estimate!r}; "
            f"{suggestion(entry.estimate, ESTIMATES)}"
        )
    return ESTIMATES[entry.estimate](entry, settings, model, launch)


# ---------------------------------------------------------------- training


def _policy_training(
    entry: StageEntry, settings: Mapping[str, Any], model: StageModel, launch: Launch
) -> StageEstimate:
    return _training(settings, model, launch, head=True)


def _reward_model_training(
    entry: StageEntry, settings: Mapping[str, Any], model: StageModel, launch: Launch
) -> StageEstimate:
    return _training(settings, model, launch, head=False)


def _training(
    settings: Mapping[str, Any], model: StageModel, launch: Launch, *, head: bool
) -> StageEstimate:
    """`head`: the model computes logits over the vocabulary, which need memory."""
    batch = settings.get("per_device_train_batch_size", 8)
    accumulated = _accumulated(settings, batch, launch)
    length = row_length(settings, model)
    rows = batch * accumulated * launch.processes
    steps = settings.get("max_steps")
    training = _setup(settings, model, launch, rows=batch, length=length, head=head)
    tokens = steps * rows * length if isinstance(steps, int) else None
    lines = [
        _trained(model, settings),
        f"a step takes {batch} rows x {accumulated} accumulated x {_processes(launch)} = "
        f"{rows:,} rows of at most {length:,} tokens",
    ]
    if tokens is not None:
        lines.append(f"{steps:,} updates see {steps * rows:,} rows, at most {human(tokens)} tokens")
    return _trained_estimate(lines, training, settings, launch, tokens)


def _ppo(
    entry: StageEntry, settings: Mapping[str, Any], model: StageModel, launch: Launch
) -> StageEstimate:
    values = entry.config_defaults() | dict(settings)
    rollouts = values["problems_per_cycle"] * values["samples_per_problem"]
    minibatches, epochs = values["minibatches"], values["epochs"]
    micro, generated = values["micro_batch_size"], values.get("max_new_tokens", 64)
    length = prompt_length(model) + generated
    cycles = values["cycles"]
    rows = min(micro, max(1, rollouts // minibatches // launch.processes))
    training = _setup(values, model, launch, rows=rows, length=length, head=True)
    lines = [
        _trained(model, values) + ", and a critic of the same size",
        f"a cycle samples {values['problems_per_cycle']:,} problems x "
        f"{values['samples_per_problem']} = {rollouts:,} solutions of at most {generated:,} tokens",
        f"then {epochs} epochs x {minibatches} minibatches = {epochs * minibatches} updates of "
        f"{rollouts // minibatches:,} solutions, {rows} at once on each of "
        f"{_processes(launch)}; {cycles:,} cycles are {cycles * epochs * minibatches:,} updates "
        f"and {cycles * rollouts:,} solutions",
    ]
    tokens = float(cycles * rollouts * length * epochs)
    estimate = _trained_estimate(lines, training, values, launch, tokens)
    assert model.sizes is not None and estimate.memory is not None and estimate.flops is not None
    # Actor and critic are trained. The reward model and, without LoRA, the reference are frozen.
    memory, frozen = estimate.memory, 2 - bool(values.get("lora_rank"))
    weight = PRECISIONS[training.precision].weights * model.sizes.parameters
    doubled = {name: 2 * value for name, value in vars(memory).items() if name != "logits"}
    doubled["weights"] += frozen * weight / (launch.processes if training.zero_stage == 3 else 1)
    seconds = _sampling_seconds(
        model.sizes,
        cycles * rollouts * generated,
        min(ENGINE_ROWS, rollouts / launch.processes),
        launch,
        training.precision,
    )
    return StageEstimate(
        lines=estimate.lines,
        parameters=estimate.parameters,
        memory=Memory(**{**doubled, "logits": 2 * memory.logits}),
        disk=2 * estimate.disk if estimate.disk is not None else None,
        tokens=tokens,
        flops=2 * estimate.flops,
        seconds=2 * _training_seconds(estimate.flops, launch) + seconds,
    )


def _group_rl(
    entry: StageEntry, settings: Mapping[str, Any], model: StageModel, launch: Launch
) -> StageEstimate:
    batch = settings.get("per_device_train_batch_size", 8)
    accumulated = _accumulated(settings, batch, launch)
    samples = settings.get("num_generations", 8)
    generated = settings.get("max_new_tokens", 64)
    rows = batch * accumulated * launch.processes
    length = prompt_length(model) + generated
    steps = settings.get("max_steps")
    training = _setup(settings, model, launch, rows=batch, length=length, head=True)
    lines = [
        _trained(model, settings),
        f"a step samples {rows // samples:,} problems x {samples} = {rows:,} completions of at "
        f"most {generated:,} tokens ({batch} x {accumulated} accumulated x {_processes(launch)})",
    ]
    tokens = float(steps * rows * length) if isinstance(steps, int) else None
    return _trained_estimate(lines, training, settings, launch, tokens)


def _accumulated(settings: Mapping[str, Any], batch: int, launch: Launch) -> int:
    """Micro-batches per update."""
    whole = settings.get("global_batch_size")
    if isinstance(whole, int):
        return max(1, whole // (batch * launch.processes))
    return settings.get("gradient_accumulation_steps", 1)


def _setup(
    settings: Mapping[str, Any],
    model: StageModel,
    launch: Launch,
    *,
    rows: int,
    length: int,
    head: bool,
) -> Training:
    assert model.sizes is not None
    return Training(
        sizes=model.sizes,
        rows=rows,
        length=length,
        precision=_precision(settings, launch),
        lora_rank=settings.get("lora_rank") or 0,
        zero_stage=launch.zero_stage,
        processes=launch.processes,
        gradient_checkpointing=bool(settings.get("gradient_checkpointing")),
        offload_optimizer=launch.offload_optimizer,
        offload_weights=launch.offload_weights,
        head=head,
    )


def _precision(settings: Mapping[str, Any], launch: Launch) -> str:
    """The precision of loaded weights: bf16 on a GPU; fp32 on a CPU, and for a model from
    scratch."""
    if not (settings.get("bf16") or launch.mixed):
        return "fp32"
    if settings.get("lora_rank"):
        return "bf16_lora"
    if launch.zero_stage:
        return "bf16_master"
    return "bf16_autocast" if settings.get("model") == "from_scratch" else "bf16"


def _trained_estimate(
    lines: list[str],
    training: Training,
    settings: Mapping[str, Any],
    launch: Launch,
    tokens: float | None,
) -> StageEstimate:
    parameters = training.sizes.parameters
    # A token costs 2 FLOPs per weight in the forward pass and 4 in the backward pass (2 if the
    # weights are frozen). With gradient checkpointing the forward pass runs twice.
    passes = (4 if training.lora_rank else 6) + (2 if training.gradient_checkpointing else 0)
    flops = passes * parameters * tokens if tokens is not None else None
    checkpoints = settings.get("save_total_limit") or settings.get("num_checkpoints") or 1
    precision = PRECISIONS[training.precision]
    trained = training.sizes.lora_parameters(training.lora_rank) or parameters
    weight = min(4, precision.weights)
    return StageEstimate(
        lines=tuple(lines),
        parameters=parameters,
        memory=training_memory(training),
        disk=weight * parameters + checkpoints * (weight + precision.optimizer) * trained,
        tokens=tokens,
        flops=flops,
        seconds=_training_seconds(flops, launch) if flops is not None else None,
    )


def _training_seconds(flops: float, launch: Launch) -> float:
    device = DEVICES[launch.device]
    return flops / (device.flops * device.training_share * launch.processes)


# ---------------------------------------------------------------- sampling


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """`problems`, `samples` per problem, and the number of solutions that can be sampled at once. A
    `guided` stage uses a reward model too."""

    problems: int
    samples: float
    at_once: float
    guided: bool
    line: str


def _labelling(
    entry: StageEntry, settings: Mapping[str, Any], model: StageModel, launch: Launch
) -> StageEstimate:
    problems = settings.get("num_problems", 2000)
    samples = settings.get("solutions") or settings.get("rollouts")
    if not isinstance(samples, int) or problems is None:
        return _no_sampling(model)
    sampling = Sampling(
        problems=problems,
        samples=samples,
        at_once=problems * samples,
        guided=False,
        line=f"labels {problems:,} problems by {samples} solutions each",
    )
    return _sampling(sampling, settings, model, launch)


def _search(
    entry: StageEntry, settings: Mapping[str, Any], model: StageModel, launch: Launch
) -> StageEstimate:
    budgets = settings.get("budgets")
    problems = settings.get("num_problems", 2000)
    if not isinstance(budgets, list) or problems is None:
        return _no_sampling(model)
    sampling = Sampling(
        problems=problems,
        samples=budgets[-1],
        # A tree search samples the solutions of one problem one after another.
        at_once=problems * settings.get("parallel_simulations", 1),
        guided=True,
        line=f"searches {problems:,} problems with {budgets[-1]} simulations, a solution each",
    )
    return _sampling(sampling, settings, model, launch)


def _evaluation(
    entry: StageEntry, settings: Mapping[str, Any], model: StageModel, launch: Launch
) -> StageEstimate:
    policies = len(settings.get("policies") or [0])
    greedy, searched = settings.get("greedy_problems", 2000), settings.get("search_problems", 500)
    best = (settings.get("best_of_n") or [32])[-1]
    largest = (settings.get("budgets") or [32])[-1]
    measured = min(2, policies)  # the first policy and the last
    samples = policies * greedy + measured * (greedy + searched * (best + 2 * largest))
    samples += settings.get("prm_problems", 100) * settings.get("prm_rollouts", 64) * 4
    problems = searched or greedy
    each = samples / max(1, problems)
    sampling = Sampling(
        problems=problems,
        samples=each,
        at_once=problems * each,
        guided=True,
        line=f"solves {greedy:,} problems greedily with each of {policies} policies, and "
        f"{searched:,} with best of {best} and {largest} simulations",
    )
    return _sampling(sampling, settings, model, launch)


def _no_sampling(model: StageModel) -> StageEstimate:
    """The estimate for a recipe that does not determine the number of samples."""
    assert model.sizes is not None
    return StageEstimate(parameters=model.sizes.parameters)


def _sampling(
    sampling: Sampling, settings: Mapping[str, Any], model: StageModel, launch: Launch
) -> StageEstimate:
    assert model.sizes is not None
    bytes_each = 2 if launch.device != "cpu" else 4
    generated = settings.get("max_new_tokens") or DEFAULT_LENGTH
    tokens = float(sampling.problems * sampling.samples * generated)
    rows = int(max(1, min(ENGINE_ROWS, sampling.at_once / launch.processes)))
    models = 1 + sampling.guided + bool(settings.get("judge"))
    flops = 2.0 * models * model.sizes.parameters * tokens
    total = f"solutions have at most {generated:,} tokens, {human(tokens)} in all"
    return StageEstimate(
        lines=(sampling.line, total),
        parameters=model.sizes.parameters,
        memory=sampling_memory(
            model.sizes, rows, prompt_length(model) + generated, bytes_each, models=models
        ),
        tokens=tokens,
        flops=flops,
        seconds=_sampling_seconds(
            model.sizes, tokens, rows, launch, "fp32" if bytes_each == 4 else "bf16"
        ),
    )


def _sampling_seconds(
    sizes: ModelSizes, tokens: float, rows: float, launch: Launch, precision: str
) -> float:
    """Seconds of sampling. A step of the decode loop reads all weights and samples one token per
    row."""
    device = DEVICES[launch.device]
    weights = PRECISIONS[precision].activations * sizes.parameters
    compute = 2.0 * sizes.parameters * rows / (device.flops * device.training_share)
    step = max(weights / device.bandwidth + sizes.layers * device.layer_seconds, compute)
    return tokens / max(1.0, rows) / launch.processes * step


# ---------------------------------------------------------------- words


def _trained(model: StageModel, settings: Mapping[str, Any]) -> str:
    assert model.sizes is not None
    everything = human(model.sizes.parameters)
    if rank := settings.get("lora_rank"):
        adapters = human(model.sizes.lora_parameters(rank))
        return f"trains {adapters} parameters (LoRA, rank {rank}) on {everything} of {model.name}"
    return f"trains all {everything} parameters of {model.name}"


def _processes(launch: Launch) -> str:
    return f"{launch.processes} process" + ("es" if launch.processes > 1 else "")


# The function that estimates a stage, by the name that the stage's entry in STAGES gives.
ESTIMATES: dict[
    str, Callable[[StageEntry, Mapping[str, Any], StageModel, Launch], StageEstimate]
] = {
    "policy_training": _policy_training,
    "reward_model_training": _reward_model_training,
    "ppo": _ppo,
    "group_rl": _group_rl,
    "labelling": _labelling,
    "search": _search,
    "evaluation": _evaluation,
}
