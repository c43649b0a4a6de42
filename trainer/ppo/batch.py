"""Rollouts as tensors. Shapes as in trainer/ppo/advantages.py: B solutions, L tokens, P = L - 1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from trainer.rollouts.collect import Rollout


@dataclass(frozen=True, kw_only=True)
class PPOBatch:
    """`rewards_BP` holds each step's reward at its last token, `discount_BP` the step discount
    there and 1 elsewhere, `engine_BP` the log-probabilities of another engine that sampled, NaN
    where none did. The rest is filled in as it becomes known, zeros before."""

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
        """These rows, cut to the longest of them."""
        picked = {f.name: getattr(self, f.name)[index] for f in fields(self)}
        length = int(picked["attention_mask"].sum(1).max())
        for f in fields(self):
            is_token = f.name in ("input_ids", "attention_mask")
            picked[f.name] = picked[f.name][:, : length if is_token else length - 1]
        return PPOBatch(**picked)

    def with_columns(self, **columns: Tensor) -> PPOBatch:
        return replace(self, **columns)


def make_batch(
    rollouts: Sequence[Rollout], pad_token_id: int, step_discount: float, device: torch.device
) -> PPOBatch:
    """Raises ValueError for no rollouts and for an empty one."""
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
        mask_BP[i, start - 1 : len(ids) - 1] = 1
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
    """An order of one process's `rows` rollouts, `samples` of each of its problems, which cut into
    equal `parts` makes the cycle's minibatches. Of every problem each gets as many samples, or
    where their number is no multiple of `parts`, whole blocks of problems are shuffled: the same on
    every process, so a minibatch holds the same rollouts for any number of processes."""
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
    """Row indices in order, `size` at a time."""
    yield from torch.arange(count).split(size)


def pad_columns(parts: Sequence[Tensor], width: int) -> Tensor:
    """(B, width) from rows of several widths, padded with zeros on the right."""
    return torch.cat([torch.nn.functional.pad(p, (0, width - p.shape[1])) for p in parts])
