"""PPO's rollouts from vLLM, which samples large models many times faster than a decode loop in
Python. vLLM runs in the trainer's processes or on a server. TRL's `VLLMGeneration` controls it, and
gives it the policy's weights of each cycle.

The sampling model then differs slightly from the trained model (other kernels, other precision). So
the rollouts carry vLLM's log-probabilities: see `trainer.ppo.losses.importance_corrections`. vLLM
has its own random numbers: two runs with the same seed differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.progress import BatchProgress
from data.types import ModelUsage, Problem, StopReason
from rewards.models.vocabulary import unknown_token_ids
from search.base import Engine
from trainer.rollouts.collect import Completion, SamplingConfig
from trainer.runtime.watchdog import WATCHDOG

ENGINES = ("transformers", "vllm_colocate", "vllm_server")


@dataclass(frozen=True, kw_only=True)
class RolloutEngineConfig:
    """Which engine samples the rollouts. docs/scaling.md shows how to start a vLLM server."""

    rollout_engine: str = "transformers"
    """Engine of the rollouts: transformers, vllm_colocate (same GPUs) or vllm_server."""
    vllm_server_url: str | None = None
    """Address of the vLLM server, where rollout_engine is vllm_server."""
    vllm_memory_share: float = 0.3
    """Share of the GPUs' memory for vLLM, where rollout_engine is vllm_colocate."""
    vllm_tensor_parallel: int = 1
    """Processes that share one copy of the model in vLLM."""
    vllm_sleep: bool = False
    """Free vLLM's memory while weights are updated."""

    def __post_init__(self) -> None:
        engine = self.rollout_engine
        if engine not in ENGINES:
            raise ValueError(f"rollout_engine is {engine!r}; allowed: {', '.join(ENGINES)}")
        if (engine == "vllm_server") != (self.vllm_server_url is not None):
            raise ValueError(
                f"rollout_engine is {engine!r} and vllm_server_url is {self.vllm_server_url!r}: "
                "vllm_server needs an address, and the other engines take none"
            )
        if not 0 < self.vllm_memory_share < 1:
            raise ValueError(f"vllm_memory_share is {self.vllm_memory_share}; it must be in (0, 1)")
        if self.vllm_tensor_parallel < 1:
            raise ValueError(
                f"vllm_tensor_parallel is {self.vllm_tensor_parallel}; it must be at least 1"
            )


def check_vllm(config: RolloutEngineConfig, processes: int) -> None:
    """Check the settings before any model is loaded. Raises ImportError if vLLM is needed but not
    installed, and ValueError if the processes cannot be divided among vLLM's copies of the
    model."""
    if config.rollout_engine == "transformers":
        return
    from trl.import_utils import is_vllm_available

    if not is_vllm_available():
        raise ImportError(
            f"rollout_engine is {config.rollout_engine!r}, but vLLM is not installed here: see "
            "docs/scaling.md, or set rollout_engine: transformers"
        )
    if processes % config.vllm_tensor_parallel:
        raise ValueError(
            f"vllm_tensor_parallel is {config.vllm_tensor_parallel}: it must divide the "
            f"{processes} processes"
        )


