"""The label stage labels the steps of a policy's solutions with any labeller, and writes the
rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from data.slices import Choice
from data.types import Problem
from rewards.verifiers.by_name import check_verifier
from search.labellers.by_name import LabelSettings, labeller_entry
from search.labellers.solver import SolverConfig, check_solver
from search.labellers.tree_solutions import TreeSolutionsConfig
from search.labellers.tree_values import TreeConfig
from trainer.labels.labelling import label_shard, merge_shards
from trainer.models.compatibility import check_policy
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.stage import run_stage
from trainer.searching.server_engines import IN_PROCESS, SearchEngineConfig
from trainer.searching.workbench import open_workbench


@dataclass(frozen=True, kw_only=True)
class LabelStageConfig:
    """Which problems are labelled, and how. The method's keys belong to the recipe too."""

    policy: str
    """Folder or hub id of the policy."""
    data: str
    """Folder of the data stage, with one JSONL file per split."""
    method: str = "monte_carlo"
    """Way of labelling: a key of LABELLERS in search/labellers/by_name.py."""
    split: str = "train"
    """Split whose problems are used: train, validation or test."""
    skip: int = 0
    """Problems left out at the start of the split."""
    slice: str | None = None
    """Named slice of the data stage's problems, in place of split and skip; null: none."""
    num_problems: int = 2000
    """Problems labelled."""
    verifier: str
    """Verifier that judges solutions: math, countdown, code, reasoning_gym, ..."""

    def __post_init__(self) -> None:
        check_verifier(self.verifier)
        if labeller_entry(self.method).config is SolverConfig:
            check_solver(self.verifier)

    def chosen_problems(self) -> list[Problem]:
        choice = Choice(split=self.split, skip=self.skip, size=self.num_problems, name=self.slice)
        return choice.read(self.data)


def run_label(
    runtime: RuntimeConfig,
    stage: LabelStageConfig,
    settings: LabelSettings,
    config: Any,
    engine: SearchEngineConfig = IN_PROCESS,
) -> None:
    """Write labels.jsonl (TRL's stepwise-supervision columns, token ids, counts and errors) and
    costs.jsonl (the cost of each problem's labels, and how the labelling ended). `config` is the
    labeller's config.

    Raises ValueError when no problem has a label.
    """
    inputs: dict[str, str | None] = {"policy": stage.policy, "data": stage.data}
    if isinstance(config, TreeConfig | TreeSolutionsConfig):
        inputs["trees"] = config.trees
    configs = [stage, settings, *engine.recorded, config]
    check = partial(check_policy, stage.policy)
    with run_stage("label", runtime, configs, inputs, check) as record:
        workbench = open_workbench(
            policy=stage.policy,
            reward_model=None,
            verifier=stage.verifier,
            seed=runtime.seed,
            engine=engine,
            kept_prefixes_mib=settings.kept_prefixes_mib,
        )
        problems = stage.chosen_problems()
        folder = Path(runtime.output_dir)
        label_shard(workbench, problems, settings, config, folder)
        workbench.accelerator.wait_for_everyone()
        if workbench.accelerator.is_main_process:
            merge_shards(problems, folder, record)
        workbench.accelerator.wait_for_everyone()
