"""Process reward model: a token-classification model that is read at the last token of every step.

It has two classes (0 incorrect, 1 correct). The process reward of a step is P = softmax([l0 / T,
l1 / T + b])[1]. This is the estimated probability that the solution will be correct when it
continues from here. T and b are the calibration (rewards/models/calibration.py) in the model's
config. Without calibration, T = 1 and b = 0. The same code reads PRMs trained by TRL. transformers'
own pipelines read the same folder, with T = 1 and b = 0.
"""

# torch declares no type of what `tolist` gives.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from data.flops import flop_model
from data.progress import BatchProgress
from data.types import ModelUsage
from rewards.models.bit_identity import batches_by_length, use_plain_attention_on_cpu
from rewards.models.calibration import bias_of, temperature_of
from rewards.models.position_reader import PositionReader, check_step_ends
from rewards.models.prefix_reader import PrefixReader


class ProcessRewardModel:
    """Implements `rewards.base.RewardModel`. `flops(start, end)` gives the FLOPs of one sequence's
    forward pass. Raises ValueError when the model does not have the two classes."""

    def __init__(
        self,
        model: Any,
        pad_token_id: int,
        flops: Callable[[int, int], float],
        max_rows: int = 512,
        prefixes: PrefixReader | None = None,
    ) -> None:
        if model.config.num_labels != 2:
            raise ValueError(
                f"the reward model has num_labels={model.config.num_labels}; "
                "it must have 2 (incorrect, correct)"
            )
        labels = {int(i): str(name).lower() for i, name in model.config.id2label.items()}
        if labels not in ({0: "incorrect", 1: "correct"}, {0: "label_0", 1: "label_1"}):
            raise ValueError(
                f"the reward model's labels are {labels}; they must be 0: incorrect, 1: correct "
                "(or have no names, which means the same)"
            )
        self.model = model.eval()
        use_plain_attention_on_cpu(model)
        self.temperature = temperature_of(model.config)
        self.bias = bias_of(model.config)
        self._reader = PositionReader(self._read, pad_token_id, flops, max_rows=max_rows)
        self._prefixes = prefixes

    @property
    def padding_positions(self) -> int:
        """The number of padding positions that went through the model."""
        read = self._prefixes.padding_positions if self._prefixes else 0
        return self._reader.padding_positions + read

    def keep_prefixes(self, mib: int, *, bit_identical: bool) -> None:
        """Keep `mib` MiB of keys and values (0: none), for a model that was made to read prefixes.
        Raises the errors of `PrefixReader`."""
        assert self._prefixes is not None
        self._prefixes = PrefixReader(
            self.model,
            self._prefixes.pad_token_id,
            mib=mib,
            bit_identical=bit_identical,
            max_rows=self._prefixes.max_rows,
        )

    def share_prefixes(self, reader: PrefixReader) -> None:
        """Keep keys and values together with a model that has the same trunk (`same_trunk`)."""
        assert self._prefixes is not None
        self._prefixes.kept = reader.kept

    @property
    def keeps_prefixes(self) -> bool:
        """Whether a sequence costs only what follows its beginning that was scored before."""
        return self._prefixes is not None and self._prefixes.kept is not None

    @property
    def loaded_positions(self) -> int:
        """Positions whose keys and values were taken from memory instead of the model."""
        return self._prefixes.loaded_positions if self._prefixes else 0

    def prefix_flops(self, length: int) -> float:
        return self._reader.flops(0, length) if self._prefixes else 0.0

    def score(
        self, sequences: Sequence[Sequence[int]], step_ends: Sequence[Sequence[int]]
    ) -> tuple[list[list[float]], list[ModelUsage]]:
        """Returns P(correct) at each step end, in [0, 1], and the usage of each sequence, in input
        order.

        Raises ValueError when a sequence has no step end, or one outside the sequence.
        """
        if self._prefixes is None:
            return self._reader.score(sequences, step_ends)
        check_step_ends(sequences, step_ends)
        scores = self._scores(sequences, step_ends, self._prefixes)
        lengths = [len(sequence) for sequence in sequences]
        return scores, self._reader.usage(lengths, [len(ends) for ends in step_ends])

    def read(self, sequences: Sequence[Sequence[int]], step_ends: Sequence[Sequence[int]]) -> None:
        """Keep the keys and values of sequences, and the scores at their step ends, if there are
        any, for later calls of `score`. Only for a model that keeps prefixes."""
        assert self._prefixes is not None
        self._scores(sequences, step_ends, self._prefixes)

    def _scores(
        self,
        sequences: Sequence[Sequence[int]],
        step_ends: Sequence[Sequence[int]],
        prefixes: PrefixReader,
    ) -> list[list[float]]:
        scores: list[list[float]] = [[] for _ in sequences]
        lengths = [len(sequence) for sequence in sequences]
        progress = BatchProgress("scored sequences", len(lengths))
        for batch in batches_by_length(lengths, [1] * len(lengths), self._reader.max_rows):
            found = self._score_new(
                [sequences[i] for i in batch], [step_ends[i] for i in batch], prefixes
            )
            for i, row in zip(batch, found, strict=True):
                scores[i] = [row[end] for end in step_ends[i]]
            progress.add(len(batch), sum(lengths[i] for i in batch))
        return scores

    @torch.inference_mode()
    def _score_new(
        self,
        sequences: Sequence[Sequence[int]],
        step_ends: Sequence[Sequence[int]],
        prefixes: PrefixReader,
    ) -> list[list[float]]:
        """P(correct) at every position of each sequence; NaN at kept ones that are no step end.
        What goes through the model begins at the first position that is not kept, or at the first
        step end that only the policy has read."""
        entries, kept = prefixes.known(sequences), prefixes.kept
        scores: list[list[float]] = [
            kept.numbers[of_row].tolist() if kept and of_row else [] for of_row in entries
        ]
        for i, ends in enumerate(step_ends):
            unknown = [end for end in ends if end < len(scores[i]) and math.isnan(scores[i][end])]
            if unknown:
                entries[i], scores[i] = entries[i][: min(unknown)], scores[i][: min(unknown)]

        def see(rows: Sequence[int], starts: Sequence[int], output: Any) -> None:
            correct: list[list[float]] = self._correct(output.logits).tolist()
            for row, start, of_row in zip(rows, starts, correct, strict=True):
                scores[row] += of_row[: len(sequences[row]) - start]

        prefixes.read(sequences, entries, see=see)
        if kept:
            for sequence, of_row in zip(sequences, scores, strict=True):
                found = kept.find(sequence)
                score_N = torch.tensor(of_row[: len(found)])
                scored_N = ~torch.isnan(score_N)
                kept.numbers[torch.tensor(found)[scored_N]] = score_N[scored_N]
        return scores

    def _read(
        self, ids_RL: Tensor, mask_RL: Tensor, step_ends: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        device = self.model.device
        logits_RLC = self.model(
            input_ids=ids_RL.to(device), attention_mask=mask_RL.to(device)
        ).logits
        correct_RL = self._correct(logits_RLC)
        return [[float(correct_RL[i, end]) for end in ends] for i, ends in enumerate(step_ends)]

    def _correct(self, logits_RLC: Tensor) -> Tensor:
        scaled_RLC = logits_RLC.float() / self.temperature
        scaled_RLC[..., 1] += self.bias
        return torch.softmax(scaled_RLC, dim=-1)[..., 1].cpu()


def process_reward_model(
    model: Any, pad_token_id: int, *, max_rows: int = 512
) -> ProcessRewardModel:
    """A process reward model from a token-classification model of a decoder. Its FLOPs follow from
    the sizes of the model."""
    use_plain_attention_on_cpu(model.eval())
    prefixes = PrefixReader(
        model,
        pad_token_id,
        mib=0,
        bit_identical=True,
        max_rows=max_rows,
    )
    return ProcessRewardModel(
        model, pad_token_id, flop_model(model).forward, max_rows=max_rows, prefixes=prefixes
    )
