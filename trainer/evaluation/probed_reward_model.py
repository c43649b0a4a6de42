"""Measures the reward model of an evaluation, by rollouts from unfinished prefixes and by the
verdicts of finished solutions that were sampled anyway."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from data.types import Problem
from search.base import SearchResult
from search.measurements.prefix_success import ProbeConfig
from search.settings import SearchSettings
from trainer.evaluation.auroc_by_depth import (
    estimated_reach_rows,
    finished_rows,
    probed_prefixes,
    reach_rows,
    sampled_solutions,
    success_rows,
)
from trainer.evaluation.policies import prm_quality
from trainer.evaluation.reward_model_samples import TRUTHS
from trainer.measures.results import AurocRow, PRMQuality
from trainer.searching.workbench import Workbench


def probe_reward_model(
    workbench: Workbench,
    problems: Sequence[Problem],
    probe: ProbeConfig,
    settings: SearchSettings,
    *,
    solutions: Sequence[SearchResult],
    verifier: str,
    max_value: int | None,
    folder: Path,
    seed: int,
) -> PRMQuality | None:
    """The quality of the reward model's scores on `problems`; None without unfinished prefixes.
    `solutions` are results of the strategy `solutions` on the same problems. The task of
    `verifier` may have a solver, whose results are at most `max_value` (None: no limit)."""
    probed = workbench.search(
        problems, probe, settings, folder=folder, name="prm_probe", policy_name="final"
    )
    quality = prm_quality(probed, probe.rollouts, seed)
    if quality is None:
        return None
    prefixes = probed_prefixes(probed, workbench.engine.step_ends)
    task = TRUTHS.get(verifier)
    if task is not None:
        rows = reach_rows(prefixes, task, max_value, seed)
    else:
        rows = estimated_reach_rows(prefixes, probe.rollouts, seed)
    rows += success_rows(prefixes, f"share of {probe.rollouts} rollouts", seed)
    rows += _finished_rows(workbench, settings, solutions, seed)
    return replace(quality, auroc_by_depth=tuple(rows))


def _finished_rows(
    workbench: Workbench,
    settings: SearchSettings,
    solutions: Sequence[SearchResult],
    seed: int,
) -> list[AurocRow]:
    """None where the scores of the solutions are not the reward model's scores of last steps."""
    if settings.choosing_guidance != "prm" or settings.aggregate != "last":
        return []

    def correct(problem: Problem, text: str) -> bool:
        return workbench.verifier.verify(problem, text).correct

    return finished_rows(sampled_solutions(solutions, correct), seed)
