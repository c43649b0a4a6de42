"""Makes the page of all recipe keys from the config classes and the documentation of their
fields, and the page of all stages from their registry."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

from data.settings import field_docs
from trainer.runtime.solution_defaults import KEYS
from trainer.runtime.stage_registry import StageEntry

OUR_PACKAGES = ("data", "rewards", "search", "trainer")
INTRODUCTION = """# Every key of every recipe
`make docs` makes this page from the code, and a test checks that it matches the code. A run of
several stages has the keys of the first three tables. All other keys belong to a launcher: they may
stand in the launcher's YAML file or on its command line, as `--key value`. Keys without a default
are required.

If `verifier` or `max_new_tokens` is not given, the value comes from the data folder: from the
`verifier` of the data stage, else from its task.
The report takes it from the folder of the evaluation, the export from the trees, and `solve.py`
from the model. If that folder does not record a value, the key is required.
"""
STAGES_INTRODUCTION = """# Stages
`make docs` makes this page from the code, and a test checks that it matches the code. `reads` are
keys that name folders, files or models. Every stage also writes `manifest.json`. The formats are on
the page of [files](files.md), all keys on the page of [keys](keys.md).

| stage | launcher | reads | writes |
|---|---|---|---|
"""
OF_THE_DATA = "from the data folder, else required"


def keys_page(
    recipes: Mapping[str, Mapping[str, str]],
    launchers: Mapping[str, tuple[type, ...]],
    choices: Mapping[str, Mapping[str, type]],
) -> str:
    """The page in Markdown. `recipes` maps the title of a table to the meanings of its keys.
    `launchers` maps a launcher to its config classes. `choices` maps the title of a key that
    chooses by name to the config class of each name."""
    kinds: dict[str, type] = {}
    lines = [INTRODUCTION]
    for title, meanings in recipes.items():
        lines += [f"## {title}", "| key | meaning |", "|---|---|"]
        lines += [*(f"| {key} | {meaning} |" for key, meaning in meanings.items()), ""]
    lines += ["## Launchers", "| launcher | keys |", "|---|---|"]
    for name, configs in launchers.items():
        lines.append(f"| {name} | {', '.join(_link(kind, kinds) for kind in configs)} |")
    for title, named in choices.items():
        lines += ["", f"## {title}", "| name | keys |", "|---|---|"]
        lines += [f"| {name} | {_link(kind, kinds)} |" for name, kind in named.items()]
    for title, kind in sorted(kinds.items()):
        lines += ["", f"## {title}", _first_sentences(kind), ""]
        lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
        docs, hints = field_docs(kind), get_type_hints(kind)
        for field in dataclasses.fields(kind):
            cells = (field.name, _type(hints[field.name]), _default(field), docs[field.name])
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def stages_page(stages: Mapping[str, StageEntry]) -> str:
    """The page in Markdown, with a row per stage in the order of the registry."""
    rows: list[str] = []
    for name, stage in stages.items():
        reads = ", ".join(f"`{key}`" for key in stage.reads)
        writes = ", ".join(f"`{file}`" if "." in file else file for file in stage.writes)
        rows.append(f"| {name} | scripts/{stage.launcher} | {reads} | {writes} |\n")
    return STAGES_INTRODUCTION + "".join(rows)


def is_project_config(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in OUR_PACKAGES


def _link(kind: type, kinds: dict[str, type]) -> str:
    """A link to the section of our class, which is added to `kinds`; or the name of a library's
    class."""
    if not is_project_config(kind):
        return f"`{kind.__name__}` ({kind.__module__.partition('.')[0]})"
    title = f"{kind.__name__} ({kind.__module__})"
    kinds[title] = kind
    anchor = title.lower().replace(" ", "-").translate({ord(c): None for c in "().`"})
    return f"[{kind.__name__}](#{anchor})"


def _first_sentences(kind: type) -> str:
    return " ".join((kind.__doc__ or "").strip().split("\n\n")[0].split())


def _type(hint: Any) -> str:
    text = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
    return f"`{text.replace('typing.', '')}`"


def _default(field: dataclasses.Field[Any]) -> str:
    if field.name in KEYS and field.default is not None:
        return OF_THE_DATA
    if field.default is not dataclasses.MISSING:
        return f"`{field.default!r}`"
    if field.default_factory is not dataclasses.MISSING:
        return f"`{field.default_factory()!r}`"
    return "required"
