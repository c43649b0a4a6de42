"""The search stage writes search trees of the current policy on problems without demonstrations. It
also writes their verified trajectories, without duplicates and balanced by difficulty."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.progress import reported
from data.slices import Choice
from data.token_text import end_token_ids
from data.types import Problem
from rewards.models.folders import load_tokenizer
from rewards.verifiers.by_name import check_verifier
from search.settings import SearchSettings
from search.strategies.routed import RoutedConfig
from search.trees.training_rows import balance_by_difficulty, verified_solutions
from trainer.labels.solve_rates import check_sampled, read_solve_rates, still_hard
from trainer.models.compatibility import check_models
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.stage import StageRecord, numbered_inputs, run_stage
from trainer.searching.server_engines import IN_PROCESS, SearchEngineConfig
from trainer.searching.workbench import ends_of, open_workbench, paths_of


@dataclass(frozen=True, kw_only=True)
class TreesConfig:
    """Which problems are searched, and how. The strategy's keys belong to the recipe too.

    With `labels`, a problem is searched only if at most the share `most_solved` of its solutions
    there was right: easy problems leave the search as the policy improves. A problem without labels
    is not searched, as nobody knows whether it is hard; the manifest counts both. All problems of
    the slice, or of the split after `skip`, are looked at, until `num_problems` are found.
    """

    policy: str
    """Folder or hub id of the policy."""
    data: str
    """Folder of the data stage, with one JSONL file per split."""
    strategy: str = "mcts"
    """Search strategy: a key of STRATEGIES in search/strategies/by_name.py."""
    reward_model: str | None = None
    """Folder, hub id, http address or YAML description of the reward model; null: none."""
    judge: str | None = None
    """Second reward model, which chooses the answer with answer_guidance: judge; null: none."""
    split: str = "train"
    """Split whose problems are used: train, validation or test."""
    skip: int = 0
    """Problems left out at the start of the split."""
    slice: str | None = None
    """Named slice of the data stage's problems, in place of split and skip; null: none."""
    num_problems: int = 2000
    """Problems searched; with `labels`, the most that are."""
    labels: list[str] = field(default_factory=list[str])
    """Folders of label stages (monte_carlo, every_step, solver) on the same problems."""
    most_solved: float = 1.0
    """Largest share of right solutions in `labels` of a problem that is searched; 0: unsolved."""
    verifier: str
    """Verifier that judges solutions: math, countdown, code, reasoning_gym, ..."""
    max_per_problem: int = 4
    """Maximum number of distinct correct solutions kept per problem."""

    def __post_init__(self) -> None:
        check_verifier(self.verifier)
        if not 0 <= self.most_solved <= 1:
            raise ValueError(f"most_solved is {self.most_solved}; allowed: from 0 to 1")
        if self.most_solved < 1 and not self.labels:
            raise ValueError(
                f"most_solved is {self.most_solved}, but labels is empty: name the folders of the "
                "label stage that say how often each problem was solved"
            )

    def chosen_problems(self) -> list[Problem]:
        """The problems of the recipe; with `labels`, those that are searched are among them."""
        size = None if self.labels else self.num_problems
        choice = Choice(split=self.split, skip=self.skip, size=size, name=self.slice)
        return choice.read(self.data)


def run_trees(
    runtime: RuntimeConfig,
    stage: TreesConfig,
    settings: SearchSettings,
    config: Any,
    engine: SearchEngineConfig = IN_PROCESS,
) -> None:
    """Write trees.jsonl and trajectories.jsonl (prompt_ids, completion_ids, problem_id). `config`
    is the config of the stage's strategy.

    Raises ValueError if `labels` leave no problem to search, and the errors of `check_sampled`."""
    inputs = {"policy": stage.policy, "data": stage.data, "reward_model": stage.reward_model}
    inputs["judge"] = stage.judge
    if isinstance(config, RoutedConfig):
        inputs["router"] = config.router
    inputs |= numbered_inputs("labels", stage.labels)
    configs = [stage, settings, *engine.recorded, config]

    def check() -> None:
        check_models(stage.policy, stage.reward_model, stage.judge)
        check_sampled(stage.labels)

    with run_stage("search", runtime, configs, inputs, check) as record:
        problems = stage.chosen_problems()
        if stage.labels:
            problems = _still_hard(stage, problems, record)
        workbench = open_workbench(
            policy=stage.policy,
            reward_model=stage.reward_model,
            judge=stage.judge,
            verifier=stage.verifier,
            seed=runtime.seed,
            kept_prefixes_mib=settings.kept_prefixes_mib,
            engine=engine,
        )
        folder = Path(runtime.output_dir)
        results = workbench.search(
            problems,
            config,
            settings,
            folder=folder,
            name="trees",
            policy_name=Path(stage.policy).name,
        )
        if workbench.accelerator.is_main_process:
            solved = 0
            rows = 0
            with (folder / "trajectories.jsonl").open("w", encoding="utf-8") as file:
                for result in reported(results, "problems whose solutions are checked"):
                    solutions, rate = verified_solutions(result, workbench.verifier.verify)
                    solved += bool(solutions)
                    for ids in balance_by_difficulty(solutions, rate, stage.max_per_problem):
                        rows += 1
                        row = {
                            "problem_id": result.problem.id,
                            "prompt": result.problem.prompt,
                            "completion": workbench.engine.decode(ids),
                            "prompt_ids": workbench.engine.encode_prompt(result.problem.prompt),
                            "completion_ids": ids,
                        }
                        file.write(json.dumps(row) + "\n")
            record.metrics |= {"problems": len(results), "solved": solved, "trajectories": rows}
            record.metrics |= {f"ended_{end}": n for end, n in sorted(ends_of(results).items())}
            record.metrics |= {f"paths_{kind}": n for kind, n in sorted(paths_of(results).items())}
            record.search(workbench.usage, workbench.served)
        workbench.accelerator.wait_for_everyone()


def _still_hard(stage: TreesConfig, problems: list[Problem], record: StageRecord) -> list[Problem]:
    """The problems that `labels` leave to search. Counts the others, and warns where problems
    without labels may be missing."""
    rates = read_solve_rates(stage.labels, end_token_ids(load_tokenizer(stage.policy)))
    found = still_hard(problems, rates, stage.most_solved, stage.num_problems)
    said = (
        f"{found.solved:,} were solved more often than most_solved ({stage.most_solved}), and "
        f"{found.unlabelled:,} have no labels in {', '.join(map(repr, stage.labels))}"
    )
    if not found.problems:
        raise ValueError(
            f"no problem is left to search: of {len(problems):,} problems {said}; raise "
            "most_solved, or name labels of these problems (slice, or split and skip)"
        )
    if found.unlabelled and len(found.problems) < stage.num_problems:
        record.warn(
            f"{len(found.problems):,} problems are searched, fewer than num_problems "
            f"({stage.num_problems:,}): {said}"
        )
    record.metrics |= {"left_out_solved": found.solved, "left_out_unlabelled": found.unlabelled}
    return found.problems
