"""What a stage will do and need, from its recipe alone, for a dry run. Never used to decide.

Tokens are an upper bound: every row is counted at its greatest length. Memory:
trainer/pipeline/memory.py. Seconds are FLOPs at a share of a device's speed, or, where sampling
waits for memory, weights read once a token; the shares stand in `DEVICES`. What a recipe does not
say stays None."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from data.settings import nearest
from trainer.pipeline.memory import (
    PRECISIONS,
    Memory,
    ModelSizes,
    Training,
    sampling_memory,
    sizes_of,
    training_memory,
)
from trainer.pipeline.published_sizes import config_of
from trainer.runtime.stage_registry import StageEntry

DEFAULT_LENGTH = 64  # tokens of a sequence where nothing says more
DEFAULT_VOCABULARY = 64  # a number tokenizer's
PROMPT_LENGTH = 256  # tokens of a prompt in words, beside what is generated

ENGINE_ROWS = 512  # sequences that the search engine runs at once
MIXED = ("bf16", "fp16")


@dataclass(frozen=True, kw_only=True)
class Device:
    """FLOPs and bytes a second of one process's device at best, the share of the FLOPs that
    training gets, and the seconds a sampled token takes at least, a layer."""

    name: str
    flops: float
    bandwidth: float
    training_share: float
    layer_seconds: float


# A100, H100: dense bf16 and memory bandwidth of the data sheets (SXM, 80 GB). The shares are
# assumptions; a core's FLOPs were measured (2 cores with AVX-512, fp32).
DEVICES = {
    "cpu": Device(
        name="one CPU core", flops=80e9, bandwidth=1e10, training_share=0.6, layer_seconds=3e-4
    ),
    "a100": Device(
        name="an A100", flops=312e12, bandwidth=2.0e12, training_share=0.4, layer_seconds=8e-4
    ),
    "h100": Device(
        name="an H100", flops=989e12, bandwidth=3.35e12, training_share=0.35, layer_seconds=8e-4
    ),
}


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What a stage's accelerate config says, on what kind of device (a name in `DEVICES`)."""

    device: str = "cpu"
    processes: int = 1
    zero_stage: int = 0
    offload_optimizer: bool = False
    offload_weights: bool = False
    mixed: bool = False


@dataclass(frozen=True, kw_only=True)
class StageEstimate:
    """`lines` say in words what the stage does. Bytes of memory a process, bytes on disk, tokens
    through a model, FLOPs, seconds; None: not known."""

    lines: tuple[str, ...] = ()
    parameters: float | None = None
    memory: Memory | None = None
    disk: float | None = None
    tokens: float | None = None
    flops: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class StageModel:
    """The model that a stage works with, by name and sizes."""

    name: str = ""
    sizes: ModelSizes | None = None
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])


def launch_of(values: Mapping[str, Any], device: str | None) -> Launch:
    """`values` are an accelerate config's; `device` is what the user said."""
    zero: Mapping[str, Any] = values.get("deepspeed_config") or {}
    return Launch(
        device=device or ("cpu" if values.get("use_cpu", True) else "h100"),
        processes=int(values.get("num_processes") or 1),
        zero_stage=int(zero.get("zero_stage") or 0),
        offload_optimizer=zero.get("offload_optimizer_device") not in (None, "none"),
        offload_weights=zero.get("offload_param_device") not in (None, "none"),
        mixed=values.get("mixed_precision") in MIXED,
    )


def model_of(settings: Mapping[str, Any], inherited: StageModel) -> StageModel:
    """The model that a stage's settings name, else the one `inherited` from what it reads."""
    if isinstance(config := settings.get("model_config"), Mapping):
        vocabulary = settings.get("vocab_size") if settings.get("tokenizer") == "bpe" else None
        sizes = sizes_of(config, vocabulary or DEFAULT_VOCABULARY)
        return StageModel(name="a model from scratch", sizes=sizes, config=config)
    for key in ("model", "policy"):
        name = settings.get(key)
        if isinstance(name, str) and (config := config_of(name)) is not None:
            return StageModel(name=name, sizes=sizes_of(config), config=config)
    return inherited


