"""Every stage by its name: the one place where recipes and reports learn what a stage is.

The entries are plain values, so that a recipe starts without importing a stage. A stage's code is
in `trainer/stages/`; CONTRIBUTING.md shows how to add one. A launcher that is not here runs in a
recipe too: a dry run then estimates nothing for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Literal

# Where a stage says how many tokens the policy sampled to be learnt from: in the manifest's metric
# `sampled_tokens` (0 if there is none), in the manifest's ledger, or in the column `tokens` of
# metrics.jsonl, which has a row per cycle.
SampledTokens = Literal["metric", "ledger", "cycles"]


@dataclass(frozen=True, kw_only=True)
class StageEntry:
    """The facts about a stage that recipes and reports need."""

    launcher: str  # a file name in scripts/
    configs: tuple[str, ...]  # config classes as "module:name", in the launcher's order
    # "module:name" of what finds the last config class from a recipe's words, where they choose it.
    chosen_config: str | None = None
    reads: tuple[str, ...] = ()  # config keys that name folders or files
    writes: tuple[str, ...]  # the files of the stage's folder, without its manifest
    estimate: str | None = None  # a name in ESTIMATES of trainer/pipeline/estimates.py
    # Keys that a smoke run sets although the recipe does not mention them, as their default is
    # large. Their values are in SMOKE_SIZES of trainer/pipeline/smoke.py.
    smoke_keys: tuple[str, ...] = ()
    smoke_values: Mapping[str, Any] = field(default_factory=dict[str, Any])  # always set
    makes_problems: bool = False  # its recipe says how many problems each split has
    makes_process_reward_model: bool = False  # the first of a run is shared by its learners
    sampled_tokens: SampledTokens = "metric"  # from where the report's learner curves take them

    def config_types(self, words: Sequence[str]) -> tuple[type, ...]:
        """The config classes of the stage that a recipe's words launch."""
        kinds = tuple(resolve_name(name) for name in self.configs)
        return (*kinds, resolve_name(self.chosen_config)(words)) if self.chosen_config else kinds

    def config_defaults(self) -> dict[str, Any]:
        """The plain default values of all config keys; the first class that has a key decides."""
        defaults: dict[str, Any] = {}
        for name in reversed(self.configs):
            fields = dataclasses.fields(resolve_name(name))
            defaults |= {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}
        return defaults


TRAINING = ("max_steps", "per_device_train_batch_size", "save_steps", "logging_steps")
RUNTIME = "trainer.runtime.config:RuntimeConfig"
LORA = "trainer.models.lora:LoraSettings"
HELD_OUT = "trainer.rollouts.held_out:HeldOutConfig"
GATE = "trainer.runtime.gates:GateConfig"
GROUP_RL = "trainer.rollouts.solution_reward:GroupRLConfig"
SEARCH = "search.settings:SearchSettings"
ENGINE = "trainer.searching.server_engines:SearchEngineConfig"

