"""PPO's rollouts from vLLM, which samples large models many times faster than a decode loop in
Python: in the trainer's processes or on a server, through TRL's `VLLMGeneration`, which also brings
it the policy's weights of each cycle.

What samples is then not exactly what is trained (other kernels, other precision), so the log-
probabilities it gave come with the rollouts: see `trainer.ppo.losses.importance_corrections`. Its
randomness is its own: two runs of one seed are not the same.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from data.progress import Batch
from data.types import ModelUsage, Problem, StopReason
from search.base import Engine
from trainer.models.lora import plain, plain_weights
from trainer.models.sharding import whole
from trainer.rollouts.collect import Completion, SamplingConfig
from trainer.runtime.watchdog import WATCHDOG

ENGINES = ("transformers", "vllm_colocate", "vllm_server")


@dataclass(frozen=True, kw_only=True)
class RolloutEngineConfig:
    """What samples the rollouts. docs/scaling.md shows how a vLLM server is started."""

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
                "vllm_server needs an address, and nothing else takes one"
            )
        if not 0 < self.vllm_memory_share < 1:
            raise ValueError(f"vllm_memory_share is {self.vllm_memory_share}; it must be in (0, 1)")
        if self.vllm_tensor_parallel < 1:
            raise ValueError(
                f"vllm_tensor_parallel is {self.vllm_tensor_parallel}; it must be at least 1"
            )


def check_vllm(config: RolloutEngineConfig, processes: int) -> None:
    """Before any model is loaded. Raises ImportError where vLLM is asked for and not installed,
    and ValueError for processes that cannot be dealt to its copies."""
    if config.rollout_engine == "transformers":
        return
    from trl.import_utils import is_vllm_available

    if not is_vllm_available():
        raise ImportError(
            f"rollout_engine is {config.rollout_engine!r}, but vLLM is not installed here: see "
            "docs/scaling.md, or take rollout_engine: transformers"
        )
    if processes % config.vllm_tensor_parallel:
        raise ValueError(
            f"vllm_tensor_parallel is {config.vllm_tensor_parallel}: it must divide the "
            f"{processes} processes"
        )


class VLLMSampler:
    """A `trainer.rollouts.collect.Sampler`. `generation` is TRL's `VLLMGeneration`; `engine` knows
    the policy's end token, its context and what tokens cost."""

    def __init__(self, generation: Any, engine: Engine) -> None:
        self.generation = generation
        self.engine = engine
        self._synced: int | None = None

    def sync(self, version: int) -> None:
        """Bring vLLM the policy's weights, unless it has those of this version. Collective."""
        if version != self._synced:
            self.generation.sync_weights()
            self._synced = version

    def close(self) -> None:
        """Stop a vLLM that runs in the trainer. It leaves the process group: nothing else may use
        that any more."""
        if self.generation.mode == "colocate":
            self.generation.llm.llm_engine.engine_core.shutdown()

    def __call__(
        self,
        problems: Sequence[Problem],
        prompts: Sequence[tuple[int, ...]],
        sampling: SamplingConfig,
        cycle: int,
    ) -> tuple[list[list[Completion]], ModelUsage]:
        """Collective: with a server, and among processes that share a copy, each must bring as many
        problems. Prompts count as computed once a problem, as with our own engine; vLLM's cache
        holds whole blocks of tokens, so a few more a sample are computed.

        Raises ValueError for a prompt that leaves no room for `max_new_tokens` in the context, and
        where vLLM gives no log-probability.
        """
        room = self.engine.context_length - sampling.max_new_tokens
        for problem, prompt in zip(problems, prompts, strict=True):
            if len(prompt) > room:
                raise ValueError(
                    f"problem {problem.id}: a prompt of {len(prompt)} tokens and max_new_tokens "
                    f"{sampling.max_new_tokens} are more than the context of "
                    f"{self.engine.context_length}, which vLLM does not take"
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
            raise ValueError(f"vLLM gave no log-probability of a token of {list(token_ids)}")
        ended = token_ids[-1] == self.engine.end_token_id
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
        self.batch = Batch("solutions", int(self.total or 0))

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
    """None where vLLM is not asked for. `folder` is where weights may lie on their way to a server.
    Every process must call it."""
    if config.rollout_engine == "transformers":
        return None
    from trl.generation.vllm_client import VLLMClient
    from trl.generation.vllm_generation import VLLMGeneration

    by_folder = accelerator.device.type == "cpu"

    class FolderClient(VLLMClient):
        """Brings a server new weights by a folder that both see."""

        def update_named_params(
            self, metadata: Sequence[Any], named_params: Iterable[tuple[str, Tensor]]
        ) -> None:
            weights = {name: value.detach().cpu().clone() for name, value in named_params}
            folder.mkdir(parents=True, exist_ok=True)
            save_file(weights, folder / "model.safetensors", {"format": "pt"})
            self._post(
                f"{self.base_url}/collective_rpc",
                json={
                    "method": "reload_weights",
                    "kwargs": {"weights_path": str(folder.resolve())},
                },
            )

    class Generation(VLLMGeneration):
        """TRL merges adapters into the policy and takes them out again, which rounds its weights
        a little with every cycle: ours are added in a copy. And TRL brings weights by NCCL, which
        a CPU has not: there they go through a folder, or where vLLM runs in the trainer directly.
        """

        def _init_vllm(self) -> None:
            if not (by_folder and self.mode == "server"):
                super()._init_vllm()
                return
            if plain(policy).config.get_text_config().tie_word_embeddings:
                raise ValueError(
                    "a vLLM server on a CPU does not renew an output head that is tied to the "
                    "embeddings (tie_word_embeddings): take rollout_engine: vllm_colocate"
                )
            if accelerator.is_main_process:
                self.vllm_client = FolderClient(
                    base_url=config.vllm_server_url, connection_timeout=self.server_timeout
                )
            accelerator.wait_for_everyone()

        def _iter_named_params(self) -> Generator[tuple[str, Tensor]]:
            if not hasattr(policy, "peft_config"):
                yield from super()._iter_named_params()
                return
            with whole(policy.parameters()):
                yield from plain_weights(policy).items()

        def sync_weights(self) -> None:
            if not (by_folder and self.mode == "colocate"):
                super().sync_weights()
                return
            # On a CPU vLLM keeps its weights packed, and only this packs new ones; all but those of
            # an output head that is tied to the embeddings.
            runner: Any = self.llm.llm_engine.model_executor.driver_worker.model_runner
            runner.reload_weights(weights_iterator=self._iter_named_params())
            head = getattr(runner.model, "lm_head", None)
            if head is not None:
                head.quant_method.process_weights_after_loading(head)
            self.llm.reset_prefix_cache()

    generation = Generation(
        policy,
        accelerator,
        tokenizer,
        mode=config.rollout_engine.removeprefix("vllm_"),
        server_base_url=config.vllm_server_url,
        tensor_parallel_size=config.vllm_tensor_parallel,
        gpu_memory_utilization=config.vllm_memory_share,
        max_model_length=engine.context_length,
        enable_sleep_mode=config.vllm_sleep,
        # The tokenizer's end token ends a solution; a model's config may name others.
        generation_kwargs={"ignore_eos": True, "stop_token_ids": [engine.end_token_id]},
    )
    report_requests(generation)
    return VLLMSampler(generation, engine)
