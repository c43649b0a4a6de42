"""The control of a learner: as many further updates, on the demonstrations alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.runtime.manifests import MANIFEST, read_json


def updates_of(folders: Sequence[str]) -> int:
    """The optimizer steps of the trainings that wrote these policies, together; a gate makes
    none. Raises ValueError for a folder whose manifest does not record them, and if there are none
    in all."""
    total = 0
    for folder in folders:
        updates = (read_json(Path(folder) / MANIFEST) or {}).get("metrics", {}).get("updates")
        if updates is None:
            raise ValueError(
                f"updates_like has {folder!r}, which records no number of updates: name folders of "
                "finished stages of expert iteration, PPO, GRPO, RLOO or DPO"
            )
        total += int(updates)
    if not total:
        raise ValueError(
            f"updates_like is {', '.join(map(repr, folders))}, which made no update: name the "
            "learners before the gate too"
        )
    return total


def learner_of_control(manifest: Any) -> str | None:
    """The name of the learner whose control a policy is, from the policy's manifest: the last one
    of `updates_like`. None for a policy that is no such control."""
    folders: list[Any] = (manifest or {}).get("recipe", {}).get("updates_like") or [None]
    return None if folders[-1] is None else Path(folders[-1]).name


def without_controls(policies: Sequence[str]) -> list[str]:
    """The folders of the policies that are no controls; all of them if there is nothing else."""
    controls = _controls_among(policies)
    return [p for p in policies if Path(p).name not in controls] or list(policies)


def compared_policies(policies: Sequence[str], asked: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The pairs of policies to compare, by the name of the comparison. `asked` are pairs as
    one:other; without one, the last policy is compared with the first. A learner is also compared
    with its control."""
    pairs = {
        f"{one}_vs_{other}": (one, other) for one, _, other in (p.partition(":") for p in asked)
    }
    if not pairs:
        names = [Path(policy).name for policy in without_controls(policies)]
        pairs = {"final_vs_sft_greedy": (names[-1], names[0])}
    there = {Path(policy).name for policy in policies}
    for control, learner in _controls_among(policies).items():
        if learner in there:
            pairs[f"{learner}_vs_{control}"] = (learner, control)
    return pairs


def _controls_among(policies: Sequence[str]) -> dict[str, str]:
    """The names of the policies that are controls, and of the learners whose controls they are."""
    manifests = {Path(p).name: read_json(Path(p) / MANIFEST) for p in policies}
    return {name: found for name, m in manifests.items() if (found := learner_of_control(m))}
