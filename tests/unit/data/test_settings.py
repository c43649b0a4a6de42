"""What an error about an unknown name says of the allowed ones."""

from __future__ import annotations

import pytest

from data.settings import did_you_mean, suggestion

KEYS = ["--max_steps", "--per_device_train_batch_size", "--tokenizer", "--seed"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("--max_stesp", "did you mean '--max_steps'?"),
        ("--device", "names that contain it: --per_device_train_batch_size"),
        ("--hidden_size", f"allowed: {', '.join(KEYS)}"),  # not '--tokenizer', nor '--seed'
        ("--colour", f"allowed: {', '.join(KEYS)}"),
    ],
)
def test_a_hint_is_similar_or_says_what_is_allowed(name: str, said: str) -> None:
    assert suggestion(name, KEYS) == said


def test_many_names_are_not_listed() -> None:
    many = [f"option_{i}" for i in range(100)]
    assert suggestion("colour", many) == "no allowed name is similar"
    assert suggestion("colour", many, "keys.md") == "no allowed name is similar; keys.md lists all"
    assert suggestion("colour", []) == "none is allowed"


def test_nothing_is_meant_by_a_name_without_a_similar_one() -> None:
    assert did_you_mean("maths", ["math", "code"]) == "did you mean 'math'? "
    assert did_you_mean("colour", ["math", "code"]) == ""
