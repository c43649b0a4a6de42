"""The evaluation stage measures policies, the reward model and the searches on the test split. It
writes evaluation.json and the search trees."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from data.problems import read_problems
from data.types import Problem
from rewards.verifiers.by_name import check_verifier
from search.base import SearchResult
from search.measurements.prefix_success import ProbeConfig
from search.settings import SearchSettings
from search.strategies.mcts.config import MCTSConfig
from search.strategies.solutions import SolutionsConfig
from trainer.evaluation.controls import random_tree
from trainer.evaluation.data_making import DataMaker, compare_data_making, data_maker_of
from trainer.evaluation.equal_compute import equal_compute_grid, equal_flops, measured_counts
from trainer.evaluation.policies import (
    WEIGHTED_BEST_OF_N,
    accuracy_row,
    best_of_n_rows,
    compare_accuracies,
    evaluate_greedy,
    evaluate_sampled,
    groups_of,
    visited_share,
)
from trainer.evaluation.probed_reward_model import probe_reward_model
from trainer.evaluation.scaling import fit_of_searches
from trainer.evaluation.thinking import (
    MeasuredThoughts,
    evaluation_metrics,
    measure_thoughts,
    with_thoughts,
)
from trainer.measures.results import (
    GREEDY_OUTCOMES,
    AccuracyRow,
    Comparison,
    DataMaking,
    EvaluationResults,
    GreedyOutcomes,
    PRMQuality,
    ScalingFit,
)
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.further_updates import compared_policies, without_controls
from trainer.runtime.manifests import read_manifest
from trainer.runtime.processes import is_main_process
from trainer.runtime.stage import run_stage
from trainer.searching.server_engines import IN_PROCESS, SearchEngineConfig
from trainer.searching.workbench import Workbench, correct_at, open_workbench


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What is measured. The `MCTSConfig` belongs to the tree search, and its budgets are
    simulations. The tree search and best of N share the `SearchSettings`. The unguided control asks
    the reward model for its answers alone. It may cost less, so its budgets go up to
    `control_factor` times the search's largest one, and the one of about equal FLOPs is compared.
    """

    policies: list[str]
    """Folders of the policies, from first to last, and of controls; all are measured greedily."""
    data: str
    """Folder of the data stage, with one JSONL file per split."""
    reward_model: str | None = None
    """Folder, hub id, http address or YAML description of the reward model; null: none."""
    judge: str | None = None
    """Second reward model, which chooses the answer with answer_guidance: judge; null: none."""
    compare: list[str] = field(default_factory=list[str])
    """Pairs of policies to compare greedily, as one:other; empty: the last with the first."""
    split: str = "test"
    """Split whose problems are used: train, validation or test."""
    verifier: str
    """Verifier that judges solutions: math, countdown, code, reasoning_gym, ..."""
    greedy_problems: int = 2000
    """Problems that every policy solves greedily."""
    search_problems: int = 500
    """Problems that are searched; 0: no search, and no reward model is needed."""
    search_every_policy: bool = False
    """Search with every learner's policy; false: with the first and the last one."""
    best_of_n: tuple[int, ...] = (2, 8, 32)
    """Values N of best of N, ascending."""
    control_factor: float = 2.0
    """Budget of the unguided control, divided by the search's largest budget."""
    prm_problems: int = 100
    """Problems on which the reward model is measured; 0: none."""
    prm_rollouts: int = 64
    """Rollouts per measured prefix, at least 2."""
    prm_prefixes: int = 4
    """Prefixes measured per problem."""
    tree_max_value: int | None = None
    """Largest result in the full Countdown tree; the report gives the share that search visited."""
    data_making_problems: int = 100
    """Problems on which searches that make training data are measured."""
    data_making_simulations: int = 16
    """Simulations of a search that makes training data."""
    data_making_search: str | None = None
    """Folder of a search stage whose settings make the data; null: the evaluation's tree search."""
    thinking_tokens: tuple[int, ...] = ()
    """Budgets of thought, ascending, of one greedy chain of every policy that thinks."""

    def __post_init__(self) -> None:
        check_verifier(self.verifier)
        if self.prm_rollouts < 2:
            raise ValueError(
                f"prm_rollouts is {self.prm_rollouts}; it must be at least 2: one rollout does not "
                "show how uncertain a success rate is"
            )
        if self.search_problems > 0 and self.reward_model is None:
            raise ValueError("search_problems is above 0, but no reward_model is given")
        known = [Path(policy).name for policy in self.policies]
        for pair in self.compare:
            one, _, other = pair.partition(":")
            if one not in known or other not in known:
                raise ValueError(
                    f"compare holds {pair!r}; it must be two of {', '.join(known)}, as 'one:other'"
                )


