"""Measure a GPU: training, sampling and search with models of two sizes and random weights.

PYTHONPATH=. python scripts/measure_gpu.py          # writes docs/measurements/gpu.md
PYTHONPATH=. python scripts/measure_gpu.py --tiny   # tiny models on the CPU: does it run?

It takes at most 8 minutes, needs no network, and of installed packages only torch and transformers
(and what transformers needs). The models have the shapes of Qwen2.5-0.5B and 1.5B. Training keeps
weights and AdamW's moments in fp32 and computes in bf16 (autocast), as the recipes for GPUs do;
sampling and search have weights in bf16. A step of SFT or of a reward model is one forward and
backward pass and AdamW's update. PPO is this project's own learner. A random model never ends a
solution, so every sample has the greatest length.
"""

from __future__ import annotations

import argparse
import gc
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from data.flops import flop_model
from data.types import Outcome, Problem, Verdict
from rewards.models.folders import token_classifiers
from rewards.models.prm import process_reward_model
from search.base import SampleRequest
from search.batcher import run_searches
from search.engines.transformers_engine import EngineConfig, TransformersEngine
from search.scorer import RewardScorer
from search.settings import SearchSettings
from search.strategies.by_name import bind
from search.strategies.mcts.config import MCTSConfig
from trainer.pipeline.published_sizes import KNOWN_MODELS
from trainer.ppo.actor_critic import ActorCritic, Critic, token_logprobs
from trainer.ppo.batch import PPOBatch, make_batch
from trainer.ppo.config import PPOConfig
from trainer.ppo.update import Learner
from trainer.reward_models.step_labels import IGNORED, soft_cross_entropy
from trainer.rollouts.collect import RewardConfig, RolloutRequest, SamplingConfig, collect_rollouts
from trainer.rollouts.judging import Judges
from trainer.runtime.launcher import launch
from trainer.runtime.resources import peak_flops

SIZES = ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-1.5B")
PAGE = Path(__file__).resolve().parents[1] / "docs" / "measurements" / "gpu.md"
STEP_END = "77"  # in 4 % of the tokens: a step of a random model has about 25 tokens
TINY_FIELDS = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 512,
}  # fmt: skip
LEARNING_RATE = 1e-5


@dataclass(frozen=True, kw_only=True)
class Load:
    """The work of the measurements. A measurement takes the median of at most `repeats` runs in at
    most `seconds`, after one run that is not counted."""

    batch: int = 8  # rows of a training step
    length: int = 512  # tokens per row
    problems: int = 16  # of a cycle of PPO, and of a search
    samples: int = 4  # rollouts per problem
    prompt: int = 128
    new: int = 128
    rows: tuple[int, ...] = (1, 16, 64, 256)  # samples decoded at once
    simulations: int = 16
    repeats: int = 10
    seconds: float = 12.0


