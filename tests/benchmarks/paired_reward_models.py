"""Reward models of several kinds of labels, compared in pairs over seeds.

python tests/benchmarks/paired_reward_models.py outputs/kinds --policy outputs/countdown-five/sft
    --prefixes outputs/kinds_prefixes --pool outputs/kinds_pool

`outputs/kinds/<seed>/prm_*` are reward models of recipes/countdown/label_kinds.yaml. All score the
same held-out solutions: the prefixes of a label folder of method every_step, whose fresh rollouts
tell success rates, and a pool of monte_carlo's solutions, for best of N. Temperatures are fitted on
the first half of the problems and calibration is measured on the second. An interval is Student's t
over seeds: what differs between them is labels and training, not the policy and these problems.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from transformers import AutoModelForTokenClassification

from data.types import StepLabels
from rewards.base import RewardModel
from rewards.models.calibration import fit_temperature, scaled
from rewards.models.ensemble import EnsembleRewardModel
from rewards.models.folders import load_tokenizer
from rewards.models.prm import ProcessRewardModel
from trainer.labels.label_files import read_labels
from trainer.measures.best_of_n import Candidate, expected_best
from trainer.measures.score_quality import ScoredPrefix, calibration, within_problem_auroc

# What is compared: members of the ensemble, and k of mean - k standard deviations.
MODELS: dict[str, tuple[tuple[str, ...], float]] = {
    "soft": (("prm_soft",), 0.0),
    "hard": (("prm_hard",), 0.0),
    "tree": (("prm_tree",), 0.0),
    "ensemble": (("prm_soft", "prm_soft_b", "prm_soft_c"), 0.0),
    "pessimist": (("prm_soft", "prm_soft_b", "prm_soft_c"), 1.0),
}
PAIRS = (("soft", "hard"), ("soft", "tree"), ("ensemble", "soft"), ("pessimist", "soft"))
BEST_OF = (8, 64)


@dataclass(frozen=True, kw_only=True)
class Prefix:
    problem: str
    ids: tuple[int, ...]
    prompt_length: int
    correct: int
    count: int


def prefixes_of(rows: Sequence[StepLabels]) -> list[Prefix]:
    """The distinct non-terminal prefixes, which fresh rollouts labelled."""
    found: dict[tuple[int, ...], Prefix] = {}
    for row in rows:
        ids = row.prompt_ids
        for step, label, count in zip(row.completion_ids, row.labels, row.counts, strict=True):
            ids += step
            if step is row.completion_ids[-1] or count < 2:
                continue
            found[ids] = Prefix(
                problem=row.problem_id,
                ids=ids,
                prompt_length=len(row.prompt_ids),
                correct=round(label * count),
                count=count,
            )
    return list(found.values())


def open_model(folder: Path, members: Sequence[str], deviations: float, pad: int) -> RewardModel:
    models = [
        ProcessRewardModel(
            AutoModelForTokenClassification.from_pretrained(folder / name), pad, lambda *_: 0.0
        )
        for name in members
    ]
    return EnsembleRewardModel(models, deviations)


def last_scores(model: RewardModel, sequences: Sequence[tuple[int, ...]]) -> list[float]:
    scores, _ = model.score(sequences, [[len(ids) - 1] for ids in sequences])
    return [row[-1] for row in scores]


def measure(
    model: RewardModel, prefixes: Sequence[Prefix], pool: Sequence[StepLabels]
) -> dict[str, float]:
    """Every metric of one model, in percent."""
    scores = last_scores(model, [p.ids for p in prefixes])
    problems = list(dict.fromkeys(p.problem for p in prefixes))
    by_problem: dict[str, list[tuple[float, float]]] = {problem: [] for problem in problems}
    for prefix, score in zip(prefixes, scores, strict=True):
        by_problem[prefix.problem].append((score, prefix.correct / prefix.count))
    auroc, _ = within_problem_auroc(list(by_problem.values()), problems, seed=0)
    first_half = set(problems[: len(problems) // 2])
    fitting = [i for i, p in enumerate(prefixes) if p.problem in first_half]
    temperature = fit_temperature(
        [scores[i] for i in fitting],
        [prefixes[i].correct for i in fitting],
        [prefixes[i].count for i in fitting],
    )
    found = calibration(
        [
            ScoredPrefix(
                problem=p.problem,
                group=p.problem,
                score=scaled(score, temperature),
                correct=p.correct,
                count=p.count,
            )
            for p, score in zip(prefixes, scores, strict=True)
            if p.problem not in first_half
        ],
        seed=0,
    )
    metrics = {
        "AUROC within problems": auroc.value if auroc else math.nan,
        "Brier skill": found.brier_skill.value if found.brier_skill else math.nan,
        "calibration error": found.calibration_error.value,
    }
    ranks = last_scores(model, [row.prompt_ids + sum(row.completion_ids, ()) for row in pool])
    chosen: dict[int, list[float]] = {n: [] for n in BEST_OF}
    scored = zip(pool, ranks, strict=True)
    for _, group in groupby(scored, key=lambda pair: pair[0].problem_id):
        candidates = [
            Candidate(
                rank=(score,), proxy=score, correct=row.labels[-1] == 1.0, count=row.counts[-1]
            )
            for row, score in group
        ]
        for n in BEST_OF:
            chosen[n].append(expected_best(candidates, n)[0])
    return {
        name: 100 * value
        for name, value in (
            metrics | {f"best of {n}": fmean(values) for n, values in chosen.items()}
        ).items()
    }


def with_interval(values: Sequence[float]) -> str:
    """The mean with Student's 95 % interval."""
    from importlib import import_module

    student: Any = import_module("scipy.stats").t
    half = student.ppf(0.975, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return f"{fmean(values):+.2f} ± {half:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--policy", required=True)
    parser.add_argument("--prefixes", type=Path, required=True)
    parser.add_argument("--pool", type=Path, required=True)
    arguments = parser.parse_args()
    pad = load_tokenizer(arguments.policy).pad_token_id
    prefixes = prefixes_of(list(read_labels(arguments.prefixes / "labels.jsonl")))
    pool = list(read_labels(arguments.pool / "labels.jsonl"))
    folders = sorted(path for path in arguments.runs.iterdir() if path.is_dir())
    found: dict[str, list[dict[str, float]]] = {
        name: [measure(open_model(f, *model, pad), prefixes, pool) for f in folders]
        for name, model in MODELS.items()
    }
    print(f"{len(folders)} seeds, {len(prefixes)} prefixes, {len(pool)} distinct solutions")
    for name, rows in found.items():
        print(name, {key: with_interval([row[key] for row in rows]) for key in rows[0]})
    for first, second in PAIRS:
        pairs = list(zip(found[first], found[second], strict=True))
        differences = {key: [a[key] - b[key] for a, b in pairs] for key in pairs[0][0]}
        shown = {key: with_interval(values) for key, values in differences.items()}
        print(f"{first} - {second}", shown)


if __name__ == "__main__":
    main()