@dataclass(frozen=True, kw_only=True)
class _PolicyBench:
    """One loaded policy, and the settings of its measurement. Greedy decoding answers all
    `problems`; the searches answer the first ones."""

    name: str
    workbench: Workbench
    config: EvaluateConfig
    settings: SearchSettings
    mcts: MCTSConfig
    problems: list[Problem]
    folder: Path

    @property
    def searched(self) -> list[Problem]:
        return self.problems[: self.config.search_problems]

    def search(self, config: Any, settings: SearchSettings, suffix: str) -> list[SearchResult]:
        """Search the problems to be searched, into `<policy>_<suffix>.jsonl`."""
        return self.workbench.search(
            self.searched,
            config,
            settings,
            folder=self.folder,
            name=f"{self.name}_{suffix}",
            policy_name=self.name,
        )


@dataclass(frozen=True, kw_only=True)
class _PolicyResults:
    """The measurements of one policy. `greedy` says which problems its greedy answers solve. Only
    the final policy has the last three fields, and only a searched one has `scaling`."""

    name: str
    rows: tuple[AccuracyRow, ...]
    greedy: list[bool]
    scaling: tuple[ScalingFit, ...] = ()
    comparisons: Mapping[str, Comparison] = field(default_factory=dict[str, Comparison])
    prm: PRMQuality | None = None
    data_making: tuple[DataMaking, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Searches:
    """Best of N and the tree search of one policy. `rows` belongs to best of N. `mcts_rows` has one
    row per budget of the tree search. `scaling` has the fits of both."""

    solutions: list[SearchResult]
    trees: list[SearchResult]
    rows: list[AccuracyRow]
    mcts_rows: list[AccuracyRow]
    scaling: tuple[ScalingFit, ...]


def run_evaluate(
    runtime: RuntimeConfig,
    config: EvaluateConfig,
    settings: SearchSettings,
    mcts: MCTSConfig,
    engine: SearchEngineConfig = IN_PROCESS,
) -> None:
    """Write evaluation.json and the trees. Raises ValueError for a search that would see the
    verifier or equal the control."""
    _check(config, settings, mcts)
    inputs: dict[str, str | None] = {Path(p).name: p for p in config.policies}
    inputs |= {"reward_model": config.reward_model, "judge": config.judge, "data": config.data}
    inputs |= {"data_making_search": config.data_making_search}
    configs = [config, settings, *engine.recorded, mcts]
    with run_stage("evaluate", runtime, configs, inputs) as record:
        folder = Path(runtime.output_dir)
        problems = read_problems(Path(config.data) / f"{config.split}.jsonl")
        problems = problems[: config.greedy_problems]
        measured: dict[str, _PolicyResults] = {}
        learners = without_controls(config.policies)
        thoughts: list[MeasuredThoughts] = []
        for policy in dict.fromkeys(config.policies):
            name = Path(policy).name
            bench = _PolicyBench(
                name=name,
                workbench=open_workbench(
                    policy=policy,
                    reward_model=config.reward_model,
                    judge=config.judge,
                    verifier=config.verifier,
                    seed=runtime.seed,
                    kept_prefixes_mib=settings.kept_prefixes_mib,
                    engine=engine,
                ),
                config=config,
                settings=settings,
                mcts=mcts,
                problems=problems,
                folder=folder,
            )
            if policy == learners[-1]:
                measured[name] = _measure_final(bench, runtime.seed)
            elif policy == learners[0] or (config.search_every_policy and policy in learners):
                measured[name] = _measure_learner(bench)
            else:
                row, greedy = _greedy(bench)
                measured[name] = _PolicyResults(name=name, rows=(row,), greedy=greedy)
            thoughts.append(
                measure_thoughts(bench.workbench, name, problems, folder, config.thinking_tokens)
            )
            record.search(bench.workbench.usage, bench.workbench.served)
            del bench  # frees this policy's models before the next policy's models are loaded
        results = with_thoughts(_results(config, measured, problems), thoughts)
        if is_main_process():
            (folder / "evaluation.json").write_text(json.dumps(asdict(results), indent=1))
            outcomes = GreedyOutcomes(
                groups=tuple(groups_of(problems)),
                solved={name: tuple(found.greedy) for name, found in measured.items()},
            )
            (folder / GREEDY_OUTCOMES).write_text(json.dumps(asdict(outcomes)))
        record.metrics |= evaluation_metrics(results)


def _check(config: EvaluateConfig, settings: SearchSettings, mcts: MCTSConfig) -> None:
    if mcts.use_verifier or settings.guidance in ("oracle", "random"):
        raise ValueError(
            "use_verifier must be false, and guidance must not be oracle or random: a search at "
            "test time does not see the verifier, and the stage runs the random control anyway"
        )
    names = [Path(policy).name for policy in dict.fromkeys(config.policies)]
    if len(set(names)) < len(names):
        raise ValueError(
            f"policies holds folders with equal names, {names}: the names tell the results apart"
        )
    if config.greedy_problems < config.search_problems:
        raise ValueError(
            f"greedy_problems is {config.greedy_problems}; it must be at least search_problems, "
            f"{config.search_problems}: searches are compared with greedy on the same problems"
        )


def _results(
    config: EvaluateConfig, measured: Mapping[str, _PolicyResults], problems: list[Problem]
) -> EvaluationResults:
    """The measurements of all policies, and the comparisons of their greedy answers."""
    last = measured[Path(without_controls(config.policies)[-1]).name]
    comparisons = dict(last.comparisons)
    for name, (one, other) in compared_policies(config.policies, config.compare).items():
        comparisons[name] = compare_accuracies(
            measured[one].greedy, measured[other].greedy, "greedy accuracy", problems
        )
    return EvaluationResults(
        accuracy=tuple(row for policy in measured.values() for row in policy.rows),
        comparisons=dict(sorted(comparisons.items())),
        prm=last.prm,
        data_making=last.data_making,
        scaling=tuple(fit for policy in measured.values() for fit in policy.scaling),
    )


def _greedy(bench: _PolicyBench) -> tuple[AccuracyRow, list[bool]]:
    return evaluate_greedy(
        bench.workbench, bench.name, bench.problems, bench.folder, bench.settings.max_new_tokens
    )


def _sampled(bench: _PolicyBench) -> AccuracyRow:
    return evaluate_sampled(
        bench.workbench, bench.name, bench.problems, bench.folder, bench.settings.max_new_tokens
    )


def _measure_learner(bench: _PolicyBench) -> _PolicyResults:
    """Measure greedy and sampled answers, and both searches."""
    row, greedy = _greedy(bench)
    rows, scaling = [row, _sampled(bench)], ()
    if bench.config.search_problems:
        found = _search(bench)
        rows += found.rows + found.mcts_rows
        scaling = found.scaling
    return _PolicyResults(name=bench.name, rows=tuple(rows), greedy=greedy, scaling=scaling)


def _measure_final(bench: _PolicyBench, seed: int) -> _PolicyResults:
    """Measure the final policy like the first one. In addition, measure the unguided control, the
    gains of the searches, the reward model's quality, and the making of training data."""
    row, greedy = _greedy(bench)
    sampled = _sampled(bench)
    if not bench.config.search_problems:
        return _PolicyResults(name=bench.name, rows=(row, sampled), greedy=greedy)
    found = _search(bench)
    control_rows, control = _control(bench)
    return _PolicyResults(
        name=bench.name,
        rows=(row, sampled, *found.rows, *found.mcts_rows, *control_rows),
        greedy=greedy,
        scaling=found.scaling,
        comparisons=_comparisons(bench, found, control_rows, control, greedy),
        prm=_prm_quality(bench, found.solutions, seed),
        data_making=_data_making(bench, sampled.generated_tokens),
    )


def _search(bench: _PolicyBench) -> _Searches:
    """Best of N and MCTS. Both sample at the same temperature and choose answers by the same
    rule."""
    config, workbench = bench.config, bench.workbench
    counts = measured_counts(config.best_of_n)
    solutions = bench.search(
        SolutionsConfig(budgets=equal_compute_grid(counts)),
        replace(bench.settings, answer="score"),
        "best_of_n",
    )
    trees = bench.search(bench.mcts, bench.settings, "mcts")
    rows = best_of_n_rows(workbench, bench.name, solutions, counts)
    mcts_rows = [
        accuracy_row(workbench, bench.name, "mcts", trees, budget) for budget in bench.mcts.budgets
    ]
    seen = visited_share(config.verifier, trees, config.tree_max_value)
    mcts_rows[-1] = replace(mcts_rows[-1], visited_share=seen)
    weighted = [row for row in rows if row.strategy == WEIGHTED_BEST_OF_N]
    return _Searches(
        solutions=solutions,
        trees=trees,
        rows=rows,
        mcts_rows=mcts_rows,
        scaling=fit_of_searches(workbench, weighted, solutions)
        + fit_of_searches(workbench, mcts_rows, trees),
    )


def _control(bench: _PolicyBench) -> tuple[list[AccuracyRow], list[SearchResult]]:
    """The tree search with random values and uniform priors, also with a larger budget. Its answer
    is chosen like the search's own: by the same guidance and the same rule."""
    top = bench.mcts.budgets[-1]
    more = max(top + 1, round(bench.config.control_factor * top))
    mcts = replace(bench.mcts, budgets=(*bench.mcts.budgets, more), priors="uniform")
    settings = random_tree(bench.settings)
    control = bench.search(mcts, settings, "mcts_control")
    rows = [
        accuracy_row(bench.workbench, bench.name, "mcts_uniform_control", control, budget)
        for budget in mcts.budgets
    ]
    return rows, control


def _comparisons(
    bench: _PolicyBench,
    found: _Searches,
    control_rows: list[AccuracyRow],
    control: list[SearchResult],
    greedy: list[bool],
) -> dict[str, Comparison]:
    """Compare the searches with greedy answers, and the tree search with best of N and with the
    control at about equal FLOPs."""
    workbench, problems, most = bench.workbench, bench.searched, bench.config.best_of_n[-1]
    top, target = bench.mcts.budgets[-1], found.mcts_rows[-1]
    by_mcts = correct_at(workbench, found.trees, top)
    weighted = [
        accuracy_row(workbench, bench.name, WEIGHTED_BEST_OF_N, found.solutions, n)
        for n in equal_compute_grid(bench.config.best_of_n)
    ]
    n_equal = equal_flops(target, weighted)
    control_equal = equal_flops(target, control_rows)
    return {
        "mcts_vs_greedy": compare_accuracies(
            by_mcts,
            greedy[: len(problems)],
            f"accuracy, {top} simulations against greedy",
            problems,
        ),
        "best_of_n_vs_greedy": compare_accuracies(
            correct_at(workbench, found.solutions, most),
            greedy[: len(problems)],
            f"accuracy, weighted best of {most} against greedy",
            problems,
        ),
        "mcts_vs_best_of_n": compare_accuracies(
            by_mcts,
            correct_at(workbench, found.solutions, n_equal.budget),
            f"accuracy, {top} simulations against weighted best of {n_equal.budget}: the N nearest "
            f"in FLOPs ({n_equal.flops / target.flops:.2f} of the search's)",
            problems,
        ),
        "mcts_vs_uniform_control": compare_accuracies(
            by_mcts,
            correct_at(workbench, control, control_equal.budget),
            f"accuracy, {top} simulations against {control_equal.budget} unguided ones "
            f"({control_equal.flops / target.flops:.2f} of the search's FLOPs): uniform "
            "priors and random values, the answer chosen by the same rule",
            problems,
        ),
    }


def _prm_quality(
    bench: _PolicyBench, solutions: Sequence[SearchResult], seed: int
) -> PRMQuality | None:
    """`solutions` are those of best of N."""
    config = bench.config
    return probe_reward_model(
        bench.workbench,
        bench.searched[: config.prm_problems],
        ProbeConfig(
            rollouts=config.prm_rollouts,
            prefixes=config.prm_prefixes,
            max_new_tokens=bench.settings.max_new_tokens,
        ),
        bench.settings,
        solutions=solutions[: config.prm_problems],
        verifier=config.verifier,
        max_value=config.tree_max_value,
        folder=bench.folder,
        seed=seed,
    )


def _data_making(bench: _PolicyBench, tokens_per_sample: float) -> tuple[DataMaking, ...]:
    """On the last training problems; empty if `data_making_problems` is 0."""
    config = bench.config
    if not config.data_making_problems:
        return ()
    making = read_problems(Path(config.data) / "train.jsonl")[-config.data_making_problems :]
    if config.data_making_search is not None:
        folder = config.data_making_search
        maker = data_maker_of(folder, read_manifest(Path(folder)))
    else:
        mcts = replace(bench.mcts, budgets=(config.data_making_simulations,))
        # Training data needs no answer.
        settings = replace(bench.settings, temperature=1.0, answer_guidance="")
        maker = DataMaker(mcts=mcts, settings=settings)
    return compare_data_making(
        bench.workbench,
        making,
        maker,
        tokens_per_sample=tokens_per_sample,
        folder=bench.folder,
    )
