"""The order of rows: the longest ones first, and updates sorted by length."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from data.types import StepLabels
from trainer.models.loading import reward_model_from_policy, save_model
from trainer.reward_models.step_labels import train_prm
from trainer.training.row_order import LONGEST_FIRST, OrderedRows, RowOrder

LENGTHS = [3, 9, 4, 1, 8, 5, 7, 2, 6, 9]


def test_two_updates_take_the_longest_in_turn() -> None:
    sampler = OrderedRows(LENGTHS, 2, 1, LONGEST_FIRST)
    order = list(sampler)
    assert sorted(order) == list(range(10)) and len(sampler) == 10
    # 9, 9, 8, 7 dealt in turn: 9 and 8 to the first update, 9 and 7 to the second.
    assert [LENGTHS[row] for row in order[:4]] == [9, 8, 9, 7]
    shuffled = torch.randperm(10, generator=torch.Generator().manual_seed(1)).tolist()
    assert order[4:] == [row for row in shuffled if row not in order[:4]]


def test_later_epochs_are_shuffled_as_a_whole() -> None:
    sampler = OrderedRows(LENGTHS, 2, 1, LONGEST_FIRST)
    sampler.set_epoch(3)
    generator = torch.Generator().manual_seed(4)
    assert list(sampler) == torch.randperm(10, generator=generator).tolist()


def test_the_order_is_a_function_of_seed_and_update() -> None:
    orders = [
        list(OrderedRows(LENGTHS, size, seed, LONGEST_FIRST))
        for size, seed in ((2, 1), (2, 1), (2, 2))
    ]
    assert orders[0] == orders[1] != orders[2]
    few = list(OrderedRows([1, 2, 3], 4, 1, LONGEST_FIRST))
    assert [LENGTHS[i] for i in few] and sorted(few) == [0, 1, 2]


def test_updates_are_sorted_and_keep_their_rows() -> None:
    plain, ordered = (
        list(OrderedRows(LENGTHS, 4, 1, RowOrder(longest_first=False, sorted_updates=by_length)))
        for by_length in (False, True)
    )
    for start in (0, 4, 8):  # the last update has two rows
        rows = ordered[start : start + 4]
        assert set(rows) == set(plain[start : start + 4])
        assert [LENGTHS[row] for row in rows] == sorted(
            (LENGTHS[row] for row in rows), reverse=True
        )
    both = list(OrderedRows(LENGTHS, 2, 1, RowOrder(sorted_updates=True)))
    assert [LENGTHS[row] for row in both[:4]] == [9, 8, 9, 7]


def train(tiny_policy: Any, folder: Path, batch: int, accumulated: int) -> tuple[Any, list[int]]:
    """A reward model trained for 6 updates of 4 of 20 rows, so into the second epoch, and the
    lengths of the rows in the order that it saw them."""
    from transformers import TrainingArguments

    save_model(*tiny_policy, folder / "start")
    torch.manual_seed(3)
    model = reward_model_from_policy(str(folder / "start"))
    rows = [
        StepLabels(
            problem_id="p", prompt="?", prompt_ids=(5,) * (n - 1), completions=("a",),
            completion_ids=((7,),), labels=(1.0,), counts=(8,), standard_errors=(0.1,),
        )
        for n in range(2, 22)
    ]  # fmt: skip
    seen: list[int] = []
    forward = model.forward

    def watched(*args: Any, **kwargs: Any) -> Any:
        seen.extend(kwargs["attention_mask"].sum(1).tolist())
        return forward(*args, **kwargs)

    model.forward = watched
    train_prm(
        model, tiny_policy[1], rows,
        TrainingArguments(
            output_dir=str(folder / "out"), max_steps=6, per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulated, use_cpu=True, report_to=[], seed=5,
            disable_tqdm=True, save_steps=1, learning_rate=1e-2,
        ),
    )  # fmt: skip
    del model.forward
    return model, seen


@pytest.mark.parametrize(("batch", "accumulated"), [(4, 1), (2, 2), (1, 4)])
def test_a_trainer_takes_them_so(
    tiny_policy: Any, tmp_path: Path, batch: int, accumulated: int
) -> None:
    """A real trainer's first updates, however their rows are dealt to micro-batches."""
    _, seen = train(tiny_policy, tmp_path, batch, accumulated)
    assert seen[:8] == [21, 19, 17, 15, 20, 18, 16, 14]
    order = torch.randperm(20, generator=torch.Generator().manual_seed(5)).tolist()
    assert seen[8:20] == [row + 2 for row in order if row + 2 < 14]
    order = torch.randperm(20, generator=torch.Generator().manual_seed(6)).tolist()
    assert seen[20:] == [row + 2 for row in order][:4]


@pytest.mark.slow
@pytest.mark.parametrize("cut_after", [1, 5])
def test_a_run_that_was_cut_off_takes_the_rows_that_are_left(
    tiny_policy: Any, tmp_path: Path, cut_after: int
) -> None:
    """In the first epoch and in the second, and ends with the same weights to the bit."""
    whole, seen = train(tiny_policy, tmp_path / "whole", 2, 2)
    checkpoint = f"out/checkpoint-{cut_after}"
    shutil.copytree(tmp_path / "whole" / checkpoint, tmp_path / "cut" / checkpoint)
    cut, rest = train(tiny_policy, tmp_path / "cut", 2, 2)
    assert rest == seen[4 * cut_after :]
    theirs = cut.state_dict()
    assert all(torch.equal(weight, theirs[name]) for name, weight in whole.state_dict().items())
