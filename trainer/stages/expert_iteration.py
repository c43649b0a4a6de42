"""One round of expert iteration (1705.08439): train on verified trajectories, keep a better policy.

The gate compares the greedy answers of the candidate and the incumbent on fresh validation problems
with a paired one-sided exact test. If the candidate is not better, the stage records this and keeps
the incumbent.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from data.held_out import check_rows_held_out
from data.problems import read_demonstrations
from data.slices import Choice, Slice, validation_problems
from data.token_text import TokenText, end_token_ids
from data.types import Problem, StepLabels, TokenRow
from rewards.verifiers.by_name import check_verifier
from search.trees.training_rows import balance_by_difficulty
from trainer.evaluation.policies import evaluate_greedy, groups_of
from trainer.labels.label_files import read_labels
from trainer.measures.results import GateResult
from trainer.measures.statistics import paired_p_value
from trainer.models.compatibility import check_policy
from trainer.models.loading import load_policy, save_model, whole_models
from trainer.models.lora import ALL_WEIGHTS, POLICY, LoraSettings, add_adapter
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.manifests import MANIFEST, UNHASHED_FILES, hash_input, read_json
from trainer.runtime.stage import numbered_inputs, run_stage
from trainer.searching.trajectories import read_trajectories
from trainer.searching.workbench import open_workbench
from trainer.training.batch_size import set_accumulation
from trainer.training.row_order import RowOrder
from trainer.training.token_rows import demonstration_rows, train_on_rows
from trainer.training.trained import save_trained, training_cost


@dataclass(frozen=True, kw_only=True)
class ExpertIterationConfig:
    """One round of expert iteration. The gate uses the first `gate_problems` validation problems
    of `gate_slice`, or those from `gate_skip` on. No earlier round may have used them.
    """

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
    gate_problems: int = 2000
    """Validation problems of the gate."""
    gate_skip: int = 0
    """Validation problems left out at the start, because other rounds use them."""
    gate_slice: str | None = None
    """Named slice of validation that the gate uses, in place of gate_skip; null: none."""
    gate_p_value: float = 0.05
    """The new policy is kept if the one-sided p value of its gain is below this."""
    max_new_tokens: int
    """Limit of one solution at the gate, in tokens after the prompt."""
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
    arguments: Any,
    lora: LoraSettings = ALL_WEIGHTS,
) -> None:
    """Write the next policy: the trained candidate, or the incumbent if the gate refuses it."""
    set_accumulation(arguments, config.global_batch_size)
    inputs: dict[str, str | None] = {"policy": config.policy, "data": config.data}
    inputs |= numbered_inputs("trees", config.trees)
    inputs |= numbered_inputs("labels", config.labels)
    check = partial(check_policy, config.policy)
    with run_stage("expert_iteration", runtime, [config, lora, arguments], inputs, check) as record:
        record.check_start(config.policy)
        folder = Path(runtime.output_dir)
        candidate = folder / "candidate"
        problems = _gate_problems(config)
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
        solved: dict[str, list[bool]] = {}
        for name, path in (("incumbent", config.policy), ("candidate", str(candidate))):
            workbench = open_workbench(
                policy=path,
                reward_model=None,
                verifier=config.verifier,
                seed=runtime.seed,
            )
            _, solved[name] = evaluate_greedy(
                workbench, name, problems, folder / "gate", config.max_new_tokens
            )
            record.search(workbench.usage)
        gate = judge_gate(solved["candidate"], solved["incumbent"], problems, config.gate_p_value)
        updates = trainer.state.global_step
        record.metrics |= {"gate": asdict(gate), "rows": len(rows), "updates": updates}
        if workbench.accelerator.is_main_process:
            _write_next_policy(config.policy, candidate, folder, accepted=gate.accepted)
        workbench.accelerator.wait_for_everyone()


def judge_gate(
    candidate: Sequence[bool],
    incumbent: Sequence[bool],
    problems: Sequence[Problem],
    p_value_below: float,
) -> GateResult:
    """`candidate` and `incumbent` say which problems each policy solves, in the order of
    `problems`."""
    p_value, wins, losses = paired_p_value(candidate, incumbent, groups_of(problems))
    accepted = p_value < p_value_below
    decision = (
        f"below {p_value_below}, so it is kept"
        if accepted
        else f"not below {p_value_below}, so the incumbent stays"
    )
    return GateResult(
        accepted=accepted,
        p_value=p_value,
        wins=wins,
        losses=losses,
        n=len(problems),
        incumbent_accuracy=sum(incumbent) / len(problems),
        candidate_accuracy=sum(candidate) / len(problems),
        reason=(
            f"the candidate solved {wins} problems that the incumbent did not and lost {losses}: "
            f"p = {p_value:.2g}, {decision}"
        ),
    )


def _write_next_policy(policy: str, candidate: Path, folder: Path, *, accepted: bool) -> None:
    """Write the candidate into `folder` if it was accepted, else the incumbent `policy`."""
    if accepted or Path(policy).is_dir():
        _copy_model(candidate if accepted else Path(policy), folder)
    else:  # a hub id
        with whole_models():
            save_model(*load_policy(policy), folder)
    shutil.rmtree(candidate)


def _gate_problems(config: ExpertIterationConfig) -> list[Problem]:
    """Raises ValueError where the validation problems are too few, and where the gate of a round
    that made the policy used one of them."""
    problems = validation_problems(
        config.data, config.gate_skip, config.gate_problems, config.gate_slice
    )
    if len(problems) < config.gate_problems:
        place = f"slice {config.gate_slice!r}" if config.gate_slice else f"{config.gate_skip} on"
        raise ValueError(
            f"the gate wants {config.gate_problems} validation problems from {place}, but there "
            f"are only {len(problems)}"
        )
    own = _gate(config.gate_skip, config.gate_problems, config.gate_slice).resolve(
        Path(config.data)
    )
    for round_folder, used in _earlier_gates(Path(config.policy), config.data):
        if own.overlaps(used):
            raise ValueError(
                f"the gate uses validation problems {own.start}..{own.end - 1}; the gate of "
                f"{str(round_folder)!r}, which made the policy, used {used.start}..{used.end - 1}. "
                "Give each round a gate_slice of its own"
            )
    return problems


def _gate(skip: int, size: int, name: str | None) -> Choice:
    return Choice(split="validation", skip=skip, size=size, name=name)


def _earlier_gates(policy: Path, data: str) -> Iterator[tuple[Path, Slice]]:
    """The rounds on the same data that led to a policy, and the problems that their gates used."""
    here = hash_input(data).get("fingerprint")
    while (manifest := read_json(policy / MANIFEST)) is not None:
        recipe, inputs = manifest["recipe"], manifest["inputs"]
        same_data = inputs.get("data", {}).get("fingerprint") == here
        if manifest["stage"] == "expert_iteration" and same_data:
            gate = _gate(recipe["gate_skip"], recipe["gate_problems"], recipe.get("gate_slice"))
            yield policy, gate.resolve(Path(data))
        if "policy" not in inputs:
            return
        policy = policy / inputs["policy"]["source"]


def _copy_model(source: Path, folder: Path) -> None:
    for path in source.iterdir():
        if path.is_file() and path.name not in (MANIFEST, *UNHASHED_FILES):
            shutil.copyfile(path, folder / path.name)


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
    correct. The last label of a solution that ends with an end token is the verifier's verdict."""
    rows: list[TokenRow] = []
    for _, group in groupby(labels, key=lambda row: row.problem_id):
        solutions = list(group)
        correct = [
            tuple(token for step in row.completion_ids for token in step)
            for row in solutions
            if row.labels[-1] == 1.0 and row.completion_ids[-1][-1] in end_token_ids
        ]
        share = len(correct) / len(solutions)
        rows += [
            TokenRow(prompt_ids=solutions[0].prompt_ids, completion_ids=ids)
            for ids in balance_by_difficulty(correct, share, max_per_problem)
        ]
    return rows
