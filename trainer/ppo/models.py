"""PPO's models: builds actor, critic and reference from the recipe, and saves them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rewards.models.bit_identity import use_plain_attention_on_cpu
from trainer.models.loading import load_policy, whole_models
from trainer.models.lora import LoraSettings, adapter_config, plain, plain_weights
from trainer.models.sharding import prepare_frozen, whole
from trainer.ppo.actor_critic import ActorCritic, token_logprobs
from trainer.ppo.config import PPOConfig
from trainer.ppo.critic_folders import build_critic, check_same_tokens, save_critic

ADAPTER, CRITIC_FOLDER = "adapter", "critic"


@dataclass(frozen=True, kw_only=True)
class PPOModels:
    """The models of a PPO run. `prepared` is `actor_critic` as the accelerator prepared it. If
    `reference` is None, the policy without its adapters is the reference."""

    accelerator: Any
    prepared: Any
    actor_critic: ActorCritic
    optimizer: Any
    reference: Any | None
    tokenizer: Any
    temperature: float

    def reference_logprobs(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """Log-probabilities of shape (B, P), in nats, at the sampling temperature."""
        with self.accelerator.autocast():
            if self.reference is not None:
                return token_logprobs(self.reference, input_ids, mask, self.temperature)[0]
            policy = self.actor_critic.policy
            with policy.disable_adapter():
                return token_logprobs(policy, input_ids, mask, self.temperature)[0]

    def save(self, folder: Path) -> None:
        """Save the policy as a Hugging Face folder, and the critic as a folder inside it. With LoRA
        these folders hold the merged models, and the adapters are also saved as peft folders. Every
        process must call this method."""
        model = self.actor_critic
        with whole(model.parameters()):
            if self.accelerator.is_main_process:
                self._save(model.policy, model.critic, folder)
        self.accelerator.wait_for_everyone()

    def _save(self, policy: Any, critic: Any, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if hasattr(policy, "peft_config"):
            policy.save_pretrained(folder / ADAPTER)
            critic.backbone.save_pretrained(folder / CRITIC_FOLDER / ADAPTER)
        base = plain(policy)
        base.save_pretrained(folder, state_dict=plain_weights(policy))
        self.tokenizer.save_pretrained(folder)
        backbone = plain(critic.backbone)
        with whole_models():
            save_critic(
                critic,
                plain_weights(critic.backbone),
                backbone.config,
                self.tokenizer,
                folder / CRITIC_FOLDER,
            )


def build_models(config: PPOConfig, accelerator: Any) -> PPOModels:
    """Build the models. Raises ValueError if critic or reference have other tokens than the policy.
    Also raises the errors of `build_critic`."""
    from trl.trainer.utils import disable_dropout_in_model

    # Trained weights are fp32: updates are smaller than the last digit of a bfloat16 weight.
    dtype: Any = "auto" if config.lora_rank else torch.float32
    policy, tokenizer = load_policy(config.policy, dtype)
    disable_dropout_in_model(policy)
    vocab_size = policy.config.get_text_config().vocab_size
    if config.critic != "policy":
        start = config.reward_model if config.critic.startswith("reward") else config.critic
        check_same_tokens("critic", start or "", tokenizer, vocab_size)
    critic = build_critic(config.critic, config.policy, config.reward_model, dtype=dtype)
    if config.lora_rank:
        from peft import get_peft_model

        lora = LoraSettings(lora_rank=config.lora_rank)
        policy, critic.backbone = (
            get_peft_model(model, adapter_config(lora)) for model in (policy, critic.backbone)
        )
    for part in (policy, critic.backbone):
        use_plain_attention_on_cpu(part)
        if config.gradient_checkpointing:
            part.gradient_checkpointing_enable({"use_reentrant": False})
    model = ActorCritic(policy, critic)
    groups = [
        {"params": _trainable(policy), "lr": config.learning_rate},
        {"params": _trainable(critic), "lr": config.critic_learning_rate},
    ]
    optimizer = torch.optim.AdamW(
        groups, betas=(0.9, config.adam_beta2), weight_decay=config.weight_decay
    )
    prepared, optimizer = accelerator.prepare(model, optimizer)
    return PPOModels(
        accelerator=accelerator,
        prepared=prepared,
        actor_critic=accelerator.unwrap_model(prepared),
        optimizer=optimizer,
        reference=None
        if config.lora_rank
        else _reference(config, tokenizer, vocab_size, accelerator),
        tokenizer=tokenizer,
        temperature=config.temperature,
    )


def _reference(config: PPOConfig, tokenizer: Any, vocab_size: int, accelerator: Any) -> Any:
    name = config.reference or config.policy
    if config.reference is not None:
        check_same_tokens("reference", name, tokenizer, vocab_size)
    model, _ = load_policy(name, torch.float32)
    use_plain_attention_on_cpu(model)
    return prepare_frozen(model, accelerator)


def _trainable(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
