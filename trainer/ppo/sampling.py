"""Samples rollouts from the present policy. Every process samples its share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data.types import Usage
from rewards.verifiers.by_name import VERIFIERS
from trainer.models.loading import whole_models
from trainer.models.sharding import generating
from trainer.ppo.config import PPOConfig
from trainer.ppo.models import PPOModels
from trainer.ppo.step_values import StepValues, sample_step_values
from trainer.rollouts.collect import Rollout, RolloutRequest, collect_rollouts
from trainer.rollouts.judging import Judges
from trainer.rollouts.vllm import RolloutEngineConfig, VLLMSampler, open_vllm
from trainer.searching.engines import open_engine


@dataclass(frozen=True, kw_only=True)
class PolicySampling:
    """Holds the policy and the judges of its solutions. `vllm` samples the solutions; if it is
    None, the judges' engine does. All processes must call every method."""

    accelerator: Any
    models: PPOModels
    judges: Judges
    vllm: VLLMSampler | None

    def collect(self, request: RolloutRequest) -> tuple[list[Rollout], Usage]:
        """The rollouts of this process's share of the request's problems."""
        share = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        self.models.actor_critic.eval()
        with self._with_weights_of(request.cycle):
            own = replace(request, problems=request.problems[share])
            return collect_rollouts(self.judges, own, self.vllm)

    def step_values(
        self, rollouts: Sequence[Rollout], request: RolloutRequest, samples: int
    ) -> StepValues:
        """The values of the steps of this process's rollouts. The judges' engine samples."""
        self.models.actor_critic.eval()
        with self._with_weights_of(request.cycle):
            return sample_step_values(self.judges, rollouts, request, samples)

    @contextmanager
    def _with_weights_of(self, cycle: int) -> Iterator[None]:
        """A context in which the sampling engine has the policy's present weights."""
        if self.vllm is not None:
            self.vllm.sync(cycle)
            with self.accelerator.autocast():
                yield
            return
        models = self.models
        with generating(models.prepared, models.actor_critic.policy, self.accelerator):
            yield


def open_sampling(
    config: PPOConfig,
    rollout_engine: RolloutEngineConfig,
    models: PPOModels,
    *,
    seed: int,
    served: Path,
) -> PolicySampling:
    """Open the engines. `served` is the folder that passes weights to a vLLM server. Raises the
    errors of `open_engine`."""
    accelerator = models.accelerator
    policy, tokenizer = models.actor_critic.policy, models.tokenizer
    with whole_models():
        engine, scorer = open_engine(
            policy, tokenizer, config.reward_model, seed=seed, device=accelerator.device
        )
    return PolicySampling(
        accelerator=accelerator,
        models=models,
        judges=Judges(engine=engine, verifier=VERIFIERS[config.verifier](), scorer=scorer),
        vllm=open_vllm(rollout_engine, policy, tokenizer, engine, accelerator, served),
    )
