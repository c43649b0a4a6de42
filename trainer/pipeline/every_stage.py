"""`all` replaces a list of stages, which the user would otherwise have to keep up to date:

    - {name: evaluate, args: {policies: all, ...}, ...}
    - {name: report, args: {stages: all, ...}, ...}

`policies: all` stands for every earlier stage that writes a policy, and for a model from elsewhere
that an earlier stage reads as its `policy`; `stages: all` for every earlier stage. Both are in the
order of the recipe, and hold only stages that are part of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trainer.runtime.stage_registry import entry_of_launcher

ALL = "all"


def fill_in_all(rows: Sequence[dict[str, Any]]) -> None:
    """Replace `all` in the arguments of `rows` by the stages that it stands for.

    Raises ValueError for `policies: all` if no earlier stage writes a policy."""
    policies: list[str] = []
    for i, row in enumerate(rows):
        args = row["args"]
        if args.get("stages") == ALL:
            args["stages"] = [_folder(earlier) for earlier in rows[:i]]
        if args.get("policies") == ALL:
            if not policies:
                raise ValueError(
                    f"policies of stage {row['name']!r} is all, but no earlier stage writes one"
                )
            args["policies"] = list(policies)
        given = args.get("policy")
        if isinstance(given, str) and "{" not in given and given not in policies:
            policies.append(given)
        entry = entry_of_launcher(row["script"])
        if entry is not None and "policy" in entry.writes:
            policies.append(_folder(row))


def _folder(row: dict[str, Any]) -> str:
    return f"{{{row['name']}}}"
