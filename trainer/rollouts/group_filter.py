"""Online filtering for GRPO and RLOO (dynamic sampling, DAPO 2503.14476, section 3.2).

A group of samples with equal rewards has no advantage. Such groups are replaced by groups of
further problems, up to a number of rounds. TRL has no place for this, so the trainer is extended at
the method that samples and scores: `_generate_and_score_completions`, a private name of TRL.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor

from trainer.rollouts.solution_reward import SolutionReward

# Rewards that are equal up to rounding have advantages of at most 1e-4 (TRL divides by 1e-4).
LEAST_ADVANTAGE = 1e-3


def check_filtering(rounds: int, arguments: Any) -> None:
    """Raises ValueError for settings under which a group's advantages depend on other groups, or a
    group is divided between processes."""
    if not rounds:
        return
    if getattr(arguments, "scale_rewards", "none") == "batch" or getattr(
        arguments, "normalize_advantages", False
    ):
        raise ValueError(
            "filter_rounds needs advantages that are scaled within a group: scale_rewards group or "
            "none, and normalize_advantages false"
        )
    rows = arguments.per_device_train_batch_size * arguments.steps_per_generation
    if rows % arguments.num_generations:
        raise ValueError(
            f"filter_rounds needs whole groups on each process: its {rows} samples per generation "
            f"must be a multiple of num_generations ({arguments.num_generations})"
        )


def filtering_trainer(trainer: Any, reward: SolutionReward, rounds: int, seed: int) -> type:
    """TRL's trainer with filtering. `reward` judges its samples, and is told which rows are not
    learnt from. The replacements depend only on the seed, the step and the batch's problems."""

    class FilteringTrainer(trainer):
        def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
            sample = super()._generate_and_score_completions
            outputs = [sample(inputs)]
            if not self.model.training:
                return outputs[0]
            size, processes = self.num_generations, self.accelerator.num_processes
            groups = len(inputs) // size
            taken = set(gather_object([row["problem_id"] for row in inputs]))
            order = [problem for id, problem in reward.problems.items() if id not in taken]
            random.Random(f"{seed} replacements {self.state.global_step}").shuffle(order)
            for _ in range(rounds):
                missing = groups - sum(int(_mixed(o["advantages"], size).sum()) for o in outputs)
                most = torch.tensor([missing], device=self.accelerator.device)
                count = min(int(self.accelerator.gather(most).max()), len(order) // processes)
                if count <= 0:
                    break
                # All processes sample equally many groups, as TRL gathers their rewards.
                own = order[self.accelerator.process_index * count :][:count]
                order = order[count * processes :]
                rows = [{"prompt": p.prompt, "problem_id": p.id} for p in own for _ in range(size)]
                outputs.append(sample(rows))
            rows_of = _kept_rows(outputs, groups, size)
            _drop(reward, outputs, rows_of)
            self._log_filtering(outputs, size)
            merged = merge_rows(outputs, rows_of, self.processing_class.pad_token_id)
            if "num_items_in_batch" in outputs[0]:
                own_tokens = merged["completion_mask"].sum()
                merged["num_items_in_batch"] = self.accelerator.gather(own_tokens).sum()
            return merged

        def _log_filtering(self, outputs: Sequence[Mapping[str, Tensor]], size: int) -> None:
            mixed = torch.cat([_mixed(output["advantages"], size) for output in outputs])
            counts = torch.tensor([len(mixed), int(mixed.sum())], device=self.accelerator.device)
            sampled, useful = self.accelerator.gather(counts).view(-1, 2).sum(0).tolist()
            self._metrics["train"]["sampled_problems"].append(float(sampled))
            self._metrics["train"]["filtered_share"].append(1 - useful / sampled)

    return FilteringTrainer


def merge_rows(
    outputs: Sequence[Mapping[str, Tensor]], rows: Sequence[Tensor], pad_token_id: int
) -> dict[str, Tensor]:
    """The rows `rows[i]` of each output in one. Prompts are padded on the left and all else on the
    right. Scalars are left out."""
    merged: dict[str, Tensor] = {}
    for name, first in outputs[0].items():
        if first.dim() == 0:
            continue
        parts = [output[name][index] for output, index in zip(outputs, rows, strict=True)]
        if first.dim() > 1:
            width = max(part.shape[1] for part in parts)
            value = pad_token_id if name.endswith("_ids") else 0
            parts = [_padded(part, width, value, left=name.startswith("prompt")) for part in parts]
        merged[name] = torch.cat(parts)
    return merged


def _padded(part: Tensor, width: int, value: int, *, left: bool) -> Tensor:
    missing = width - part.shape[1]
    sides = (missing, 0) if left else (0, missing)
    return torch.nn.functional.pad(part, sides, value=value)


def _mixed(advantages_B: Tensor, size: int) -> Tensor:
    """Whether each group has different rewards."""
    return (advantages_B.view(-1, size).abs() > LEAST_ADVANTAGE).any(1)


def _kept_rows(outputs: Sequence[Mapping[str, Tensor]], groups: int, size: int) -> list[Tensor]:
    """For each output, the rows that are learnt from: those of the first `groups` groups with
    different rewards, and then those of other groups."""
    mixed = [_mixed(output["advantages"], size) for output in outputs]
    ranked = [(i, g) for i, m in enumerate(mixed) for g in range(len(m)) if m[g]]
    ranked += [(i, g) for i, m in enumerate(mixed) for g in range(len(m)) if not m[g]]
    kept = ranked[:groups]
    device = outputs[0]["advantages"].device
    return [
        torch.tensor(
            [g * size + k for at, g in kept if at == i for k in range(size)],
            dtype=torch.long, device=device,
        )
        for i in range(len(outputs))
    ]  # fmt: skip


def _drop(
    reward: SolutionReward, outputs: Sequence[Mapping[str, Tensor]], rows: Sequence[Tensor]
) -> None:
    """Tell the reward which samples are not learnt from."""
    for output, index in zip(outputs, rows, strict=True):
        lengths = output["prompt_mask"].sum(1) + output["completion_mask"].sum(1)
        left_out = torch.ones(len(lengths), dtype=torch.bool, device=lengths.device)
        left_out[index] = False
        for length in lengths[left_out].tolist():
            reward.unlearnt_positions += length
            reward.unlearnt_flops += reward.engine.flops.forward(0, length)
