"""Gives vLLM the weights of the trained policy. The classes extend TRL's `VLLMGeneration`.
Importing this file needs TRL; using its classes needs vLLM."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor
from trl.generation.vllm_client import VLLMClient
from trl.generation.vllm_generation import VLLMGeneration

from trainer.models.lora import plain, plain_weights
from trainer.models.sharding import whole


class FolderClient(VLLMClient):
    """Gives a server new weights through a folder that client and server can read."""

    def __init__(self, base_url: str | None, connection_timeout: float, folder: Path) -> None:
        super().__init__(base_url=base_url, connection_timeout=connection_timeout)
        self.folder = folder

    def update_named_params(
        self, metadata: Sequence[Any], named_params: Iterable[tuple[str, Tensor]]
    ) -> None:
        weights = {name: value.detach().cpu().clone() for name, value in named_params}
        self.folder.mkdir(parents=True, exist_ok=True)
        save_file(weights, self.folder / "model.safetensors", {"format": "pt"})
        self._post(
            f"{self.base_url}/collective_rpc",
            json={
                "method": "reload_weights",
                "kwargs": {"weights_path": str(self.folder.resolve())},
            },
        )


class PolicyGeneration(VLLMGeneration):
    """TRL's generation with two differences. TRL merges adapters into the policy and unmerges them,
    which rounds the policy's weights a little in every cycle. This class merges them in a copy. TRL
    sends weights with NCCL, which a CPU does not have. On a CPU, this class sends weights through
    `folder`, or directly if vLLM runs in the trainer.
    """

    def __init__(
        self, policy: Any, accelerator: Any, tokenizer: Any, *, folder: Path, **settings: Any
    ) -> None:
        self.folder = folder
        self.by_folder = accelerator.device.type == "cpu"
        super().__init__(policy, accelerator, tokenizer, **settings)

    def _init_vllm(self) -> None:
        if not (self.by_folder and self.mode == "server"):
            super()._init_vllm()
            return
        if plain(self.model).config.get_text_config().tie_word_embeddings:
            raise ValueError(
                "a vLLM server on a CPU does not update an output head that is tied to the "
                "embeddings (tie_word_embeddings): set rollout_engine: vllm_colocate"
            )
        if self.accelerator.is_main_process:
            self.vllm_client = FolderClient(self.server_base_url, self.server_timeout, self.folder)
        self.accelerator.wait_for_everyone()

    def _iter_named_params(self) -> Generator[tuple[str, Tensor]]:
        if not hasattr(self.model, "peft_config"):
            yield from super()._iter_named_params()
            return
        with whole(self.model.parameters()):
            yield from plain_weights(self.model).items()

    def sync_weights(self) -> None:
        if not (self.by_folder and self.mode == "colocate"):
            super().sync_weights()
            return
        # On a CPU vLLM keeps packed weights, and only this call packs new ones. It does not pack an
        # output head that is tied to the embeddings.
        runner: Any = self.llm.llm_engine.model_executor.driver_worker.model_runner
        runner.reload_weights(weights_iterator=self._iter_named_params())
        head = getattr(runner.model, "lm_head", None)
        if head is not None:
            head.quant_method.process_weights_after_loading(head)
        self.llm.reset_prefix_cache()