TINY = Load(
    batch=2, length=48, problems=2, samples=2, prompt=8, new=40, rows=(1, 16), simulations=2,
    repeats=1,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement. `done` counts what a run does, in `unit`s: tokens or simulations."""

    model: str
    work: str
    seconds: float
    done: float
    unit: str
    flops: float
    memory: float  # bytes, at most


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one run of a measurement did."""

    done: float
    flops: float


class Bench:
    """Measures until the time is over, and prints every row as it comes."""

    def __init__(self, device: torch.device, load: Load, minutes: float) -> None:
        self.device, self.load = device, load
        self.ends = time.monotonic() + 60 * minutes
        self.rows: list[Row] = []
        self.left_out: list[str] = []

    def measure(self, model: str, work: str, unit: str, run: Callable[[], Run]) -> None:
        """Add a row; a measurement that does not fit into the memory or the time is named."""
        if time.monotonic() > self.ends:
            self.left_out.append(f"{model}, {work}: no time was left")
            return
        try:
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            done = run()
            seconds = self._median(run)
        except torch.OutOfMemoryError:
            self.left_out.append(f"{model}, {work}: out of memory")
            return
        row = Row(
            model=model, work=work, seconds=seconds, done=done.done, unit=unit, flops=done.flops,
            memory=self._memory(),
        )  # fmt: skip
        self.rows.append(row)
        print(f"{model}, {work}: {seconds:.3f} s, {row.done / seconds:,.0f} {unit}/s", flush=True)

    def _median(self, run: Callable[[], Run]) -> float:
        wait = torch.cuda.synchronize if self.device.type == "cuda" else lambda: None
        seconds: list[float] = []
        while len(seconds) < self.load.repeats and sum(seconds) < self.load.seconds:
            wait()
            started = time.perf_counter()
            run()
            wait()
            seconds.append(time.perf_counter() - started)
        return statistics.median(seconds)

    def _memory(self) -> float:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated()
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def bf16(self) -> Any:
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def empty(self) -> None:
        """Give the memory of deleted models back."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def model_of(kind: Any, config: Any, bench: Bench, dtype: torch.dtype = torch.float32) -> Any:
    """A model with random weights on the device."""
    torch.manual_seed(1)
    with bench.device:
        return kind.from_config(config, dtype=dtype)


def config_for(name: str, *, tiny: bool, **more: Any) -> Any:
    fields = {**KNOWN_MODELS[name].config, **(TINY_FIELDS if tiny else {}), **more}
    ends = {"bos_token_id": None, "eos_token_id": 2, "pad_token_id": 2}
    return transformers.AutoConfig.for_model(**fields, **ends)


def tokenizer_of_words(size: int) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(size)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="w2", unk_token="w0", pad_token="w2"
    )


def optimizer_of(model: Any) -> torch.optim.Optimizer:
    on_gpu = next(model.parameters()).is_cuda
    return torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=on_gpu)


def measure_training(bench: Bench, name: str, config: Any, labels: Any) -> None:
    """A step of SFT, and one of a process reward model."""
    load = bench.load
    shape = (load.batch, load.length)
    ids = torch.randint(3, config.vocab_size, shape, device=bench.device)
    mask = torch.ones_like(ids)
    targets = torch.full(ids.shape, IGNORED, device=bench.device)
    targets[:, load.prompt :: 16] = 0.5  # a step's label every 16 tokens

    def sft_loss(model: Any) -> torch.Tensor:
        return model(input_ids=ids, attention_mask=mask, labels=ids).loss

    def prm_loss(model: Any) -> torch.Tensor:
        return soft_cross_entropy(model(input_ids=ids, attention_mask=mask).logits, targets)

    kinds = (
        ("SFT step", transformers.AutoModelForCausalLM, config, sft_loss),
        ("PRM step", token_classifiers(labels), labels, prm_loss),
    )
    for work, kind, kind_config, loss_of in kinds:
        model = model_of(kind, kind_config, bench).train()
        optimizer = optimizer_of(model)
        flops = 3 * load.batch * flop_model(model).forward(0, load.length)

        def step(
            model: Any = model, optimizer: Any = optimizer, loss_of: Any = loss_of,
            flops: float = flops,
        ) -> Run:  # fmt: skip
            with bench.bf16():
                loss = loss_of(model)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return Run(done=ids.numel(), flops=flops)

        bench.measure(name, f"{work}, {load.batch} x {load.length} tokens", "tokens", step)
        del model, optimizer, step
        bench.empty()


class OneProcess:
    """What the learner of PPO uses of an Accelerator: one process, one micro-batch per step."""

    num_processes, process_index, distributed_type = 1, 0, "NO"
    sync_gradients, optimizer_step_was_skipped = True, False

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def reduce(self, values: torch.Tensor, reduction: str) -> torch.Tensor:
        return values

    @contextmanager
    def accumulate(self, model: Any) -> Iterator[None]:
        yield

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def clip_grad_norm_(self, parameters: Any, most: float) -> torch.Tensor:
        return torch.nn.utils.clip_grad_norm_(parameters, most)


class NothingIsRight:
    """Implements `rewards.base.Verifier`."""

    def verify(self, problem: Problem, solution: str) -> Verdict:
        return Verdict(outcome=Outcome.WRONG)


def problems_of(bench: Bench) -> list[Problem]:
    def prompt(i: int) -> str:
        return " ".join(f"w{(37 * i + j) % 300 + 3}" for j in range(bench.load.prompt))

    return [Problem(id=f"{i}", prompt=prompt(i), answer="1") for i in range(bench.load.problems)]


def measure_ppo(bench: Bench, name: str, config: Any, tokenizer: Any) -> None:
    """The rollouts of a cycle, and its update of actor and critic with one pass over them."""
    load = bench.load
    policy = model_of(transformers.AutoModelForCausalLM, config, bench)
    backbone = model_of(transformers.AutoModel, config, bench)
    model = ActorCritic(policy, Critic(backbone, None).to(bench.device))
    frozen = model_of(transformers.AutoModelForCausalLM, config, bench, torch.bfloat16).eval()
    rows = load.problems * load.samples
    parts = max(1, rows // load.batch)
    ppo = PPOConfig(
        policy="", data="", verifier="math", problems_per_cycle=load.problems,
        samples_per_problem=load.samples, max_new_tokens=load.new, epochs=1, minibatches=parts,
        micro_batch_size=rows // parts,
    )  # fmt: skip
    learner = Learner(
        accelerator=OneProcess(bench.device),
        model=model,
        optimizer=optimizer_of(model),
        reference=lambda ids, mask: token_logprobs(frozen, ids, mask)[0],
        config=ppo,
        pad_token_id=tokenizer.pad_token_id,
        seed=1,
    )
    judges = Judges(engine=engine_of(policy, tokenizer), verifier=NothingIsRight())
    sampling = SamplingConfig(
        samples_per_problem=load.samples, max_new_tokens=load.new, temperature=1.0
    )
    rewards = RewardConfig(outcome="random")
    request = RolloutRequest(
        problems=problems_of(bench), sampling=sampling, rewards=rewards, cycle=0
    )
    batches: list[PPOBatch] = []

    def sample() -> Run:
        policy.eval()
        with bench.bf16():
            rollouts, usage = collect_rollouts(judges, request)
        batches.append(make_batch(rollouts, tokenizer.pad_token_id, 1.0, bench.device))
        return Run(done=usage.policy.generated_tokens, flops=usage.policy.flops)

    forward = flop_model(policy).forward(0, load.prompt + load.new)
    critic = flop_model(backbone).forward(0, load.prompt + load.new)

    def update() -> Run:
        with bench.bf16():
            orders = learner.orders(0, rows)
            batch, _ = learner.evaluate_old(batches[-1], orders[0])
            learner.learn(learner.estimate(batch, 0.01), orders, 0, [])
        tokens = rows * (load.prompt + load.new)
        # Old policy, reference and old values; then forward and backward passes of both models.
        return Run(done=tokens, flops=rows * (5 * forward + 4 * critic))

    shape = f"{rows} x ({load.prompt} + {load.new}) tokens"
    bench.measure(name, f"PPO rollouts, {shape}", "tokens", sample)
    if batches:
        bench.measure(name, f"PPO update, {shape}", "tokens", update)


def engine_of(model: Any, tokenizer: Any) -> TransformersEngine:
    config = EngineConfig(seed=1, bit_identical=False, step_delimiter=STEP_END)
    return TransformersEngine(model, tokenizer, config)


def measure_search(bench: Bench, name: str, config: Any, labels: Any, tokenizer: Any) -> None:
    """Samples of one prompt by rows, and tree searches with a reward model of the same size."""
    load = bench.load
    policy = model_of(transformers.AutoModelForCausalLM, config, bench, torch.bfloat16)
    engine = engine_of(policy, tokenizer)
    prompt = engine.encode_prompt(problems_of(bench)[0].prompt)
    for rows in load.rows:

        def sample(rows: int = rows) -> Run:
            request = SampleRequest(
                node=0, prefix=prompt, n=rows, stop_at_step=False, max_new_tokens=load.new
            )
            [result] = engine.sample_batch([("p", request)])
            return Run(done=result.usage.generated_tokens, flops=result.usage.flops)

        bench.measure(name, f"sampling, {rows} rows of {load.new} tokens", "tokens", sample)
    reader = model_of(token_classifiers(labels), labels, bench, torch.bfloat16)
    scorer = RewardScorer(process_reward_model(reader, tokenizer.pad_token_id))
    strategy = bind(MCTSConfig(budgets=(load.simulations,), proposals=load.samples))

    def search() -> Run:
        results = run_searches(
            problems_of(bench),
            strategy,
            engine=engine,
            scorer=scorer,
            verify=NothingIsRight().verify,
            settings=SearchSettings(max_step_tokens=32, max_new_tokens=load.new),
        )
        flops = sum(result.usage.flops for result in results)
        return Run(done=load.problems * load.simulations, flops=flops)

    work = f"MCTS, {load.problems} problems x {load.simulations} simulations, {load.samples} steps"
    bench.measure(name, work, "simulations", search)


def measure_size(bench: Bench, name: str, *, tiny: bool) -> None:
    config = config_for(name, tiny=tiny)
    two = {"num_labels": 2, "id2label": {0: "incorrect", 1: "correct"}}
    labels = config_for(name, tiny=tiny, **two, label2id={"incorrect": 0, "correct": 1})
    tokenizer = tokenizer_of_words(config.vocab_size)
    parts: tuple[Callable[[], None], ...] = (
        lambda: measure_training(bench, name, config, labels),
        lambda: measure_search(bench, name, config, labels, tokenizer),
        lambda: measure_ppo(bench, name, config, tokenizer),
    )
    for part in parts:
        try:
            part()
        except torch.OutOfMemoryError:
            bench.left_out.append(f"{name}: the models of a measurement do not fit into the memory")
        bench.empty()


def page(bench: Bench, device: str, peak: float | None) -> str:
    """The measurements in Markdown."""
    lines = [
        f"# One GPU: {device}",
        "`PYTHONPATH=. python scripts/measure_gpu.py`: random weights; the head of the script says",
        f"what a step is. torch {torch.__version__}, transformers {transformers.__version__}. The",
        "utilisation is the share of the device's dense bf16 peak"
        + (f" of {peak / 1e12:.3g} TFLOP/s." if peak else ", which is not known."),
        "",
        "| model | work | seconds | per second | utilisation, % | peak memory, GB |",
        "|---|---|---|---|---|---|",
    ]
    for row in bench.rows:
        share = f"{100 * row.flops / row.seconds / peak:.1f}" if peak else "-"
        rate = f"{row.done / row.seconds:,.1f} {row.unit}"
        cells = (row.model, row.work, f"{row.seconds:.3f}", rate, share, f"{row.memory / 1e9:.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    if bench.left_out:
        lines += ["", "Not measured:", *(f"- {reason}" for reason in bench.left_out)]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="tiny models on the CPU")
    parser.add_argument("--minutes", type=float, default=7.0, help="no measurement starts later")
    parser.add_argument("--out", type=Path, help="page to write; by default of GPUs alone, gpu.md")
    options = parser.parse_args(sys.argv[1:])
    if not options.tiny and not torch.cuda.is_available():
        raise ValueError("there is no GPU here: --tiny measures tiny models on the CPU")
    device = torch.device("cpu" if options.tiny else "cuda")
    bench = Bench(device, TINY if options.tiny else Load(), options.minutes)
    for name in SIZES:
        measure_size(bench, name, tiny=options.tiny)
    named = "cpu" if options.tiny else torch.cuda.get_device_name()
    text = page(bench, named, peak_flops(named))
    out = options.out or (None if options.tiny else PAGE)
    if out is not None:
        out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    launch(main)
