"""Writes and reads the rollouts of whole cycles, so that a run can learn from the same rollouts
again. The file holds JSON lines, with one rollout per line. The lines are in the order of a cycle's
problems and of their samples, whichever process made them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data.json_rows import numbered_rows
from trainer.rollouts.collect import Rollout

ROLLOUTS = "rollouts.jsonl"


def rollout_rows(
    cycle: int, parts: Sequence[Sequence[Rollout]], samples: int
) -> list[dict[str, Any]]:
    """The rows of a cycle. `parts` are the rollouts of each process."""
    groups = ordered_groups(parts, samples)
    return [{"cycle": cycle} | asdict(rollout) for group in groups for rollout in group]


def ordered_groups(parts: Sequence[Sequence[Rollout]], samples: int) -> list[list[Rollout]]:
    """The rollouts of each problem, in the order of the problems. `parts[r]` are the rollouts of
    process r of R processes: `samples` of each of its problems. Process r has problems r, r + R,
    r + 2R and so on."""
    groups = [
        [list(part[at : at + samples]) for at in range(0, len(part), samples)] for part in parts
    ]
    return [group for turn in zip(*groups, strict=True) for group in turn]


def read_rollouts(path: str | Path) -> dict[int, list[Rollout]]:
    """The rollouts by cycle. Raises ValueError, with file and line, for a row that is not a
    rollout."""
    found: dict[int, list[Rollout]] = {}
    for number, row in numbered_rows(Path(path)):
        try:
            cycle = int(row.pop("cycle"))
            values: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in row.items()
            }
            rollout = Rollout(**values)
            _check(rollout)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}, line {number}: not a rollout: {error}") from None
        found.setdefault(cycle, []).append(rollout)
    return found


def _check(rollout: Rollout) -> None:
    if not rollout.response_ids:
        raise ValueError(f"problem {rollout.problem_id}: a rollout without tokens")
    steps = len(rollout.step_ends)
    if len(rollout.rewards) != steps or len(rollout.scores) not in (0, steps):
        raise ValueError(
            f"problem {rollout.problem_id}: {len(rollout.rewards)} rewards and "
            f"{len(rollout.scores)} process rewards for {steps} steps"
        )
    if len(rollout.engine_logprobs) not in (0, len(rollout.response_ids)):
        raise ValueError(
            f"problem {rollout.problem_id}: {len(rollout.engine_logprobs)} engine_logprobs for "
            f"{len(rollout.response_ids)} tokens"
        )
    if not all(0 <= end < len(rollout.response_ids) for end in rollout.step_ends):
        raise ValueError(f"problem {rollout.problem_id}: a step ends outside its rollout")


def share_of(
    cycles: dict[int, list[Rollout]],
    cycle: int,
    *,
    problems: int,
    samples: int,
    rank: int,
    processes: int,
) -> list[Rollout]:
    """The rollouts that process `rank` of `processes` would have sampled. Raises ValueError if the
    file does not hold `problems` x `samples` rollouts of this cycle."""
    rollouts = cycles.get(cycle, [])
    if len(rollouts) != problems * samples:
        raise ValueError(
            f"replay holds {len(rollouts)} rollouts of cycle {cycle}; problems_per_cycle x "
            f"samples_per_problem asks for {problems} x {samples}"
        )
    own = range(rank, problems, processes)
    return [rollout for i in own for rollout in rollouts[i * samples : (i + 1) * samples]]