def estimate_stage(
    entry: StageEntry | None, settings: Mapping[str, Any], model: StageModel, launch: Launch
) -> StageEstimate:
    """Of one stage; `settings` is its recipe with its arguments. Nothing is known of a stage
    without an entry, or of one whose model is not known.

    Raises ValueError where the entry names an estimate that is not in ESTIMATES.
    """
    if entry is None or entry.estimate is None or model.sizes is None:
        return StageEstimate()
    if entry.estimate not in ESTIMATES:
        raise ValueError(
            f"the stage of {entry.launcher} has the estimate {entry.estimate!r}; did you mean "
            f"{nearest(entry.estimate, ESTIMATES)!r}?"
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
    """`head`: the model gives logits over the vocabulary, which need memory."""
    batch = settings.get("per_device_train_batch_size", 8)
    accumulated = _accumulated(settings, batch, launch)
    length = _length(settings, model)
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
    micro, generated = values["micro_batch_size"], values["max_new_tokens"]
    length = _prompt(model) + generated
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
    # The critic beside the actor; the reward model and, without LoRA, the reference are frozen.
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
    length = _prompt(model) + generated
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
    """Micro-batches an update."""
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
    """As the weights are loaded: in bf16 on a GPU, in fp32 on a CPU and from scratch."""
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
    # Forward 2 a weight and token, backward 4 (2 where the weights are frozen), and the forward
    # pass again where activations were dropped.
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
    """`problems`, `samples` per problem, and how many solutions could be sampled at once. A stage
    that is `guided` asks a reward model too."""

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
        # A tree search samples a problem's solutions one after another.
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
    """Of a recipe that does not say how much is sampled."""
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
    models = 2 if sampling.guided else 1
    flops = 2.0 * models * model.sizes.parameters * tokens
    total = f"solutions have at most {generated:,} tokens, {human(tokens)} in all"
    return StageEstimate(
        lines=(sampling.line, total),
        parameters=model.sizes.parameters,
        memory=sampling_memory(
            model.sizes, rows, _prompt(model) + generated, bytes_each, models=models
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
    """A step of the decode loop reads all weights and samples a token of each row."""
    device = DEVICES[launch.device]
    weights = PRECISIONS[precision].activations * sizes.parameters
    compute = 2.0 * sizes.parameters * rows / (device.flops * device.training_share)
    step = max(weights / device.bandwidth + sizes.layers * device.layer_seconds, compute)
    return tokens / max(1.0, rows) / launch.processes * step


# ---------------------------------------------------------------- words


def _length(settings: Mapping[str, Any], model: StageModel) -> int:
    """Tokens of a training row at most."""
    said = settings.get("max_length") or settings.get("max_new_tokens")
    return said or (DEFAULT_LENGTH if _prompt(model) < PROMPT_LENGTH else 1024)


def _prompt(model: StageModel) -> int:
    sizes = model.sizes
    large = sizes is not None and sizes.vocabulary > 1000
    return PROMPT_LENGTH if large else DEFAULT_LENGTH // 4


def _trained(model: StageModel, settings: Mapping[str, Any]) -> str:
    assert model.sizes is not None
    everything = human(model.sizes.parameters)
    if rank := settings.get("lora_rank"):
        adapters = human(model.sizes.lora_parameters(rank))
        return f"trains {adapters} parameters (LoRA, rank {rank}) on {everything} of {model.name}"
    return f"trains all {everything} parameters of {model.name}"


def _processes(launch: Launch) -> str:
    return f"{launch.processes} process" + ("es" if launch.processes > 1 else "")


def human(value: float | None, unit: str = "") -> str:
    """Three digits and a prefix: 1.8 M; '?' for None."""
    if value is None:
        return "?"
    for prefix in ("", "k", "M", "G", "T", "P", "E"):
        if value < 1000 or prefix == "E":
            return f"{value:.3g} {prefix}{unit}".rstrip()
        value /= 1000
    return f"{value:.3g}"


def duration(seconds: float | None) -> str:
    """'40 s', '12 minutes', '3.4 hours'; '?' for None."""
    if seconds is None:
        return "?"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


# How a stage is estimated, by the name that its entry in STAGES gives.
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
