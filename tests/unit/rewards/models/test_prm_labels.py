"""A reward model whose labels say something else is refused, not read the wrong way round."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import LlamaForTokenClassification

from rewards.models.prm import process_reward_model


def reward_model(tiny_policy: Any, labels: dict[int, str]) -> Any:
    config = tiny_policy[0].config.__class__.from_dict(tiny_policy[0].config.to_dict())
    config.id2label = labels
    config.label2id = {name: i for i, name in labels.items()}
    return LlamaForTokenClassification(config)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({0: "correct", 1: "incorrect"}, "they must be 0: incorrect, 1: correct"),
        ({0: "O", 1: "B-PER"}, "they must be 0: incorrect, 1: correct"),
        ({0: "a", 1: "b", 2: "c"}, "num_labels=3; it must have 2"),
    ],
)
def test_wrong_labels_are_refused(tiny_policy: Any, labels: dict[int, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        process_reward_model(reward_model(tiny_policy, labels), 0)


@pytest.mark.parametrize("labels", [{0: "incorrect", 1: "correct"}, {0: "LABEL_0", 1: "LABEL_1"}])
def test_ours_and_unnamed_labels_are_read(tiny_policy: Any, labels: dict[int, str]) -> None:
    model = process_reward_model(reward_model(tiny_policy, labels), 0)
    scores, _ = model.score([[3, 4, 5]], [[1, 2]])
    assert all(0 < score < 1 for score in scores[0])
