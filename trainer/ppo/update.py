"""The learning part of a cycle: old log-probabilities, advantages, and the optimizer's steps.

trainer/ppo/advantages.py explains the shapes. Every sum is divided by a count over the whole
minibatch of all processes. So the numbers of micro-batches and processes do not change the
result."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from data.types import TokenRow
from trainer.ppo.actor_critic import Predictions
from trainer.ppo.advantages import (
    Moments,
    gae,
    kl_penalties,
    mean_of_others,
    moments,
    whiten,
)
from trainer.ppo.batch import PPOBatch, micro_batches, minibatch_order, pad_columns
from trainer.ppo.config import PPOConfig
from trainer.ppo.losses import importance_corrections, policy_loss, value_loss
from trainer.runtime.watchdog import WATCHDOG

_ADVICE = "The last checkpoint is complete: lower learning_rate or max_grad_norm, and start again"
# From token ids and attention mask to log-probabilities (B, P).
ReferenceLogprobs = Callable[[Tensor, Tensor], Tensor]


@dataclass(slots=True, kw_only=True)
class UpdateSums:
    """Sums of one process, for the log: over its tokens (`tokens`, `ratio`, `clipped`), over its
    micro-batches (the losses) and over its optimizer steps (the rest). `ratio_max` is a maximum.
    `first_ratio_error` is the largest |ratio - 1| of the first micro-batch, and None before it."""

    policy_loss: float = 0.0
    value_loss: float = 0.0
    imitation_loss: float = 0.0
    tokens: float = 0.0
    ratio: float = 0.0
    ratio_max: float = 0.0
    clipped: float = 0.0
    first_ratio_error: float | None = None
    grad_norm: float = 0.0
    steps: float = 0.0
    skipped_steps: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Learner:
    """Updates actor and critic. `model` is the prepared `ActorCritic`. `reference` computes the
    log-probabilities of the reference policy."""

    accelerator: Any
    model: Any
    optimizer: Any
    reference: ReferenceLogprobs
    config: PPOConfig
    pad_token_id: int
    seed: int

    def reduce(self, values: Sequence[float]) -> list[float]:
        """The sums of the values over all processes."""
        total = torch.tensor(values, dtype=torch.float64, device=self.accelerator.device)
        return self.accelerator.reduce(total, reduction="sum").tolist()

    @property
    def runs_critic(self) -> bool:
        """Whether the critic runs. DeepSpeed gathers its parameters only when it does, so there it
        runs also when its values do not count."""
        deepspeed = self.accelerator.distributed_type == "DEEPSPEED"
        return self.config.uses_critic or deepspeed

    def predict(self, batch: PPOBatch) -> Predictions:
        ids, mask, temperature = batch.input_ids, batch.attention_mask, self.config.temperature
        return self.model(ids, mask, temperature, values=self.runs_critic)

    def orders(self, cycle: int, rows: int) -> list[Tensor]:
        """The order of this process's rows in each epoch."""
        samples, parts = self.config.samples_per_problem, self.config.minibatches
        return [
            minibatch_order(rows, samples, parts, _generator(f"{self.seed} {cycle} {epoch}"))
            for epoch in range(self.config.epochs)
        ]

    def minibatch_indices(self, batch: PPOBatch, order: Tensor) -> list[list[Tensor]]:
        """The micro-batches of each minibatch of an epoch. The rows of a minibatch are sorted by
        length, the longest first, so that a micro-batch has little padding."""
        size, lengths = self.config.micro_batch_size, batch.attention_mask.sum(1).cpu()
        parts = [
            part[torch.argsort(lengths[part], descending=True, stable=True)]
            for part in order.chunk(self.config.minibatches)
        ]
        return [[part[index] for index in micro_batches(len(part), size)] for part in parts]

    def evaluate_old(self, batch: PPOBatch, order: Tensor) -> tuple[PPOBatch, float]:
        """Fill in log-probabilities, reference and values before the first step. Also returns the
        entropy, summed over this process's tokens, in nats. The micro-batches are the same as in
        the first epoch, so the first ratios are exactly 1."""
        width = batch.mask_BP.shape[1]
        found: dict[str, list[Tensor]] = {"logprobs": [], "reference": [], "values": []}
        rows: list[Tensor] = []
        entropy = 0.0
        self.model.train()
        with torch.no_grad():
            for index in (i for part in self.minibatch_indices(batch, order) for i in part):
                micro = batch.rows(index)
                predicted = self.predict(micro)
                WATCHDOG.progress()
                found["logprobs"].append(predicted.logprobs_BP)
                found["values"].append(predicted.values_BP)
                found["reference"].append(self.reference(micro.input_ids, micro.attention_mask))
                entropy += float((predicted.entropy_BP * micro.mask_BP).sum())
                rows.append(index)
        back = torch.argsort(torch.cat(rows)).to(batch.mask_BP.device)
        columns = {name: pad_columns(parts, width)[back] for name, parts in found.items()}
        return (
            batch.with_columns(
                logprobs_BP=columns["logprobs"] * batch.mask_BP,
                reference_BP=columns["reference"] * batch.mask_BP,
                values_BP=columns["values"] * batch.mask_BP,
            ),
            entropy,
        )

    def estimate(self, batch: PPOBatch, kl_coefficient: float) -> PPOBatch:
        """Fill in returns and advantages. The advantages are whitened over the global batch, and
        then multiplied by the importance corrections. This weights the loss, because the clipped
        loss is linear in the advantages.

        With `value_rollouts`, the batch has the advantages of steps in the place of rewards and a
        discount of 0 after each step (trainer/ppo/step_values.py). A token then gets its step's
        advantage, less the KL penalties up to the step's end.

        With the group as the baseline, a token's advantage is the return from it, less the mean
        return of the problem's other samples (RLOO 2402.14740)."""
        values_BP = batch.values_BP
        if not self.config.uses_critic:
            values_BP = torch.zeros_like(values_BP)
        kl_BP = kl_penalties(batch.logprobs_BP, batch.reference_BP, batch.mask_BP)
        rewards_BP = batch.rewards_BP - kl_coefficient * kl_BP
        gae_lambda = self.config.gae_lambda if self.config.uses_critic else 1.0
        advantages_BP, returns_BP = gae(
            rewards_BP, values_BP, batch.mask_BP, batch.discount_BP, gae_lambda
        )
        if self.config.critic_gae_lambda is not None:  # decoupled GAE (VC-PPO 2503.01491)
            _, returns_BP = gae(
                rewards_BP,
                values_BP,
                batch.mask_BP,
                batch.discount_BP,
                self.config.critic_gae_lambda,
            )
        if self.config.baseline == "group":
            others_B = mean_of_others(rewards_BP.sum(1), self.config.samples_per_problem)
            advantages_BP = (advantages_BP - others_B[:, None]) * batch.mask_BP
        own = moments(advantages_BP, batch.mask_BP)
        count, total, squares = self.reduce([own.count, own.total, own.squares])
        over = Moments(count=count, total=total, squares=squares)
        corrections_BP, _ = importance_corrections(
            batch.logprobs_BP, batch.engine_BP, batch.mask_BP, self.config.importance_cap
        )
        return batch.with_columns(
            advantages_BP=whiten(advantages_BP, batch.mask_BP, over) * corrections_BP,
            returns_BP=returns_BP,
        )

    def learn(
        self, batch: PPOBatch, orders: Sequence[Tensor], cycle: int, imitation: Sequence[TokenRow]
    ) -> UpdateSums:
        """Run all epochs. Returns sums over this process's tokens and steps, for the log."""
        sums = UpdateSums()
        self.model.train()
        for epoch, order in enumerate(orders):
            for number, indices in enumerate(self.minibatch_indices(batch, order)):
                key = f"imitation {self.seed} {cycle} {epoch} {number}"
                taken = self._deal(imitation, [len(index) for index in indices], key)
                self._step(batch, indices, taken, cycle, sums)
        return sums

    def _deal(
        self, rows: Sequence[TokenRow], sizes: Sequence[int], key: str
    ) -> list[list[TokenRow]]:
        """Draw one row per rollout, with replacement. All processes make the same draws, and each
        takes its share. Without rows the lists are empty."""
        if not rows:
            return [[] for _ in sizes]
        processes = self.accelerator.num_processes
        drawn = torch.randint(len(rows), (sum(sizes) * processes,), generator=_generator(key))
        own = drawn[self.accelerator.process_index :: processes]
        return [[rows[i] for i in part.tolist()] for part in own.split(list(sizes))]

    def _step(
        self,
        batch: PPOBatch,
        indices: Sequence[Tensor],
        imitation: Sequence[Sequence[TokenRow]],
        cycle: int,
        sums: UpdateSums,
    ) -> None:
        """One optimizer step over a minibatch."""
        own = sum(float(batch.mask_BP[index.to(batch.mask_BP.device)].sum()) for index in indices)
        copied = sum(len(row.completion_ids) for rows in imitation for row in rows)
        tokens, copied_tokens = self.reduce([own, float(copied)])
        tokens = max(1.0, tokens)
        # Accelerate averages gradients over processes and micro-batches. This scale restores the
        # sum.
        scale = len(indices) * self.accelerator.num_processes
        for index, rows in zip(indices, imitation, strict=True):
            WATCHDOG.progress()
            with self.accelerator.accumulate(self.model):
                loss = self._loss(batch.rows(index), tokens, sums)
                if rows:
                    loss = loss + self._imitation_loss(rows, copied_tokens, sums)
                if not torch.isfinite(loss):
                    raise ValueError(
                        f"cycle {cycle}: the loss is {float(loss.detach())}; no step was taken. "
                        f"{_ADVICE}"
                    )
                self.accelerator.backward(loss * scale)
                if self.accelerator.sync_gradients:
                    # One norm for actor and critic, because DeepSpeed clips nothing else. A critic
                    # with large gradients shrinks the actor's, but AdamW divides by their size: a
                    # constant factor has no effect, and a factor that ends makes the actor's steps
                    # up to 2.1 times as long for some tens of steps (adam_beta2 0.99).
                    norm = float(
                        self.accelerator.clip_grad_norm_(
                            self.model.parameters(), self.config.max_grad_norm
                        )
                    )
                    if not math.isfinite(norm):  # DeepSpeed knows the norm only after the step
                        raise ValueError(f"cycle {cycle}: the gradient's norm is {norm}. {_ADVICE}")
                    sums.grad_norm += norm
                    sums.steps += 1
                self.optimizer.step()
                self.optimizer.zero_grad()
        sums.skipped_steps += bool(self.accelerator.optimizer_step_was_skipped)

    def _loss(self, micro: PPOBatch, tokens: float, sums: UpdateSums) -> Tensor:
        predicted = self.predict(micro)
        config = self.config
        policy, ratio_BP = policy_loss(
            predicted.logprobs_BP,
            micro.logprobs_BP,
            micro.advantages_BP,
            micro.mask_BP,
            (config.clip, config.upper_clip()),
            tokens,
        )
        value = value_loss(
            predicted.values_BP,
            micro.values_BP,
            micro.returns_BP,
            micro.mask_BP,
            config.value_clip,
            tokens,
        )
        kept = ratio_BP[micro.mask_BP.bool()]
        sums.policy_loss += float(policy.detach())
        sums.value_loss += float(value.detach())
        sums.tokens += kept.numel()
        sums.ratio += float(kept.sum())
        change = kept - 1.0
        sums.clipped += int(((change < -config.clip) | (change > config.upper_clip())).sum())
        if kept.numel():  # none are kept if all solutions of a micro-batch are masked
            sums.ratio_max = max(sums.ratio_max, float(kept.max()))
        if kept.numel() and sums.first_ratio_error is None:
            sums.first_ratio_error = float(change.abs().max())
        return policy + config.value_coefficient * value

    def _imitation_loss(self, rows: Sequence[TokenRow], tokens: float, sums: UpdateSums) -> Tensor:
        """The mean negative log-likelihood of verified trajectories, in nats per token, times its
        coefficient."""
        device = self.accelerator.device
        longest = max(len(row.prompt_ids) + len(row.completion_ids) for row in rows)
        ids = torch.full((len(rows), longest), self.pad_token_id, dtype=torch.long)
        attention = torch.zeros_like(ids)
        mask_BP = torch.zeros(len(rows), longest - 1)
        for i, row in enumerate(rows):
            both = row.prompt_ids + row.completion_ids
            ids[i, : len(both)] = torch.tensor(both)
            attention[i, : len(both)] = 1
            mask_BP[i, len(row.prompt_ids) - 1 : len(both) - 1] = 1
        predicted: Predictions = self.model(
            ids.to(device), attention.to(device), 1.0, values=self.runs_critic
        )
        nats = -(predicted.logprobs_BP * mask_BP.to(device)).sum() / max(1.0, tokens)
        sums.imitation_loss += float(nats.detach())
        # The loss does not use the critic's values. They enter times 0, because DDP expects that
        # every parameter gets a gradient.
        return self.config.imitation_coefficient * nats + 0.0 * predicted.values_BP.sum()


def _generator(key: str) -> torch.Generator:
    """A generator that depends only on the text, so it is the same on every process."""
    digest = hashlib.blake2b(key.encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))
