"""Whether a recipe's judge and its settings belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from search.settings import JUDGE, SearchSettings
from search.strategies.by_name import entry
from search.strategies.routed import RoutedConfig


def check_judge(configs: Sequence[Any]) -> None:
    """Checks the configs of one stage, of which one may name a `judge` and its compared
    `strategies`, and another holds the `SearchSettings`.

    Raises ValueError for an answer that a judge is to choose where none is given, and for a judge
    that chooses no answer. A router's file says itself what chooses its answers.
    """
    settings = next((c for c in configs if isinstance(c, SearchSettings)), None)
    stage = next((c for c in configs if hasattr(c, "judge")), None)
    if settings is None or stage is None:
        return
    compared = [dict(v) for v in getattr(stage, "strategies", {}).values() if _is_mapping(v)]
    chooses = settings.needs_judge or any(v.get("answer_guidance") == JUDGE for v in compared)
    routed = any(isinstance(config, RoutedConfig) for config in configs) or any(
        _is_routed(values) for values in compared
    )
    if chooses and stage.judge is None:
        raise ValueError(
            f"answer_guidance is {JUDGE!r}, but judge is not given: set judge to a reward model, "
            "or answer_guidance to another value"
        )
    if stage.judge is not None and not (chooses or routed):
        raise ValueError(
            f"judge is {stage.judge!r}, but nothing asks it: set answer_guidance to {JUDGE!r}, or "
            "leave judge out"
        )


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_routed(values: Mapping[str, Any]) -> bool:
    """Whether these are the settings of a routed strategy. Others are checked elsewhere."""
    try:
        return entry(str(values.get("strategy"))).config is RoutedConfig
    except ValueError:
        return False
