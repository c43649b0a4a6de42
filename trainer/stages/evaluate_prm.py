"""The stage that measures a reward model on held-out problems: first errors (ProcessBench's
metric), discrimination, Brier skill, calibration, best of N and over-optimisation.

It writes prm.json, prm.md and the samples. Everything that is chosen or fitted (the threshold of
first errors, the temperature, Platt's form) is fitted on other problems than it is measured on.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data.problems import read_problems
from data.process_bench import ProcessBenchRow, read_process_bench
from data.prompts import PROMPTS, render
from data.types import Problem
from rewards.verifiers.by_name import check_verifier
from search.base import SearchResult
from search.measurements.prefix_success import ProbeConfig
from search.measurements.scored_solutions import GivenConfig, PoolConfig
from search.settings import SearchSettings
from trainer.evaluation.auroc_by_depth import (
    estimated_reach_rows,
    finished_rows,
    pooled_prefixes,
    pooled_solutions,
    probed_prefixes,
    reach_rows,
    success_rows,
)
from trainer.evaluation.policies import auroc_within_problems, scored_prefixes
from trainer.evaluation.reward_model_results import (
    Bench,
    StepSet,
    best_of_n_results,
    calibrations,
    first_errors,
    headline,
    reliability_rows,
)
from trainer.evaluation.reward_model_samples import (
    TRUTHS,
    judged_rows,
    judged_solutions,
    solvability,
    step_outcomes,
)
from trainer.evaluation.reward_model_tables import flat_row, reward_model_markdown
from trainer.measures.first_errors import JudgedSolution
from trainer.measures.results import Aim, AurocRow, RewardModelEvaluation
from trainer.measures.score_quality import ScoredPrefix
from trainer.measures.statistics import Estimate, share_estimate
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.stage import numbered_inputs, run_stage
from trainer.searching.workbench import Workbench, ends_of, open_workbench, paths_of

# The tables of prm.json that W&B gets.
TABLES = ("auroc_by_depth", "calibration", "first_errors", "best_of_n", "over_optimisation")


@dataclass(frozen=True, kw_only=True)
class EvaluatePRMConfig:
    """How a reward model is measured. The first problems of `split` measure it. The first problems
    of `fitting_split` fit the calibration and the thresholds. The aim is a calibration error of at
    most `aim_calibration_error` together with a Brier skill of at least `aim_brier_skill`.
    """

    policy: str
    """Folder or hub id of the policy."""
    reward_model: str
    """Folder, hub id, http address or YAML description of the reward model."""
    data: str
    """Folder of the data stage, with one JSONL file per split."""
    split: str = "test"
    """Split whose problems measure the reward model."""
    fitting_split: str = "validation"
    """Split whose problems fit calibration and thresholds; it must differ from split."""
    verifier: str
    """Verifier that judges solutions: math, countdown, code, reasoning_gym, ..."""
    num_problems: int = 500
    """Problems that measure the reward model."""
    fitting_problems: int = 500
    """Problems that fit calibration and thresholds."""
    samples: int = 256
    """Solutions per problem, from which best of N = 1, 2, 4, ... is computed."""
    fitting_samples: int = 16
    """Solutions per problem for the calibration over all steps."""
    temperature: float = 1.0
    """Sampling temperature."""
    max_new_tokens: int
    """Limit of one solution, in tokens after the prompt."""
    likelihood_weight: float = 0.0
    """Weight of the likelihood in an additional answer rule that is measured too; 0: none."""
    probe_solutions: int = 4
    """Further solutions per problem; their prefixes get rollouts."""
    prefixes: int = 4
    """Distinct unfinished prefixes per problem that get rollouts."""
    rollouts: int = 64
    """Completions per prefix, which give its success rate; at least 2."""
    bench_solutions: int = 8
    """Distinct solutions per problem for first errors, where the true first error is known."""
    tree_max_value: int | None = None
    """Largest result that the exhaustive Countdown solver considers; null: no limit."""
    bins: int = 10
    """Bins of a reliability table."""
    process_bench: tuple[str, ...] = ()
    """Sources (data/sources.py) of ProcessBench rows."""
    process_bench_fitting: str | None = None
    """Source of the ProcessBench rows that fit the threshold; null: no ProcessBench."""
    process_bench_prompt: str = "question"
    """Style of ProcessBench's questions; one of the names in data/prompts.py."""
    chat_model: str | None = None
    """Model whose chat template the prompts get; null: none."""
    aim_calibration_error: float = 0.05
    """Calibration error that the reward model should not exceed."""
    aim_brier_skill: float = 0.2
    """Brier skill that the reward model should reach."""
    kept_prefixes_mib: int = 0
    """Memory for keys and values of prefixes, MiB per model and process; 0: none are kept."""

    def __post_init__(self) -> None:
        check_verifier(self.verifier)
        if self.split == self.fitting_split:
            raise ValueError(
                f"split and fitting_split are both {self.split!r}; calibration and thresholds must "
                "be measured on other problems than they are fitted on"
            )
        for name, least in (
            ("num_problems", 1), ("fitting_problems", 1), ("samples", 1), ("fitting_samples", 1),
            ("rollouts", 2), ("bench_solutions", 1), ("bins", 1), ("kept_prefixes_mib", 0),
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if self.process_bench and not self.process_bench_fitting:
            raise ValueError(
                "process_bench needs process_bench_fitting, whose rows fit the threshold"
            )
        if self.process_bench_fitting in self.process_bench:
            raise ValueError(
                f"process_bench_fitting is {self.process_bench_fitting!r}, which process_bench "
                "also holds; the threshold must be fitted on other rows"
            )
        if self.process_bench_prompt not in PROMPTS:
            raise ValueError(
                f"process_bench_prompt is {self.process_bench_prompt!r}; allowed: "
                f"{', '.join(PROMPTS)}"
            )


@dataclass(frozen=True, kw_only=True)
class _Samples:
    """The samples on the problems that fit and on those that measure. `pool` holds the samples of
    `small_pool` and many more."""

    fitting_pool: list[SearchResult]
    fitting_probe: list[SearchResult]
    small_pool: list[SearchResult]
    pool: list[SearchResult]
    probe: list[SearchResult]


def run_evaluate_prm(runtime: RuntimeConfig, config: EvaluatePRMConfig) -> None:
    inputs: dict[str, str | None] = {
        "policy": config.policy,
        "reward_model": config.reward_model,
        "data": config.data,
    }
    inputs |= numbered_inputs("process_bench", config.process_bench)
    inputs |= {"process_bench_fitting": config.process_bench_fitting}
    with run_stage("evaluate_prm", runtime, [config], inputs) as record:
        folder = Path(runtime.output_dir)
        workbench = open_workbench(
            policy=config.policy,
            reward_model=config.reward_model,
            verifier=config.verifier,
            seed=runtime.seed,
            kept_prefixes_mib=config.kept_prefixes_mib,
        )
        samples = _sample(workbench, config, folder)
        benches = _score_process_bench(workbench, config, folder)
        record.search(workbench.usage)
        if workbench.accelerator.is_main_process:
            by_depth = _auroc_by_depth(config, samples, workbench.engine.step_ends, runtime.seed)
            evaluation = _evaluation(config, samples, by_depth, benches, runtime.seed)
            content = asdict(evaluation)
            (folder / "prm.json").write_text(json.dumps(content, indent=1))
            text = reward_model_markdown(evaluation)
            (folder / "prm.md").write_text(text)
            print(text)
            for name in TABLES:
                record.run.log_table(name, [flat_row(row) for row in content[name]])
            record.run.log_table("reliability", reliability_rows(evaluation))
            record.metrics |= headline(evaluation)
        everything = [*samples.fitting_pool, *samples.pool]
        record.metrics |= {f"ended_{end}": n for end, n in sorted(ends_of(everything).items())}
        record.metrics |= {f"paths_{kind}": n for kind, n in sorted(paths_of(everything).items())}


def _sample(workbench: Workbench, config: EvaluatePRMConfig, folder: Path) -> _Samples:
    settings = SearchSettings(temperature=config.temperature, max_new_tokens=config.max_new_tokens)
    probe = ProbeConfig(
        solutions=config.probe_solutions,
        prefixes=config.prefixes,
        rollouts=config.rollouts,
        max_new_tokens=config.max_new_tokens,
    )
    policy = Path(config.policy).name

    def search(problems: Sequence[Problem], kind: Any, name: str) -> list[SearchResult]:
        return workbench.search(
            problems, kind, settings, folder=folder, name=name, policy_name=policy
        )

    data = Path(config.data)
    fitting = read_problems(data / f"{config.fitting_split}.jsonl")[: config.fitting_problems]
    measured = read_problems(data / f"{config.split}.jsonl")[: config.num_problems]
    small = PoolConfig(samples=config.fitting_samples)
    return _Samples(
        fitting_pool=search(fitting, small, "fitting_pool"),
        fitting_probe=search(fitting, probe, "fitting_probe"),
        small_pool=search(measured, small, "small_pool"),
        pool=search(measured, PoolConfig(samples=config.samples), "pool"),
        probe=search(measured, probe, "probe"),
    )


def _score_process_bench(
    workbench: Workbench, config: EvaluatePRMConfig, folder: Path
) -> list[Bench]:
    """Score every source of ProcessBench rows, and count the rows that cannot be used."""
    if not config.process_bench or not config.process_bench_fitting:
        return []

    def score(source: str, number: int) -> tuple[list[JudgedSolution], Counter[str]]:
        rows, bad = read_process_bench(source)
        for row in bad[:10]:
            print(f"left out: {row}")
        name = f"bench_{number}_{Path(source).name.partition('.')[0].replace(':', '_')}"
        results = workbench.search(
            [_as_problem(row, config) for row in rows],
            GivenConfig(steps={row.id: row.steps for row in rows}),
            SearchSettings(),
            folder=folder,
            name=name,
            policy_name="given",
        )
        judged, left_out = judged_rows(rows, results)
        return judged, left_out + Counter({"unusable rows": len(bad)})

    fitting, _ = score(config.process_bench_fitting, 0)
    benches: list[Bench] = []
    for number, source in enumerate(config.process_bench, start=1):
        measured, left_out = score(source, number)
        benches.append(
            Bench(
                source=Path(source).name, truth="as labelled", fitting=fitting, measured=measured,
                left_out=left_out,
            )
        )  # fmt: skip
    return benches


def _as_problem(row: ProcessBenchRow, config: EvaluatePRMConfig) -> Problem:
    prompt = render(row.problem, config.process_bench_prompt, config.chat_model)
    return Problem(id=row.id, prompt=prompt, answer="")


def _auroc_by_depth(
    config: EvaluatePRMConfig,
    samples: _Samples,
    step_ends: Callable[[Sequence[int]], Sequence[int]],
    seed: int,
) -> list[AurocRow]:
    """The AUROC of reach and of success. All distinct prefixes of the first `fitting_samples`
    solutions have their success rates from the `samples` solutions of the pool. The solver says
    whether they are in reach. Without a solver, the probed prefixes with their rollouts say so,
    since each of them has equally many."""
    task = TRUTHS.get(config.verifier)
    pooled = pooled_prefixes(samples.small_pool, samples.pool)
    if task is not None:
        reach = reach_rows(pooled, task, config.tree_max_value, seed)
    else:
        probed = probed_prefixes(samples.probe, step_ends)
        reach = estimated_reach_rows(probed, config.rollouts, seed)
    success = success_rows(pooled, f"share of {config.samples} samples", seed)
    return [*reach, *success, *finished_rows(pooled_solutions(samples.small_pool), seed)]


def _evaluation(
    config: EvaluatePRMConfig,
    samples: _Samples,
    by_depth: Sequence[AurocRow],
    benches: Sequence[Bench],
    seed: int,
) -> RewardModelEvaluation:
    aim = Aim(calibration_error=config.aim_calibration_error, brier_skill=config.aim_brier_skill)
    prefixes = scored_prefixes(samples.probe)
    task = TRUTHS.get(config.verifier)
    benches = [*_own_benches(config, samples), *benches]
    auroc, pairs = auroc_within_problems(prefixes, [p.correct / p.count for p in prefixes], seed)
    solved = (
        solvability(samples.probe, prefixes, task, config.tree_max_value, seed) if task else None
    )
    best = best_of_n_results(samples.pool, config.samples, config.likelihood_weight)
    return RewardModelEvaluation(
        reward_model=Path(config.reward_model).name,
        policy=Path(config.policy).name,
        split=config.split,
        fitting_split=config.fitting_split,
        problems=len(samples.pool),
        fitting_problems=len(samples.fitting_pool),
        samples=config.samples,
        rollouts=config.rollouts,
        prefixes=len(prefixes),
        success_rate=_mean_success(prefixes),
        auroc=auroc,
        auroc_pairs=pairs,
        auroc_by_depth=tuple(by_depth),
        aim=aim,
        calibration=calibrations(_step_sets(samples), aim, config.bins, seed),
        solvability=solved,
        first_errors=tuple(first_errors(bench, seed) for bench in benches),
        sample_accuracy=best.sample_accuracy,
        best_of_n=best.rows,
        over_optimisation=best.over_optimisation,
        pass_at_n=best.pass_at_n,
        pools_left_out=best.pools_left_out,
    )


def _step_sets(samples: _Samples) -> dict[str, StepSet]:
    """Two sets of steps. Many rollouts estimate the success rates of the non-terminal steps. All
    steps, including the last ones, have the outcomes of the samples that they come from."""
    return {
        "non-terminal": StepSet(
            fitting=scored_prefixes(samples.fitting_probe), measured=scored_prefixes(samples.probe)
        ),
        "all": StepSet(
            fitting=step_outcomes(samples.fitting_pool),
            measured=step_outcomes(samples.small_pool),
        ),
    }


def _mean_success(prefixes: Sequence[ScoredPrefix]) -> Estimate | None:
    if not prefixes:
        return None
    rates = [p.correct / p.count for p in prefixes]
    return share_estimate(rates, [p.group for p in prefixes])


def _own_benches(config: EvaluatePRMConfig, samples: _Samples) -> list[Bench]:
    """Solutions of the policy, one bench per definition of a first error that the task has."""
    task = TRUTHS.get(config.verifier)
    if task is None:
        return []
    benches: list[Bench] = []
    for name, truth in task.first_errors.items():
        (fitting, _), (measured, left_out) = (
            judged_solutions(
                results,
                truth,
                task,
                per_problem=config.bench_solutions,
                max_value=config.tree_max_value,
            )
            for results in (samples.fitting_pool, samples.small_pool)
        )
        benches.append(
            Bench(
                source=config.verifier, truth=name, fitting=fitting, measured=measured,
                left_out=left_out,
            )
        )  # fmt: skip
    return benches
