"""The evaluation stage: the first and the last policy, the reward model and the searches, on the
test split. Writes evaluation.json and the trees behind it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from data.problems import read_problems
from data.types import Problem, Usage
from search.measurements.prefix_success import ProbeConfig
from search.settings import SearchSettings
from search.strategies.mcts.config import MCTSConfig
from search.strategies.solutions import SolutionsConfig
from trainer.evaluation.policies import (
    WEIGHTED,
    AccuracyRow,
    Comparison,
    accuracy_row,
    best_of_n_rows,
    compare,
    data_making,
    evaluate_greedy,
    evaluate_sampled,
    prm_quality,
    visited_share,
)
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.stage import run_stage
from trainer.searching.workbench import Workbench, correct_at, total_usage

NO_LIMIT = 1_000_000  # solutions: data making is measured at a fixed number of simulations


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What is measured. The tree search has a `MCTSConfig` of its own, whose budgets are
    simulations, and shares the `SearchSettings` with best of N. The unguided control has no
    reward model to pay for, so it gets `control_factor` times the search's largest budget, to
    spend about the same FLOPs.
    """

    policies: list[str]
    """Folders of the policies, from first to last; all are measured greedily."""
    data: str
    """Folder of the data stage, with one JSONL file per split."""
    reward_model: str | None = None
    """Folder, hub id, http address or YAML description of the reward model; null: none."""
    compare: list[str] = field(default_factory=list[str])
    """Pairs of policies to compare greedily, as one:other; empty: the last with the first."""
    split: str = "test"
    """Split whose problems are used: train, validation or test."""
    verifier: str = "countdown"
    """Verifier that judges solutions: math, countdown, code, reasoning_gym, ..."""
    greedy_problems: int = 2000
    """Problems that every policy solves greedily."""
    search_problems: int = 500
    """Problems that are searched; 0: no search, and no reward model is needed."""
    best_of_n: tuple[int, ...] = (2, 8, 32)
    """Values N of best of N, ascending."""
    control_factor: float = 2.0
    """Budget of the unguided control, over the search's largest budget."""
    prm_problems: int = 100
    """Problems on which the reward model is measured; 0: none."""
    prm_rollouts: int = 64
    """Rollouts per measured prefix, at least 2."""
    prm_prefixes: int = 4
    """Prefixes measured per problem."""
    tree_max_value: int | None = None
    """Largest result in a Countdown problem's tree when its seen share is worked out."""
    making_problems: int = 100
    """Problems on which searches that make training data are measured."""
    making_simulations: int = 16
    """Simulations of such a search."""

    def __post_init__(self) -> None:
        if self.prm_rollouts < 2:
            raise ValueError(
                f"prm_rollouts is {self.prm_rollouts}; it must be at least 2: one rollout does not "
                "say how uncertain a share is"
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


def run_evaluate(
    runtime: RuntimeConfig, config: EvaluateConfig, settings: SearchSettings, mcts: MCTSConfig
) -> None:
    """Raises ValueError for a search that would see the verifier or be its own control."""
    from accelerate import Accelerator

    if mcts.use_verifier or settings.guidance in ("oracle", "random"):
        raise ValueError(
            "use_verifier must be false and guidance neither oracle nor random: at test time a "
            "search does not see the truth, and the control is run beside it"
        )
    names = [Path(policy).name for policy in dict.fromkeys(config.policies)]
    if len(set(names)) < len(names):
        raise ValueError(
            f"policies holds folders of one name, {names}: results are told apart by it"
        )
    if config.greedy_problems < config.search_problems:
        raise ValueError(
            f"greedy_problems is {config.greedy_problems}; it must be at least search_problems, "
            f"{config.search_problems}: searches are compared with greedy on the same problems"
        )
    inputs: dict[str, str | None] = {Path(p).name: p for p in config.policies}
    inputs |= {"reward_model": config.reward_model, "data": config.data}
    with run_stage("evaluate", runtime, [config, settings, mcts], inputs) as record:
        accelerator = Accelerator()
        folder = Path(runtime.output_dir)
        problems = read_problems(Path(config.data) / f"{config.split}.jsonl")
        rows: list[AccuracyRow] = []
        greedy: dict[str, list[bool]] = {}
        comparisons: dict[str, Comparison] = {}
        found: dict[str, Any] = {"prm": None, "data_making": []}
        for policy in dict.fromkeys(config.policies):
            name = Path(policy).name
            workbench = Workbench(
                policy=policy,
                reward_model=config.reward_model,
                verifier=config.verifier,
                seed=runtime.seed,
                accelerator=accelerator,
            )
            row, greedy[name] = evaluate_greedy(
                workbench, name, problems[: config.greedy_problems], folder, settings.max_new_tokens
            )
            rows.append(row)
            ends = policy in (config.policies[0], config.policies[-1])
            if ends:
                rows.append(
                    evaluate_sampled(
                        workbench,
                        name,
                        problems[: config.greedy_problems],
                        folder,
                        settings.max_new_tokens,
                    )
                )
            if ends and config.search_problems:
                searched = problems[: config.search_problems]
                final = policy == config.policies[-1]
                new_rows, new_comparisons = _search_rows(
                    workbench,
                    name,
                    searched,
                    config,
                    settings,
                    mcts,
                    folder,
                    greedy[name],
                    final=final,
                )
                rows += new_rows
                comparisons |= new_comparisons
                if final:
                    sampled = next(r for r in rows if r.policy == name and r.strategy == "sample")
                    found = _final_only(
                        workbench,
                        searched,
                        config,
                        settings,
                        mcts,
                        folder,
                        runtime.seed,
                        sampled.generated_tokens,
                    )
            record.search(workbench.usage)
        first, last = Path(config.policies[0]).name, Path(config.policies[-1]).name
        measured = problems[: config.greedy_problems]
        if not config.compare:
            comparisons["final_vs_sft_greedy"] = compare(
                greedy[last], greedy[first], "greedy accuracy", measured
            )
        for one, _, other in (pair.partition(":") for pair in config.compare):
            comparisons[f"{one}_vs_{other}"] = compare(
                greedy[one], greedy[other], "greedy accuracy", measured
            )
        if accelerator.is_main_process:
            content = {
                "accuracy": [asdict(row) for row in rows],
                "comparisons": {name: asdict(c) for name, c in sorted(comparisons.items())},
                **found,
            }
            (folder / "evaluation.json").write_text(json.dumps(content, indent=1))
        record.metrics |= {f"{row.policy}_{row.strategy}_{row.budget}": row.value for row in rows}


def _search_rows(
    workbench: Workbench,
    name: str,
    problems: list[Problem],
    config: EvaluateConfig,
    settings: SearchSettings,
    mcts: MCTSConfig,
    folder: Path,
    greedy: list[bool],
    *,
    final: bool,
) -> tuple[list[AccuracyRow], dict[str, Comparison]]:
    """Best-of-N and MCTS, sampled at one temperature and choosing by one rule; for the final
    policy also the unguided control and the comparisons."""
    grid = equal_compute_grid(config.best_of_n)
    solutions = workbench.search(
        problems,
        SolutionsConfig(budgets=grid),
        replace(settings, answer="score"),
        folder=folder,
        name=f"{name}_best_of_n",
        policy_name=name,
    )
    trees = workbench.search(
        problems,
        mcts,
        settings,
        folder=folder,
        name=f"{name}_mcts",
        policy_name=name,
    )
    rows = best_of_n_rows(workbench, name, solutions, config.best_of_n)
    mcts_rows = [accuracy_row(workbench, name, "mcts", trees, b) for b in mcts.budgets]
    seen = visited_share(config.verifier, trees, config.tree_max_value)
    mcts_rows[-1] = replace(mcts_rows[-1], visited_share=seen)
    if not final:
        return rows + mcts_rows, {}
    top = mcts.budgets[-1]
    more = max(top + 1, round(config.control_factor * top))
    control_config = replace(mcts, budgets=(*mcts.budgets, more), priors="uniform")
    control = workbench.search(
        problems,
        control_config,
        replace(settings, guidance="random", likelihood_weight=0.0),
        folder=folder,
        name=f"{name}_mcts_control",
        policy_name=name,
    )
    control_rows = [
        accuracy_row(workbench, name, "mcts_uniform_control", control, b)
        for b in control_config.budgets
    ]
    by_mcts = correct_at(workbench, trees, top)
    n_equal = _equal_flops(
        mcts_rows[-1], [accuracy_row(workbench, name, WEIGHTED, solutions, n) for n in grid]
    )
    control_equal = _equal_flops(mcts_rows[-1], control_rows)
    comparisons = {
        "mcts_vs_greedy": compare(
            by_mcts,
            greedy[: len(problems)],
            f"accuracy, {top} simulations against greedy",
            problems,
        ),
        "best_of_n_vs_greedy": compare(
            correct_at(workbench, solutions, config.best_of_n[-1]),
            greedy[: len(problems)],
            f"accuracy, weighted best of {config.best_of_n[-1]} against greedy",
            problems,
        ),
        "mcts_vs_best_of_n": compare(
            by_mcts,
            correct_at(workbench, solutions, n_equal.budget),
            f"accuracy, {top} simulations against weighted best of {n_equal.budget}: the N nearest "
            f"in FLOPs ({n_equal.flops / mcts_rows[-1].flops:.2f} of the search's)",
            problems,
        ),
        "mcts_vs_uniform_control": compare(
            by_mcts,
            correct_at(workbench, control, control_equal.budget),
            f"accuracy, {top} simulations against {control_equal.budget} unguided ones "
            f"({control_equal.flops / mcts_rows[-1].flops:.2f} of the search's FLOPs): uniform "
            "priors, random values, an answer chosen by them",
            problems,
        ),
    }
    return rows + mcts_rows + control_rows, comparisons


def equal_compute_grid(budgets: tuple[int, ...]) -> tuple[int, ...]:
    """The budgets, and more values of N at most 1/32 of the largest apart, so that some N costs
    nearly what a tree search does."""
    most = budgets[-1]
    return tuple(sorted({*budgets, *range(most, 0, -max(1, most // 32))}))


def _equal_flops(target: AccuracyRow, rows: list[AccuracyRow]) -> AccuracyRow:
    """The row whose FLOPs a problem are nearest to the target's."""
    return min(rows, key=lambda row: abs(row.flops - target.flops))


def _final_only(
    workbench: Workbench,
    problems: list[Problem],
    config: EvaluateConfig,
    settings: SearchSettings,
    mcts: MCTSConfig,
    folder: Path,
    seed: int,
    tokens_per_sample: float,
) -> dict[str, Any]:
    probed = workbench.search(
        problems[: config.prm_problems],
        ProbeConfig(
            rollouts=config.prm_rollouts,
            prefixes=config.prm_prefixes,
            max_new_tokens=settings.max_new_tokens,
        ),
        settings,
        folder=folder,
        name="prm_probe",
        policy_name="final",
    )
    quality = prm_quality(probed, config.prm_rollouts, seed)
    making = _data_making(workbench, config, settings, mcts, folder, tokens_per_sample)
    return {"prm": asdict(quality) if quality else None, "data_making": making}


def _data_making(
    workbench: Workbench,
    config: EvaluateConfig,
    settings: SearchSettings,
    mcts: MCTSConfig,
    folder: Path,
    tokens_per_sample: float,
) -> list[dict[str, Any]]:
    """Tree search beside plain sampling as a maker of training data, on the last training problems;
    nothing where `making_problems` is 0."""
    if not config.making_problems:
        return []
    making = read_problems(Path(config.data) / "train.jsonl")[-config.making_problems :]
    trees = workbench.search(
        making,
        replace(
            mcts,
            budgets=(config.making_simulations,),
            use_verifier=True,
            max_solutions=NO_LIMIT,
        ),
        replace(settings, temperature=1.0),
        folder=folder,
        name="making_mcts",
        policy_name="final",
    )
    spent = total_usage(trees)
    plain = workbench.search(
        making,
        SolutionsConfig(budgets=(_samples_for(spent, len(making), tokens_per_sample),)),
        replace(settings, answer="first", temperature=1.0),
        folder=folder,
        name="making_sample",
        policy_name="final",
    )
    return [
        asdict(data_making(workbench, "mcts", trees)),
        asdict(data_making(workbench, "sample", plain)),
    ]


def _samples_for(spent: Usage, problems: int, tokens_per_sample: float) -> int:
    """How many samples a problem run about as many token positions as the tree search did."""
    positions = (spent.policy.positions + spent.reward.positions) / problems
    return max(1, round(positions / tokens_per_sample))
