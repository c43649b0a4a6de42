"""The verifier and the length limits of solutions to a folder's problems."""

from __future__ import annotations

from pathlib import Path

from trainer.runtime.manifests import MANIFEST, read_json

# The values that a recipe may leave out, by the task of the data stage. A limit that depends on the
# model and the prompt has no entry: the recipe must give it.
DEFAULTS_OF_TASK: dict[str, dict[str, str]] = {
    "countdown": {"verifier": "countdown", "max_new_tokens": "64"},
    "countdown_thoughts": {"verifier": "countdown"},
    "math": {"verifier": "math"},
    "code": {"verifier": "code"},
    "reasoning_gym": {"verifier": "reasoning_gym"},
    "word_problems": {"verifier": "math"},
}

KEYS = ("verifier", "max_new_tokens")
# Stages whose demonstrations think: the limit of solutions without a thought is not theirs.
THINKING = ("distil", "tree_thoughts")


def solution_defaults(folder: Path) -> dict[str, str]:
    """Recipe keys and their values, from the folder's manifest: from the stage's own recipe, or
    else from the task of a data stage, or else from the folder of its problems. Empty if the folder
    has no manifest, for example a folder of the user's files."""
    manifest = read_json(folder / MANIFEST) or {}
    recipe, inputs = manifest.get("recipe", {}), manifest.get("inputs", {})
    if "task" in recipe:
        known = DEFAULTS_OF_TASK.get(recipe["task"], {})
    else:
        known = solution_defaults(folder / inputs["data"]["source"]) if "data" in inputs else {}
    if manifest.get("stage") in THINKING:
        known = {key: value for key, value in known.items() if key != "max_new_tokens"}
    return known | {key: str(recipe[key]) for key in KEYS if recipe.get(key) is not None}
