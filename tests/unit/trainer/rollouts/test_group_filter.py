"""Filtering of TRL's groups by hand: which groups are kept, and how their tensors are joined."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trainer.rollouts.group_filter import check_filtering, filtering_trainer, merge_rows

T = torch.tensor


class Sampler:
    """TRL's trainer as far as filtering uses it: a group's advantages by its problem's name."""

    def __init__(self, advantages: dict[str, list[float]]) -> None:
        self.advantages = advantages
        self.model = SimpleNamespace(training=True)
        self.num_generations = 2
        self.processing_class = SimpleNamespace(pad_token_id=9)
        self.accelerator = SimpleNamespace(
            num_processes=1, process_index=0, device="cpu", gather=lambda tensor: tensor
        )
        self.state = SimpleNamespace(global_step=3)
        self._metrics: dict[str, Any] = {"train": {"sampled_problems": [], "filtered_share": []}}
        self.asked: list[list[str]] = []

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        names = [row["problem_id"] for row in inputs]
        self.asked.append(names)
        width = 1 + len(self.asked)  # later outputs are wider
        ids = T([[ord(name)] * width for name in names])
        mask = torch.ones_like(ids)
        found = [value for name in names[::2] for value in self.advantages[name]]
        return {
            "prompt_ids": ids, "prompt_mask": mask, "completion_ids": ids, "completion_mask": mask,
            "advantages": T(found), "num_items_in_batch": mask.sum(),
        }  # fmt: skip


def reward_of(names: str) -> Any:
    flops = SimpleNamespace(forward=lambda start, length: 10.0 * length)
    return SimpleNamespace(
        problems={name: SimpleNamespace(id=name, prompt=name) for name in names},
        engine=SimpleNamespace(flops=flops),
        unlearnt_positions=0,
        unlearnt_flops=0.0,
    )


def run(advantages: dict[str, list[float]], batch: str, rounds: int) -> tuple[Any, Any, Any]:
    reward = reward_of("".join(advantages))
    trainer = filtering_trainer(Sampler, reward, rounds, 7)(advantages)
    inputs = [{"prompt": name, "problem_id": name} for name in batch for _ in range(2)]
    return trainer, reward, trainer._generate_and_score_completions(inputs)


FLAT, MIXED = [0.0, 1e-5], [1.0, -1.0]


def test_flat_groups_are_replaced_by_hand() -> None:
    trainer, reward, output = run({"a": FLAT, "b": MIXED, "c": MIXED}, "ab", rounds=4)
    assert trainer.asked == [["a", "a", "b", "b"], ["c", "c"]]
    assert output["advantages"].tolist() == [1.0, -1.0, 1.0, -1.0]
    b, c, pad = ord("b"), ord("c"), 9
    assert output["prompt_ids"].tolist() == [[pad, b, b]] * 2 + [[c, c, c]] * 2
    assert output["completion_ids"].tolist() == [[b, b, pad]] * 2 + [[c, c, c]] * 2
    assert output["prompt_mask"].tolist() == [[0, 1, 1]] * 2 + [[1, 1, 1]] * 2
    assert int(output["num_items_in_batch"]) == 2 * 2 + 2 * 3
    # Two samples of a: 2 prompt tokens and 2 sampled tokens each.
    assert (reward.unlearnt_positions, reward.unlearnt_flops) == (8, 80.0)
    assert trainer._metrics["train"] == {
        "sampled_problems": [3.0], "filtered_share": [pytest.approx(1 / 3)],
    }  # fmt: skip


def test_rounds_are_bounded_and_flat_groups_fill_up() -> None:
    many = {"a": FLAT, "b": FLAT, **dict.fromkeys("cdefgh", FLAT)}
    trainer, _, output = run(many, "ab", rounds=2)
    assert [len(names) for names in trainer.asked] == [4, 4, 4]
    assert len({name for names in trainer.asked for name in names}) == 6  # no problem twice
    assert output["prompt_ids"][:, -1].tolist() == [ord("a")] * 2 + [ord("b")] * 2
    trainer, _, _ = run({"a": MIXED, "b": MIXED, "c": MIXED}, "ab", rounds=2)
    assert len(trainer.asked) == 1


def test_what_is_measured_is_not_filtered() -> None:
    trainer = filtering_trainer(Sampler, reward_of("ab"), 2, 7)({"a": FLAT, "b": FLAT})
    trainer.model.training = False
    inputs = [{"prompt": "a", "problem_id": "a"}] * 2
    assert len(trainer._generate_and_score_completions(inputs)["advantages"]) == 2
    assert len(trainer.asked) == 1


def test_scalars_and_vectors_are_joined() -> None:
    outputs = [{"v": T([1.0, 2.0]), "n": T(3)}, {"v": T([4.0, 5.0]), "n": T(6)}]
    merged = merge_rows(outputs, [T([1]), T([], dtype=torch.long)], 0)
    assert merged.keys() == {"v"} and merged["v"].tolist() == [2.0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scale_rewards": "batch"}, "scale_rewards group or none"),
        ({"normalize_advantages": True}, "normalize_advantages false"),
        ({"steps_per_generation": 3}, "its 3 samples per generation must be a multiple"),
    ],
)
def test_what_filtering_needs_is_said(changes: dict[str, Any], said: str) -> None:
    plain = {"per_device_train_batch_size": 1, "steps_per_generation": 4, "num_generations": 2}
    check_filtering(1, SimpleNamespace(**plain))
    check_filtering(0, SimpleNamespace(**plain, scale_rewards="batch"))
    with pytest.raises(ValueError, match=said):
        check_filtering(1, SimpleNamespace(**(plain | changes)))
