"""One round of expert iteration (1705.08439): train on verified trajectories, keep a better policy.

The gate compares the greedy answers of the candidate and the incumbent on fresh validation problems
with a paired one-sided exact test. If the candidate is not better, the stage records this and keeps
the incumbent.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from data.held_out import check_rows_held_out
from data.problems import read_demonstrations
from data.token_text import TokenText, end_token_ids
from data.types import StepLabels, TokenRow
from rewards.verifiers.by_name import check_verifier
from search.trees.training_rows import balance_by_difficulty
from trainer.evaluation.gate import run_gate_test
from trainer.labels.label_files import is_correct, read_labels
from trainer.models.compatibility import check_policy
from trainer.models.copying import copy_policy
from trainer.models.loading import load_policy
from trainer.models.lora import ALL_WEIGHTS, POLICY, LoraSettings, add_adapter
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.gates import GateConfig
from trainer.runtime.processes import process_state
from trainer.runtime.stage import numbered_inputs, run_stage
from trainer.searching.trajectories import read_trajectories
from trainer.training.batch_size import set_accumulation
from trainer.training.row_order import RowOrder
from trainer.training.token_rows import demonstration_rows, train_on_rows
from trainer.training.trained import save_trained, training_cost


@dataclass(frozen=True, kw_only=True)
class ExpertIterationConfig:
    """One round of expert iteration: what it starts from, and what it trains on."""

    policy: str
    """Folder or hub id of the policy."""
    data: str
    """Folder of the data stage, with one JSONL file per split."""
    trees: list[str]
    """Folders of the search stage, whose correct solutions are training data."""
    labels: list[str] = field(default_factory=list[str])
    """Folders of the label stage, whose verified rollouts are training data too."""
    max_per_problem: int = 4
    """Maximum number of verified rollouts per problem that are taken from the labels."""
    verifier: str
    """Verifier that judges solutions: math, countdown, code, reasoning_gym, ..."""
    global_batch_size: int | None = None
    """Sequences per update, over all processes; null: gradient_accumulation_steps decides."""
    longest_first: bool = True
    """Put the longest rows first, so that memory runs out at the start or never."""
    sorted_updates: bool = False
    """Sort the rows of an update by length, so that its micro-batches have little padding."""

    def __post_init__(self) -> None:
        check_verifier(self.verifier)


def run_expert_iteration(
    runtime: RuntimeConfig,
    config: ExpertIterationConfig,
    gate: GateConfig,
    arguments: Any,
    lora: LoraSettings = ALL_WEIGHTS,
) -> None:
    """Write the next policy: the trained candidate, or the incumbent if the gate refuses it."""
    set_accumulation(arguments, config.global_batch_size)
    inputs: dict[str, str | None] = {"policy": config.policy, "data": config.data}
    inputs |= numbered_inputs("trees", config.trees)
    inputs |= numbered_inputs("labels", config.labels)
    check = partial(check_policy, config.policy)
    with run_stage(
        "expert_iteration", runtime, [config, gate, lora, arguments], inputs, check
    ) as record:
        record.check_start(config.policy)
        folder = Path(runtime.output_dir)
        candidate = folder / "candidate"
        problems = gate.problems(config.data, [config.policy])
        model, tokenizer = load_policy(config.policy)
        model = add_adapter(model, lora, POLICY, runtime.seed)
        rows = _training_rows(config, tokenizer)
        check_rows_held_out(
            problems, [row.prompt_ids for row in rows], TokenText(tokenizer).encode_prompt
        )
        random.Random(runtime.seed).shuffle(rows)
        order = RowOrder(longest_first=config.longest_first, sorted_updates=config.sorted_updates)
        trainer = train_on_rows(model, tokenizer, rows, arguments, order=order)
        save_trained(trainer, tokenizer, candidate)
        record.training("policy", *training_cost(trainer, rows))
        result, spent = run_gate_test(
            config.policy,
            str(candidate),
            problems,
            folder / "gate",
            verifier=config.verifier,
            seed=runtime.seed,
            max_new_tokens=gate.max_new_tokens,
            p_value_below=gate.gate_p_value,
        )
        for usage in spent:
            record.search(usage)
        updates = trainer.state.global_step
        record.metrics |= {"gate": asdict(result), "rows": len(rows), "updates": updates}
        state = process_state()
        if state.is_main_process:
            copy_policy(str(candidate) if result.accepted else config.policy, folder)
            shutil.rmtree(candidate)
        state.wait_for_everyone()


def _training_rows(config: ExpertIterationConfig, tokenizer: Any) -> list[TokenRow]:
    """The solutions of search, the verified rollouts and the demonstrations, without duplicates."""
    rows: list[TokenRow] = []
    for folder in config.trees:
        rows += read_trajectories(Path(folder) / "trajectories.jsonl")
    for folder in config.labels:
        rows += verified_rollouts(
            read_labels(Path(folder) / "labels.jsonl"),
            config.max_per_problem,
            end_token_ids(tokenizer),
        )
    demonstrations = read_demonstrations(Path(config.data) / "demonstrations.jsonl")
    return list(dict.fromkeys([*rows, *demonstration_rows(demonstrations, tokenizer)]))


def verified_rollouts(
    labels: Iterable[StepLabels], max_per_problem: int, end_token_ids: frozenset[int]
) -> list[TokenRow]:
    """The first correct rollouts of each problem; fewer if many of its distinct rollouts are
    correct."""
    rows: list[TokenRow] = []
    for _, group in groupby(labels, key=lambda row: row.problem_id):
        solutions = list(group)
        correct = [
            tuple(token for step in row.completion_ids for token in step)
            for row in solutions
            if is_correct(row, end_token_ids)
        ]
        share = len(correct) / len(solutions)
        rows += [
            TokenRow(prompt_ids=solutions[0].prompt_ids, completion_ids=ids)
            for ids in balance_by_difficulty(correct, share, max_per_problem)
        ]
    return rows
