"""A recipe that is another one with some of its settings changed:

    extends: recipes/countdown/demo.yaml
    run_name: countdown-smoke
    output_dir: outputs/countdown-smoke
    set:
      learner: ppo
      sft: {max_steps: 30}

There is one way to change a recipe: `set` takes what `--set` takes on the command line. That is
a setting of a stage, or one of the recipe's `values`. What the command line sets comes last and
holds.
`run_name`, `output_dir`, `seed` and `accelerate_config` stand in the file as in any other recipe.
Only one level is allowed, so that two files say all that a run does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data.settings import read_yaml_mapping

EXTENDING = ("extends", "set")


def with_base(values: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[str, Any]]]:
    """A recipe's keys over those of the one that it extends, and what it sets as
    ("stage.key", value) or ("name", value).

    Raises ValueError for `stages` or `values` beside `extends`, for `set` without it or of another
    form, and for a base that extends a recipe itself."""
    base_path, changes = values.get("extends"), values.get("set")
    if base_path is None:
        if changes is not None:
            raise ValueError("set changes the stages of the recipe that extends names; name one")
        return values, []
    for key in ("stages", "values"):
        if key in values:
            raise ValueError(f"{key} are those of {base_path!r}, which is extended: use set")
    for key in ("run_name", "output_dir"):
        if key not in values:
            raise ValueError(f"a recipe that extends another needs its own {key}")
    base = read_yaml_mapping(Path(base_path))
    if "extends" in base:
        raise ValueError(f"{base_path!r} extends a recipe itself: extend that one")
    changes = changes or {}
    if not isinstance(changes, dict):
        raise ValueError(f"set must be a mapping, got {changes!r}")
    own = {key: value for key, value in values.items() if key not in EXTENDING}
    settings: list[tuple[str, Any]] = []
    for target, value in changes.items():
        if isinstance(value, dict):
            settings += [(f"{target}.{key}", v) for key, v in value.items()]
        else:
            settings.append((str(target), value))
    return base | own, settings
