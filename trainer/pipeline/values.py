"""Named values of a pipeline's recipe, and stages that run only for some of these values.

    values: {learner: expert_iteration, cycles: 60}
    stages:
      - {name: ppo, when: {learner: ppo}, args: {cycles: $cycles}, ...}
      - {name: evaluate, args: {policies: ["{sft}", "{round_1}", "{ppo}"]}, ...}

`$cycles`, as a whole argument or as an item of a list or mapping, stands for the value `cycles`. A
stage with `when` is part of the run if every value that `when` names equals the given value, or is
in the given list. An item of a list that stands for a left-out stage is left out too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from data.settings import suggestion

REFERENCE = re.compile(r"\$(\w+)")


def choose_stages(
    rows: Sequence[dict[str, Any]], values: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The rows of the stages that are part of the run, without `when` and with their values filled
    in. Also the reason for each left-out stage, by its name.

    Raises ValueError for an unknown name of a value, with the nearest name. Also raises ValueError
    if stages depend on a value but none runs for its present setting, with the settings that some
    stage runs for.
    """
    _check_choices(rows, values)
    kept: list[dict[str, Any]] = []
    left_out: dict[str, str] = {}
    for row in rows:
        when = row.get("when") or {}
        unmet = [name for name, wanted in when.items() if values[name] not in _options(wanted)]
        if unmet:
            left_out[row["name"]] = f"{unmet[0]} is {values[unmet[0]]!r}"
        else:
            kept.append({key: value for key, value in row.items() if key != "when"})
    left_out = {n: why for n, why in left_out.items() if n not in {row["name"] for row in kept}}
    for row in kept:
        args = row["args"].items()
        row["args"] = {key: _filled(row["name"], arg, values, left_out) for key, arg in args}
    return kept, left_out


def _check_choices(rows: Sequence[dict[str, Any]], values: Mapping[str, Any]) -> None:
    options: dict[str, list[Any]] = {}
    for row in rows:
        when = row.get("when") or {}
        if not isinstance(when, dict):
            raise ValueError(f"when of stage {row['name']!r} must be a mapping, got {when!r}")
        for name, wanted in when.items():
            _check_name(row["name"], name, values)
            options.setdefault(name, []).extend(_options(wanted))
    for name, allowed in options.items():
        if values[name] not in allowed:
            said = ", ".join(map(str, dict.fromkeys(allowed)))
            raise ValueError(f"{name} is {values[name]!r}; allowed: {said}")


def _check_name(stage: str, name: str, values: Mapping[str, Any]) -> None:
    if name not in values:
        hint = f"; {suggestion(name, values)}" if values else ""
        raise ValueError(f"stage {stage!r} names the value {name!r}, which is not in values{hint}")


def _options(wanted: Any) -> list[Any]:
    return wanted if isinstance(wanted, list) else [wanted]


def _filled(
    stage: str, argument: Any, values: Mapping[str, Any], left_out: Mapping[str, str]
) -> Any:
    if isinstance(argument, list):
        gone = [f"{{{name}}}" for name in left_out]
        return [_filled(stage, item, values, left_out) for item in argument if item not in gone]
    if isinstance(argument, dict):
        items = argument.items()
        return {key: _filled(stage, item, values, left_out) for key, item in items}
    found = REFERENCE.fullmatch(argument) if isinstance(argument, str) else None
    if found is None:
        return argument
    _check_name(stage, found[1], values)
    return values[found[1]]
