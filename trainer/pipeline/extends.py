"""A recipe that is another one with some of its settings changed:

    extends: recipes/countdown/demo.yaml
    run_name: countdown-smoke
    output_dir: outputs/countdown-smoke
    set:
      sft: {max_steps: 30}

Its own keys stand in the place of the other's, `set` in the place of what the stages say. One level
only: what a run does stands in two files at most.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data.settings import read_yaml_mapping

EXTENDING = ("extends", "set")


def with_base(values: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[str, Any]]]:
    """A recipe's values over those of the one that it extends, and its settings of stages as
    ("stage.key", value). Raises ValueError for stages beside `extends`, for `set` without it or of
    another form, and for a base that extends a recipe itself."""
    base_path, changes = values.get("extends"), values.get("set")
    if base_path is None:
        if changes is not None:
            raise ValueError("set changes the stages of the recipe that extends names; name one")
        return values, []
    if "stages" in values:
        raise ValueError(f"stages are those of {base_path!r}, which is extended: use set")
    for key in ("run_name", "output_dir"):
        if key not in values:
            raise ValueError(f"a recipe that extends another needs its own {key}")
    base = read_yaml_mapping(Path(base_path))
    if "extends" in base:
        raise ValueError(f"{base_path!r} extends a recipe itself: extend that one")
    changes = changes or {}
    if not isinstance(changes, dict) or not all(isinstance(v, dict) for v in changes.values()):
        raise ValueError(f"set must be a mapping of settings by stage, got {changes!r}")
    own = {key: value for key, value in values.items() if key not in EXTENDING}
    settings = [(f"{stage}.{key}", v) for stage, row in changes.items() for key, v in row.items()]
    return base | own, settings
