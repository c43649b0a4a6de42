"""The search stage writes search trees of the current policy on problems without demonstrations. It
also writes their verified trajectories, without duplicates and balanced by difficulty."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from data.progress import reported
from data.slices import Choice
from data.types import Problem
from rewards.verifiers.by_name import check_verifier
from search.settings import SearchSettings
from search.strategies.routed import RoutedConfig
from search.trees.training_rows import balance_by_difficulty, verified_solutions
from trainer.models.compatibility import check_models
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.stage import run_stage
from trainer.searching.server_engines import IN_PROCESS, SearchEngineConfig
from trainer.searching.workbench import ends_of, open_workbench, paths_of


@dataclass(frozen=True, kw_only=True)
class TreesConfig:
    """Which problems are searched, and how. The strategy's keys belong to the recipe too."""

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
    """Problems searched."""
    verifier: str
    """Verifier that judges solutions: math, countdown, code, reasoning_gym, ..."""
    max_per_problem: int = 4
    """Maximum number of distinct correct solutions kept per problem."""

    def __post_init__(self) -> None:
        check_verifier(self.verifier)

    def chosen_problems(self) -> list[Problem]:
        choice = Choice(split=self.split, skip=self.skip, size=self.num_problems, name=self.slice)
        return choice.read(self.data)


def run_trees(
    runtime: RuntimeConfig,
    stage: TreesConfig,
    settings: SearchSettings,
    config: Any,
    engine: SearchEngineConfig = IN_PROCESS,
) -> None:
    """Write trees.jsonl and trajectories.jsonl (prompt_ids, completion_ids, problem_id). `config`
    is the config of the stage's strategy."""
    inputs = {"policy": stage.policy, "data": stage.data, "reward_model": stage.reward_model}
    inputs["judge"] = stage.judge
    if isinstance(config, RoutedConfig):
        inputs["router"] = config.router
    configs = [stage, settings, *engine.recorded, config]
    check = partial(check_models, stage.policy, stage.reward_model, stage.judge)
    with run_stage("search", runtime, configs, inputs, check) as record:
        workbench = open_workbench(
            policy=stage.policy,
            reward_model=stage.reward_model,
            judge=stage.judge,
            verifier=stage.verifier,
            seed=runtime.seed,
            kept_prefixes_mib=settings.kept_prefixes_mib,
            engine=engine,
        )
        problems = stage.chosen_problems()
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
