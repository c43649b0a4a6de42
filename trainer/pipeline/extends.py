"""A recipe can extend another recipe and change some of its settings:

    extends: recipes/countdown/demo.yaml
    run_name: countdown-smoke
    output_dir: outputs/countdown-smoke
    set:
      learner: ppo
      sft: {max_steps: 30}

There is one way to change a recipe: `set` takes what `--set` takes on the command line. That is a
setting of a stage, or one of the recipe's `values`. The command line overrides `set`. `run_name`,
`output_dir`, `seed` and `accelerate_config` are keys of the file, as in any other recipe. A base
recipe must not extend another recipe, so two files describe the whole run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data.settings import read_yaml_mapping
from trainer.pipeline.recipe_keys import EXTENDING_KEYS


def with_base(values: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[str, Any]]]:
    """The recipe's keys merged over those of its base, and the pairs that it sets: ("stage.key",
    value) or ("name", value).

    Raises ValueError for `stages` or `values` next to `extends`, for `set` without `extends` or in
    another form, and for a base that itself extends a recipe."""
    base_path, changes = values.get("extends"), values.get("set")
    if base_path is None:
        if changes is not None:
            raise ValueError("set needs extends: it changes the recipe that extends names")
        return values, []
    for key in ("stages", "values"):
        if key in values:
            raise ValueError(f"{key} must come from {base_path!r}, which extends names: use set")
    for key in ("run_name", "output_dir"):
        if key not in values:
            raise ValueError(f"a recipe that extends another recipe must set {key}")
    base = read_yaml_mapping(Path(base_path))
    if "extends" in base:
        raise ValueError(f"{base_path!r} itself extends a recipe: extend that recipe instead")
    changes = changes or {}
    if not isinstance(changes, dict):
        raise ValueError(f"set must be a mapping, got {changes!r}")
    own = {key: value for key, value in values.items() if key not in EXTENDING_KEYS}
    settings: list[tuple[str, Any]] = []
    if "accelerate_config" in own:  # in place of that of each stage, too
        settings.append(("accelerate_config", own["accelerate_config"]))
    for target, value in changes.items():
        if isinstance(value, dict):
            settings += [(f"{target}.{key}", v) for key, v in value.items()]
        else:
            settings.append((str(target), value))
    return base | own, settings
