"""Rewritings and near-misses of every published answer: a minute of computer algebra."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.slow
RULES = Path(__file__).resolve().parents[1] / "unit/rewards/verifiers/test_math_rewritings.py"


@pytest.fixture(scope="module")
def rewritings() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rewritings", RULES)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.usefixtures("published_data")
def test_every_rewriting_of_any_answer_is_correct(rewritings: ModuleType) -> None:
    rewritings.assert_rewritings_are_correct(rewritings.gsm8k() + rewritings.math500())


@pytest.mark.usefixtures("published_data")
def test_no_near_miss_of_any_answer_is_correct(rewritings: ModuleType) -> None:
    rewritings.assert_near_misses_are_wrong(rewritings.gsm8k() + rewritings.math500())
