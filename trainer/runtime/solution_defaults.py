"""How solutions of a folder's problems are judged, and how long they may be."""

from __future__ import annotations

from pathlib import Path

from trainer.runtime.manifests import MANIFEST, read_json

# What a recipe may leave out, by the task of the data stage. A limit that depends on the model and
# the prompt has no entry: the recipe must give it.
DEFAULTS_OF_TASK: dict[str, dict[str, str]] = {
    "countdown": {"verifier": "countdown", "max_new_tokens": "64"},
    "math": {"verifier": "math"},
    "code": {"verifier": "code"},
    "reasoning_gym": {"verifier": "reasoning_gym"},
}


def solution_defaults(folder: Path) -> dict[str, str]:
    """Recipe keys and their values, from the folder's manifest: by the task of the data stage, or
    the verifier of a stage that searched. Empty where the folder has none, as one's own files."""
    recipe = (read_json(folder / MANIFEST) or {}).get("recipe", {})
    if "task" in recipe:
        return DEFAULTS_OF_TASK.get(recipe["task"], {})
    return {"verifier": recipe["verifier"]} if "verifier" in recipe else {}