class VLLMSampler:
    """A `trainer.rollouts.collect.Sampler`. `generation` is TRL's `VLLMGeneration`. `engine` knows
    the policy's end token, its context and the cost of tokens."""

    def __init__(self, generation: Any, engine: Engine) -> None:
        self.generation = generation
        self.engine = engine
        self._synced: int | None = None

    def sync(self, version: int) -> None:
        """Give vLLM the policy's weights, unless it has this version. Every process must call
        it."""
        if version != self._synced:
            self.generation.sync_weights()
            self._synced = version

    def close(self) -> None:
        """Stop a vLLM that runs in the trainer. vLLM destroys the process group, so no code may use
        the group after this call."""
        if self.generation.mode == "colocate":
            self.generation.llm.llm_engine.engine_core.shutdown()

    def __call__(
        self,
        problems: Sequence[Problem],
        prompts: Sequence[tuple[int, ...]],
        sampling: SamplingConfig,
        cycle: int,
    ) -> tuple[list[list[Completion]], ModelUsage]:
        """Sample completions. Every process must call this. With a server, and among processes that
        share a copy of the model, each process must give the same number of problems. A prompt
        counts as computed once per problem, as with our engine. vLLM's cache holds whole blocks of
        tokens, so vLLM computes a few more tokens per sample.

        Raises ValueError for a prompt that leaves no room for `max_new_tokens` in the context, and
        if vLLM gives no log-probability.
        """
        room = self.engine.context_length - sampling.max_new_tokens
        for problem, prompt in zip(problems, prompts, strict=True):
            if len(prompt) > room:
                raise ValueError(
                    f"problem {problem.id}: a prompt of {len(prompt)} tokens plus max_new_tokens "
                    f"{sampling.max_new_tokens} exceeds the context of "
                    f"{self.engine.context_length} tokens, which vLLM refuses"
                )
        n = sampling.samples_per_problem
        self.generation.temperature = sampling.temperature
        self.generation.max_completion_length = sampling.max_new_tokens
        WATCHDOG.progress()
        repeated = [list(prompt) for prompt in prompts for _ in range(n)]
        _, ids, logprobs, _ = self.generation.generate(repeated, images=None, num_generations=n)
        if len(ids) != len(repeated) or logprobs is None:
            raise ValueError(
                f"cycle {cycle}: vLLM gave {len(ids)} samples for {len(repeated)} prompts"
                + ("" if logprobs else ", without log-probabilities")
            )
        flat = [self._completion(*pair) for pair in zip(ids, logprobs, strict=True)]
        groups = [flat[at : at + n] for at in range(0, len(flat), n)]
        usage = sum(
            (
                self.engine.sample_usage(len(prompt), [len(c.token_ids) for c in group])
                for prompt, group in zip(prompts, groups, strict=True)
            ),
            ModelUsage(),
        )
        return groups, usage

    def _completion(
        self, token_ids: Sequence[int], logprobs: Sequence[Sequence[float | None]]
    ) -> Completion:
        if len(token_ids) != len(logprobs) or any(row[0] is None for row in logprobs):
            raise ValueError(f"vLLM gave no log-probability for a token of {list(token_ids)}")
        ended = token_ids[-1] in self.engine.end_token_ids
        return Completion(
            token_ids=tuple(token_ids),
            stop_reason=StopReason.END_OF_SOLUTION if ended else StopReason.LENGTH,
            logprobs=tuple(float(row[0]) for row in logprobs if row[0] is not None),
        )


class RequestProgress(tqdm):
    """The progress bar that vLLM draws of its requests: it draws nothing, and reports them as a
    batch (data/progress.py)."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "file": StringIO()})
        self.batch = BatchProgress("solutions", int(self.total or 0))

    def update(self, n: float | None = 1) -> bool | None:
        self.batch.add(round(n or 0))
        return super().update(n)


def report_requests(generation: Any) -> None:
    """Let a vLLM in this process report its finished solutions. TRL turns its bar off. A server
    answers all requests at once, and says nothing before."""
    if generation.mode != "colocate":
        return
    llm = generation.llm
    generate = llm.generate

    def reporting(*args: Any, **options: Any) -> Any:
        return generate(*args, **{**options, "use_tqdm": RequestProgress})

    llm.generate = reporting


def open_vllm(
    config: RolloutEngineConfig,
    policy: Any,
    tokenizer: Any,
    engine: Engine,
    accelerator: Any,
    folder: Path,
) -> VLLMSampler | None:
    """Open vLLM; None if the settings do not use it. `folder` passes weights to a server. Every
    process must call this function."""
    if config.rollout_engine == "transformers":
        return None
    from trainer.rollouts.vllm_weights import PolicyGeneration

    unknown = unknown_token_ids(policy, tokenizer)
    generation = PolicyGeneration(
        policy,
        accelerator,
        tokenizer,
        folder=folder,
        mode=config.rollout_engine.removeprefix("vllm_"),
        server_base_url=config.vllm_server_url,
        tensor_parallel_size=config.vllm_tensor_parallel,
        gpu_memory_utilization=config.vllm_memory_share,
        max_model_length=engine.context_length,
        enable_sleep_mode=config.vllm_sleep,
        generation_kwargs={
            # The end tokens of our engine, and no other ones.
            "ignore_eos": True,
            "stop_token_ids": sorted(engine.end_token_ids),
            # vLLM has the weights without the hook of `forbid_unknown_tokens`.
            **({"logit_bias": dict.fromkeys(unknown, -100.0)} if unknown else {}),
        },
    )
    report_requests(generation)
    return VLLMSampler(generation, engine)
