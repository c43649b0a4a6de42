"""The audit stage labels prefixes again, each by many fresh rollouts.

It audits non-terminal prefixes only, because the last label of a solution is the verifier's
verdict.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data.problems import read_problems
from data.types import StepLabels
from search.base import SearchResult
from search.measurements.prefix_success import RelabelConfig, successes_of
from search.settings import SearchSettings
from trainer.labels.label_files import read_labels
from trainer.measures.label_errors import (
    AuditedPrefix,
    audit_rows,
    mean_error_by_rows,
    reference_error,
    undecided_coverage,
)
from trainer.measures.results import LabelAudit
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.manifests import hash_input, read_manifest
from trainer.runtime.stage import run_stage
from trainer.searching.workbench import Workbench, open_workbench

CONCURRENT = 16  # problems at once: each has `rollouts` rows in flight


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """Which labels are audited. The manifest of the labels says how rollouts are sampled and
    verified.
    """

    labels: str
    """Folder of the label stage."""
    policy: str
    """Policy that made the labels."""
    data: str
    """Folder of the data stage that the labels were made with."""
    num_prefixes: int = 1000
    """Distinct unfinished prefixes, drawn by the seed; at least 2."""
    rollouts: int = 256
    """Fresh rollouts per prefix."""
    other_policy: bool = False
    """Allow a policy that did not make the labels; the audit then measures their difference."""
    kept_prefixes_mib: int = 0
    """Memory for keys and values of prefixes, MiB per model and process; 0: none are kept."""

    def __post_init__(self) -> None:
        if self.num_prefixes < 2:
            raise ValueError(f"num_prefixes is {self.num_prefixes}; it must be at least 2")
        RelabelConfig(prefixes={}, rollouts=self.rollouts)
        SearchSettings(kept_prefixes_mib=self.kept_prefixes_mib)


@dataclass(frozen=True, kw_only=True)
class LabelledPrefix:
    """A distinct prefix, and its label in the first row that holds it. `rows` counts the rows that
    hold the prefix."""

    problem_id: str
    token_ids: tuple[int, ...]
    label: float
    count: int
    standard_error: float
    rows: int


def labelled_prefixes(labels: Iterable[StepLabels]) -> list[LabelledPrefix]:
    """Distinct non-terminal prefixes in order of appearance. Sampling alone decides which row comes
    first and how many rows follow; correctness does not. The mean over prefixes is therefore free
    of the selection that made the rows (docs/labels.md)."""
    found: dict[tuple[str, tuple[int, ...]], tuple[float, int, float]] = {}
    rows: dict[tuple[str, tuple[int, ...]], int] = {}
    for row in labels:
        prefix: tuple[int, ...] = ()
        evidence = zip(row.completion_ids, row.labels, row.counts, row.standard_errors, strict=True)
        for step, label, count, error in list(evidence)[:-1]:
            prefix += step
            key = (row.problem_id, prefix)
            found.setdefault(key, (label, count, error))
            rows[key] = rows.get(key, 0) + 1
    return [
        LabelledPrefix(
            problem_id=problem,
            token_ids=prefix,
            label=label,
            count=count,
            standard_error=error,
            rows=rows[problem, prefix],
        )
        for (problem, prefix), (label, count, error) in found.items()
    ]


def run_audit(runtime: RuntimeConfig, config: AuditConfig) -> None:
    """Write audit.json, audit.md, prefixes.jsonl and references.jsonl (the rollouts' counts).

    Raises ValueError for hard and exact labels, which do not estimate a success rate, for labels of
    another policy, and when fewer than two prefixes can be audited.
    """
    recipe = _label_recipe(config)
    inputs: dict[str, str | None] = {
        "labels": config.labels,
        "policy": config.policy,
        "data": config.data,
    }
    with run_stage("audit", runtime, [config], inputs) as record:
        folder = Path(runtime.output_dir)
        workbench = open_workbench(
            policy=config.policy,
            reward_model=None,
            verifier=recipe["verifier"],
            seed=runtime.seed,
            kept_prefixes_mib=config.kept_prefixes_mib,
        )
        known = labelled_prefixes(read_labels(Path(config.labels) / "labels.jsonl"))
        if len(known) < 2:
            raise ValueError(
                f"labels is {config.labels!r}; it has fewer than 2 unfinished prefixes"
            )
        size = min(config.num_prefixes, len(known))
        chosen = random.Random(runtime.seed).sample(known, size)
        results = _references(workbench, chosen, config, recipe, folder)
        record.search(workbench.usage)
        audited = _side_by_side(workbench, chosen, results)
        if workbench.accelerator.is_main_process:
            audit = audit_of(audited, labelled=len(known), config=config)
            content = asdict(audit)
            (folder / "audit.json").write_text(json.dumps(content, indent=1))
            (folder / "audit.md").write_text(audit_markdown(audit))
            with (folder / "prefixes.jsonl").open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(asdict(prefix)) + "\n" for prefix in audited)
            record.run.log_table("audit", content["groups"])
            print(audit_markdown(audit))
            record.metrics |= {k: v for k, v in content["groups"][0].items() if k != "group"}
            by_rows = content["mean_error_by_rows"]
            record.metrics |= {f"mean_error_by_rows_{key}": by_rows[key] for key in by_rows}
        workbench.accelerator.wait_for_everyone()


def _label_recipe(config: AuditConfig) -> dict[str, Any]:
    """The recipe of the label stage, which says how the labels were made."""
    manifest = read_manifest(config.labels)
    if manifest["stage"] != "label":
        raise ValueError(
            f"labels is {config.labels!r}, a folder of the stage {manifest['stage']!r}; it must be "
            "a folder of the label stage"
        )
    recipe = manifest["recipe"]
    if recipe.get("hard_labels", recipe.get("hard")):  # older manifests have the second name
        raise ValueError(
            f"labels is {config.labels!r}, whose labels are hard and do not estimate a success "
            "rate; audit the labels of a run with hard_labels: false"
        )
    if recipe["method"] == "solver":
        raise ValueError(
            f"labels is {config.labels!r}, whose labels are the solver's and do not estimate a "
            "success rate; audit labels of another method"
        )
    made_with = manifest["inputs"].get("policy", {}).get("fingerprint")
    if made_with != hash_input(config.policy).get("fingerprint") and not config.other_policy:
        raise ValueError(
            f"policy is {config.policy!r}, which did not make the labels of {config.labels!r}; "
            "set other_policy: true to allow this"
        )
    return recipe


def _references(
    workbench: Workbench,
    chosen: Sequence[LabelledPrefix],
    config: AuditConfig,
    recipe: Mapping[str, Any],
    folder: Path,
) -> list[SearchResult]:
    prefixes: dict[str, list[tuple[int, ...]]] = {}
    for prefix in chosen:
        prefixes.setdefault(prefix.problem_id, []).append(prefix.token_ids)
    path = Path(config.data) / f"{recipe['split']}.jsonl"
    problems = [problem for problem in read_problems(path) if problem.id in prefixes]
    missing = prefixes.keys() - {problem.id for problem in problems}
    if missing:
        raise ValueError(
            f"{path} lacks the labelled problem {min(missing)!r}: set data to the folder that the "
            "labels were made with"
        )
    return workbench.search(
        problems,
        RelabelConfig(prefixes=prefixes, rollouts=config.rollouts),
        SearchSettings(temperature=recipe["temperature"], max_new_tokens=recipe["max_new_tokens"]),
        folder=folder,
        name="references",
        policy_name=Path(config.policy).name,
        max_concurrent=CONCURRENT,
    )


def _side_by_side(
    workbench: Workbench, chosen: Sequence[LabelledPrefix], results: Sequence[SearchResult]
) -> list[AuditedPrefix]:
    references = {
        (result.problem.id, prefix.token_ids): prefix
        for result in results
        for prefix in successes_of(result)
    }
    audited: list[AuditedPrefix] = []
    for prefix in chosen:
        reference = references[prefix.problem_id, prefix.token_ids]
        audited.append(
            AuditedPrefix(
                problem_id=prefix.problem_id,
                text=reference.text,
                depth=len(workbench.engine.step_ends(prefix.token_ids)),
                rows=prefix.rows,
                label=prefix.label,
                count=prefix.count,
                standard_error=prefix.standard_error,
                correct=reference.correct,
                rollouts=reference.rollouts,
            )
        )
    return audited


def audit_of(audited: Sequence[AuditedPrefix], *, labelled: int, config: AuditConfig) -> LabelAudit:
    return LabelAudit(
        labelled_prefixes=labelled,
        rollouts=config.rollouts,
        reference_rmse=reference_error(audited),
        mean_error_by_rows=mean_error_by_rows(audited),
        groups=tuple(audit_rows(audited)),
        undecided=undecided_coverage(audited),
    )


def audit_markdown(audit: LabelAudit) -> str:
    by_rows, undecided = audit.mean_error_by_rows, audit.undecided
    lines = [
        f"{audit.groups[0].prefixes} of {audit.labelled_prefixes} labelled prefixes, "
        f"{audit.rollouts} fresh rollouts each; the references' own error (root mean square "
        f"{audit.reference_rmse:.4f}) is accounted for.",
        "",
        "| prefixes | n | mean error | variance (expected) | RMSE (expected, claimed) |"
        " 95 % intervals cover, % (expected, naive) |",
        "|---|---|---|---|---|---|",
    ]
    for row in audit.groups:
        lines.append(
            f"| {row.group} | {row.prefixes} | {row.mean_error:+.4f} "
            f"[{row.mean_error_low:+.4f}, {row.mean_error_high:+.4f}] | "
            f"{row.variance:.4f} ({row.expected_variance:.4f}) | "
            f"{row.rmse:.3f} ({row.expected_rmse:.3f}, {row.claimed_rmse:.3f}) | "
            f"{100 * row.coverage:.1f} [{100 * row.coverage_low:.1f}, "
            f"{100 * row.coverage_high:.1f}] ({100 * row.expected_coverage:.1f}, "
            f"{100 * row.coverage_naive:.1f}) |"
        )
    lines += [
        "",
        "Mean error over the steps of rows, where a prefix counts as often as it is trained on: "
        f"{by_rows.value:+.4f} [{by_rows.low:+.4f}, {by_rows.high:+.4f}].",
        f"Coverage of the {undecided.prefixes} prefixes whose reference is neither 0 nor 1: "
        f"{100 * undecided.coverage:.1f} % (expected {100 * undecided.expected:.1f} %).",
    ]
    return "\n".join(lines) + "\n"
