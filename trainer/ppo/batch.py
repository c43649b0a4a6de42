"""Rollouts as tensors. B solutions, L tokens, P = L - 1 positions; see
trainer/ppo/advantages.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from trainer.rollouts.collect import Rollout


@dataclass(frozen=True, kw_only=True)
class PPOBatch:
    """The tensors of a batch. `rewards_BP` holds each step's reward at the step's last token.
    `discount_BP` holds the step discount there, and 1 elsewhere. `engine_BP` holds the
    log-probabilities from another engine if that engine sampled, else NaN. The remaining tensors
    are zeros until they are computed."""

    input_ids: Tensor  # (B, L)
    attention_mask: Tensor  # (B, L)
    mask_BP: Tensor
    rewards_BP: Tensor
    discount_BP: Tensor
    engine_BP: Tensor
    logprobs_BP: Tensor
    reference_BP: Tensor
    values_BP: Tensor
    advantages_BP: Tensor
    returns_BP: Tensor

    def __len__(self) -> int:
        return len(self.input_ids)

    def rows(self, index: Tensor) -> PPOBatch:
        """The rows at `index`, cut to the length of the longest of them."""
        picked = {f.name: getattr(self, f.name)[index] for f in fields(self)}
        length = int(picked["attention_mask"].sum(1).max())
        for f in fields(self):
            is_token = f.name in ("input_ids", "attention_mask")
            picked[f.name] = picked[f.name][:, : length if is_token else length - 1]
        return PPOBatch(**picked)

    def with_columns(self, **columns: Tensor) -> PPOBatch:
        return replace(self, **columns)


def make_batch(
    rollouts: Sequence[Rollout],
    pad_token_id: int,
    step_discount: float,
    device: torch.device,
    *,
    mask_truncated: bool = False,
) -> PPOBatch:
    """The rollouts as a batch. With `mask_truncated`, the mask of a truncated rollout is 0, so it
    has no part in the loss (overlong filtering, DAPO 2503.14476, section 3.4).

    Raises ValueError if there are no rollouts, or one has no tokens.
    """
    if not rollouts:
        raise ValueError("there is no rollout to learn from")
    for rollout in rollouts:
        if not rollout.response_ids:
            raise ValueError(f"problem {rollout.problem_id}: a rollout without tokens")
    longest = max(len(r.prompt_ids) + len(r.response_ids) for r in rollouts)
    shape = (len(rollouts), longest)
    input_ids = torch.full(shape, pad_token_id, dtype=torch.long)
    attention_mask = torch.zeros(shape, dtype=torch.long)
    mask_BP = torch.zeros(len(rollouts), longest - 1)
    rewards_BP, discount_BP = torch.zeros_like(mask_BP), torch.ones_like(mask_BP)
    engine_BP = torch.full_like(mask_BP, torch.nan)
    for i, rollout in enumerate(rollouts):
        start = len(rollout.prompt_ids)
        ids = rollout.prompt_ids + rollout.response_ids
        input_ids[i, : len(ids)] = torch.tensor(ids)
        attention_mask[i, : len(ids)] = 1
        mask_BP[i, start - 1 : len(ids) - 1] = not (mask_truncated and rollout.truncated)
        if rollout.engine_logprobs:
            engine_BP[i, start - 1 : len(ids) - 1] = torch.tensor(rollout.engine_logprobs)
        for end, reward in zip(rollout.step_ends, rollout.rewards, strict=True):
            rewards_BP[i, start - 1 + end] = reward
            discount_BP[i, start - 1 + end] = step_discount
    zeros = torch.zeros_like(mask_BP)
    batch = PPOBatch(
        input_ids=input_ids,
        attention_mask=attention_mask,
        mask_BP=mask_BP,
        rewards_BP=rewards_BP,
        discount_BP=discount_BP,
        engine_BP=engine_BP,
        logprobs_BP=zeros,
        reference_BP=zeros,
        values_BP=zeros,
        advantages_BP=zeros,
        returns_BP=zeros,
    )
    return PPOBatch(**{f.name: getattr(batch, f.name).to(device) for f in fields(batch)})


def minibatch_order(rows: int, samples: int, parts: int, generator: torch.Generator) -> Tensor:
    """An order of one process's `rows` rollouts, which are `samples` of each of its problems. Cut
    into equal `parts`, the order gives the minibatches of the cycle. If `samples` is a multiple of
    `parts`, every minibatch gets the same number of samples of each problem. Otherwise whole blocks
    of problems are shuffled. Every process shuffles in the same way, so a minibatch holds the same
    rollouts for any number of processes."""
    problems = rows // samples
    if samples % parts == 0:
        shuffled = torch.randperm(samples, generator=generator) // (samples // parts)
        part_of = shuffled.expand(problems, -1)
    else:
        blocks = torch.arange(problems) // (problems // parts)
        permutations = [torch.randperm(parts, generator=generator) for _ in range(samples)]
        part_of = torch.stack([permutation[blocks] for permutation in permutations], dim=1)
    return torch.argsort(part_of.flatten(), stable=True)


def micro_batches(count: int, size: int) -> Iterator[Tensor]:
    """Row indices in order, in groups of `size`."""
    yield from torch.arange(count).split(size)


def pad_columns(parts: Sequence[Tensor], width: int) -> Tensor:
    """Joins rows of several widths into shape (B, width), padded with zeros on the right."""
    return torch.cat([torch.nn.functional.pad(p, (0, width - p.shape[1])) for p in parts])