STAGES: dict[str, StageEntry] = {
    "data": StageEntry(
        launcher="make_data.py",
        configs=(RUNTIME, "trainer.stages.data:DataConfig"),
        chosen_config="trainer.stages.data:task_config_type",
        reads=(
            *("demonstrations_file", "train_file", "validation_file", "test_file"),
            *("train_rows", "more_train_rows", "test_rows", "contamination_sets", "chat_model"),
        ),
        writes=("demonstrations.jsonl", "train.jsonl", "validation.jsonl", "test.jsonl"),
        makes_problems=True,
    ),
    "import_model": StageEntry(
        launcher="import_model.py",
        configs=(RUNTIME, "trainer.stages.import_model:ImportModelConfig"),
        writes=("policy",),
    ),
    "sft": StageEntry(
        launcher="train_sft.py",
        configs=(
            RUNTIME,
            "trainer.stages.sft:PolicyConfig",
            "trl:SFTConfig",
            LORA,
            "trainer.rollouts.early_stopping:EarlyStoppingConfig",
        ),
        reads=("data", "model", "updates_like"),
        writes=("policy", "evaluations.jsonl"),
        estimate="policy_training",
        smoke_keys=TRAINING,
    ),
    "label": StageEntry(
        launcher="label_steps.py",
        configs=(
            RUNTIME,
            "trainer.stages.label:LabelStageConfig",
            "search.labellers.by_name:LabelSettings",
            ENGINE,
        ),
        chosen_config="trainer.runtime.command_line:labeller_config_type",
        reads=("policy", "data"),
        writes=("labels.jsonl", "costs.jsonl"),
        estimate="labelling",
        smoke_keys=("num_problems", "max_new_tokens"),
        sampled_tokens="ledger",
    ),
    "distil": StageEntry(
        launcher="distil.py",
        configs=(RUNTIME, "trainer.stages.distil:DistilConfig"),
        reads=("data",),
        writes=("demonstrations.jsonl", "answers.jsonl"),
    ),
    "import": StageEntry(
        launcher="import_labels.py",
        configs=(RUNTIME, "trainer.stages.import_labels:ImportConfig"),
        reads=("source",),
        writes=("labels.jsonl",),
    ),
    "audit": StageEntry(
        launcher="audit_labels.py",
        configs=(RUNTIME, "trainer.stages.audit_labels:AuditConfig"),
        reads=("labels", "policy", "data"),
        writes=("audit.json", "audit.md", "prefixes.jsonl", "references.jsonl"),
    ),
    "prm": StageEntry(
        launcher="train_prm.py",
        configs=(
            RUNTIME,
            "trainer.stages.train_prm:RewardModelConfig",
            "transformers:TrainingArguments",
            LORA,
        ),
        reads=("model", "labels", "preference_pairs", "calibration_labels"),
        writes=("reward model",),
        estimate="reward_model_training",
        smoke_keys=TRAINING,
        makes_process_reward_model=True,
    ),
    "preferences": StageEntry(
        launcher="train_reward_model.py",
        configs=(
            RUNTIME,
            "trainer.stages.train_outcome_model:OutcomePreferenceConfig",
            "trl:RewardConfig",
        ),
        reads=("model", "preferences"),
        writes=("reward model",),
    ),
    "search": StageEntry(
        launcher="run_search.py",
        configs=(RUNTIME, "trainer.stages.search:TreesConfig", SEARCH, ENGINE),
        chosen_config="trainer.runtime.command_line:strategy_config_type",
        reads=("policy", "data", "reward_model", "judge", "labels"),
        writes=("trees.jsonl", "trajectories.jsonl"),
        estimate="search",
        smoke_keys=("num_problems", "max_new_tokens", "max_step_tokens", "max_depth"),
        sampled_tokens="ledger",
    ),
    "export": StageEntry(
        launcher="export_trees.py",
        configs=(RUNTIME, "trainer.stages.export:ExportConfig"),
        reads=("trees",),
        writes=("<kind>.jsonl or <kind>.parquet",),
        # The trees of a random model solve nothing; with these limits all problems pass.
        smoke_values={"min_rate": 0.0, "max_rate": 1.0, "min_gap": 0.0, "min_visits": 1},
    ),
    "tree_thoughts": StageEntry(
        launcher="linearise_trees.py",
        configs=(
            RUNTIME,
            "trainer.stages.tree_thoughts:TreeThoughtsConfig",
            "search.trees.thoughts:LinearisationConfig",
        ),
        reads=("trees", "data"),
        writes=("demonstrations.jsonl", "train.jsonl", "validation.jsonl", "test.jsonl"),
        # The trees of a random model solve nothing; the demonstrations of data stand in for them.
        smoke_values={"keep_demonstrations": True},
    ),
    "expert_iteration": StageEntry(
        launcher="expert_iteration_round.py",
        configs=(
            RUNTIME,
            "trainer.stages.expert_iteration:ExpertIterationConfig",
            GATE,
            "trl:SFTConfig",
            LORA,
        ),
        reads=("policy", "data", "trees", "labels"),
        writes=("policy",),
        estimate="policy_training",
        smoke_keys=(*TRAINING, "gate_problems", "max_new_tokens"),
    ),
    "gate": StageEntry(
        launcher="gate_policy.py",
        configs=(RUNTIME, "trainer.stages.gate:GateStageConfig", GATE),
        reads=("incumbent", "candidate", "data"),
        writes=("policy",),
        smoke_keys=("gate_problems", "max_new_tokens"),
    ),
    "ppo": StageEntry(
        launcher="train_ppo.py",
        configs=(
            RUNTIME,
            "trainer.ppo.config:PPOConfig",
            "trainer.rollouts.collect:RewardConfig",
            "trainer.rollouts.vllm:RolloutEngineConfig",
        ),
        reads=(
            "policy", "data", "reward_model", "problems", "reference", "critic", "trajectories",
            "replay",
        ),
        writes=("policy", "critic", "metrics.jsonl", "completions.jsonl", "evaluations.jsonl"),
        estimate="ppo",
        smoke_keys=(
            "cycles", "problems_per_cycle", "samples_per_problem", "minibatches",
            "micro_batch_size", "evaluate_every", "evaluation_problems", "save_every",
            "max_new_tokens",
        ),
        sampled_tokens="cycles",
    ),
    "grpo": StageEntry(
        launcher="train_grpo.py",
        configs=(RUNTIME, GROUP_RL, HELD_OUT, "trl:GRPOConfig"),
        reads=("policy", "data", "reward_model", "problems"),
        writes=("policy", "evaluations.jsonl"),
        estimate="group_rl",
    ),
    "rloo": StageEntry(
        launcher="train_rloo.py",
        configs=(RUNTIME, GROUP_RL, HELD_OUT, "trl:RLOOConfig"),
        reads=("policy", "data", "reward_model", "problems"),
        writes=("policy", "evaluations.jsonl"),
        estimate="group_rl",
    ),
    "dpo": StageEntry(
        launcher="train_dpo.py",
        configs=(RUNTIME, "trainer.stages.dpo:StepPreferenceConfig", HELD_OUT, "trl:DPOConfig"),
        reads=("policy", "data", "step_preferences"),
        writes=("policy", "evaluations.jsonl"),
        estimate="policy_training",
    ),
    "evaluate": StageEntry(
        launcher="evaluate_run.py",
        configs=(
            RUNTIME,
            "trainer.stages.evaluate:EvaluateConfig",
            SEARCH,
            "search.strategies.mcts.config:MCTSConfig",
            ENGINE,
        ),
        reads=("policies", "reward_model", "judge", "data", "data_making_search"),
        writes=("evaluation.json", "<policy>_mcts.jsonl"),
        estimate="evaluation",
        smoke_keys=(
            "greedy_problems", "search_problems", "best_of_n", "prm_problems", "prm_rollouts",
            "prm_prefixes", "data_making_problems", "data_making_simulations", "max_new_tokens",
            "max_step_tokens", "max_depth",
        ),
    ),
    "evaluate_prm": StageEntry(
        launcher="evaluate_prm.py",
        configs=(RUNTIME, "trainer.stages.evaluate_prm:EvaluatePRMConfig"),
        reads=("policy", "reward_model", "data", "process_bench", "process_bench_fitting"),
        writes=("prm.json",),
    ),
    "compare": StageEntry(
        launcher="compare_searches.py",
        configs=(RUNTIME, "trainer.stages.compare:CompareConfig", SEARCH, ENGINE),
        reads=("policy", "policies", "reward_model", "judge", "data"),
        writes=("comparison.json", "outcomes.json"),
    ),
    "fit_router": StageEntry(
        launcher="fit_router.py",
        configs=(RUNTIME, "trainer.stages.fit_router:FitRouterConfig"),
        reads=("comparison", "test_comparison"),
        writes=("router.json", "routing.json"),
    ),
    "bundle": StageEntry(
        launcher="export_bundle.py",
        configs=(RUNTIME, "trainer.stages.bundle:BundleConfig"),
        reads=("evaluation",),
        writes=("bundle.json", "README.md", "policy/", "reward_model/"),
    ),
    "report": StageEntry(
        launcher="write_results.py",
        configs=(RUNTIME, "trainer.report.results:ReportConfig"),
        reads=("stages", "evaluation"),
        writes=("results.json", "report.html"),
    ),
}  # fmt: skip


def entry_of_launcher(script: str) -> StageEntry | None:
    """The entry of the stage that `script` (a path or file name) launches; None if it has none."""
    name = Path(script).name
    return next((entry for entry in STAGES.values() if entry.launcher == name), None)
