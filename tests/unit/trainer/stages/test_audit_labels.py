"""The label stage by every method and the audit of what it made, with a real tiny model; what the
audit says by hand, and on labels whose errors are known."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.json_records import record_from_json
from data.problems import write_problems
from data.tasks.countdown import make_problem
from data.types import StepLabels
from search.labellers.by_name import LabelSettings
from trainer.labels.label_files import read_labels
from trainer.measures.label_errors import (
    AuditedPrefix,
    audit_rows,
    mean_error_by_rows,
    nominal_coverage,
    reference_error,
)
from trainer.measures.results import LabelAudit
from trainer.models.loading import save_model
from trainer.runtime.command_line import parse_with_labeller
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.manifests import read_manifest
from trainer.searching.workbench import Workbench, open_workbench
from trainer.stages.audit_labels import (
    AuditConfig,
    audit_markdown,
    audit_of,
    labelled_prefixes,
    run_audit,
)
from trainer.stages.label import LabelStageConfig, run_label


def audited(problem: str, label: float, count: int, correct: int, **more: Any) -> AuditedPrefix:
    fields: dict[str, Any] = {
        "text": "", "depth": 1, "rows": 1, "standard_error": 0.1, "rollouts": 4, **more,
    }  # fmt: skip
    return AuditedPrefix(problem_id=problem, label=label, count=count, correct=correct, **fields)


def test_the_audits_numbers_by_hand() -> None:
    prefixes = [
        audited("p", 1.0, 1, 2, standard_error=0.5),
        audited("p", 0.5, 2, 2, standard_error=0.3, depth=2, rows=3),
        audited("q", 0.0, 4, 1, standard_error=0.1),
    ]
    # errors 1/2, 0, -1/4; V(1-V): 2 x 2 / (4 x 3) = 1/3 twice, 1 x 3 / 12 = 1/4
    whole, *rest = audit_rows(prefixes)
    assert (whole.group, whole.prefixes, whole.problems) == ("all", 3, 2)
    assert whole.mean_error == pytest.approx(1 / 12)
    # residuals 5/12, -1/12, -1/3 sum to 1/3 and -1/3 by problem: sqrt(2 x 2 / 9) / 3
    half = 1.959964 * math.sqrt(4 / 9) / 3
    assert whole.mean_error_high - whole.mean_error == pytest.approx(half)
    reference = (1 / 3 + 1 / 3 + 1 / 4) / 3 / 4
    assert reference_error(prefixes) == pytest.approx(math.sqrt(reference))
    assert whole.rmse == pytest.approx(math.sqrt((1 / 4 + 1 / 16) / 3 - reference))
    assert whole.variance == pytest.approx((25 + 1 + 16) / 144 / 2 - reference)
    assert whole.expected_variance == pytest.approx((1 / 3 + 1 / 6 + 1 / 16) / 3)
    assert whole.claimed_rmse == pytest.approx(math.sqrt(0.35 / 3))
    # by the score test: 1 of 1 and 2 of 4: P = 3/5, 1/2 <= 1.96 sqrt(0.24 x 1.25): inside, ...
    assert whole.coverage == 1.0 and whole.coverage_naive == 1.0
    # all of 1 or 2 rollouts' intervals contain 1/2; of 4 those of 0 (up to 0.49) to 3 (from 0.30)
    # but not 4's and 3's contain 1/4
    inside = 1 - 0.25**4 - 4 * 0.25**3 * 0.75
    assert nominal_coverage(4, 0.25) == pytest.approx(inside)
    assert whole.expected_coverage == pytest.approx((1 + 1 + inside) / 3)
    assert [row.group for row in rest] == [
        "count 1",
        "count 2",
        "count 3 to 4",
        "depth 1",
        "depth 2",
    ]
    # over rows: (1/2 + 0 x 3 - 1/4) / 5; weighted residuals 9/20, -3/20, -6/20, by problem 6/20 and
    # -6/20, over the mean weight 5/3: half is z sqrt(2 x 2 x 0.18^2) / 3
    by_rows = mean_error_by_rows(prefixes)
    assert by_rows.value == pytest.approx(1 / 20)
    assert by_rows.high - by_rows.value == pytest.approx(1.959964 * 0.36 / 3)


def test_an_audit_finds_what_is_known_of_simulated_labels() -> None:
    """Labels of 4 rollouts against 32: correct ones pass, their noise is found to be theirs alone;
    labels 0.1 too high do not."""
    random = np.random.default_rng(5)
    prefixes: list[AuditedPrefix] = []
    shifted: list[AuditedPrefix] = []
    for i, rate in enumerate(random.beta(0.5, 0.5, size=3000)):
        k, correct = random.binomial(4, rate), int(random.binomial(32, rate))
        prefixes.append(audited(str(i), k / 4, 4, correct, rollouts=32))
        shifted.append(audited(str(i), k / 4 + 0.1, 4, correct, rollouts=32))
    whole, *_ = audit_rows(prefixes)
    assert whole.mean_error_low < 0 < whole.mean_error_high
    assert whole.mean_error_high - whole.mean_error_low < 0.03
    # E[V(1-V)] = 1/8
    assert whole.expected_variance == pytest.approx(1 / 32, rel=0.04)
    assert whole.variance == pytest.approx(1 / 32, rel=0.06)
    assert 0.93 < whole.coverage < 0.97
    wrong, *_ = audit_rows(shifted)
    assert wrong.mean_error_low > 0.08
    assert wrong.rmse == pytest.approx(math.sqrt(1 / 32 + 0.01), rel=0.04)


def row(problem: str, ids: tuple[int, ...], labels: tuple[float, ...]) -> StepLabels:
    return StepLabels(
        problem_id=problem, prompt="?", prompt_ids=(1,), completions=tuple("abc")[: len(ids)],
        completion_ids=tuple((i,) for i in ids), labels=labels, counts=(4,) * len(ids),
        standard_errors=(0.1,) * len(ids),
    )  # fmt: skip


def test_distinct_non_terminal_prefixes_of_rows() -> None:
    rows = [
        row("p", (5, 6, 7), (0.5, 0.25, 1.0)),
        row("p", (5, 8), (0.4, 0.0)),
        row("q", (5,), (1,)),
    ]
    found = labelled_prefixes(rows)
    assert [(f.problem_id, f.token_ids, f.label, f.rows) for f in found] == [
        ("p", (5,), 0.5, 2),
        ("p", (5, 6), 0.25, 1),
    ]


@pytest.fixture(scope="module")
def made(tiny_policy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy and a few problems."""
    root = tmp_path_factory.mktemp("made")
    save_model(*tiny_policy, root / "sft")
    (root / "data").mkdir()
    problems = [make_problem((3, 4, 7), 11 + i) for i in range(4)]
    write_problems(root / "data" / "train.jsonl", problems)
    return root


def make_labels(made: Path, name: str, *words: str) -> Path:
    folder = made / name
    run_label(
        *parse_with_labeller(
            (RuntimeConfig, LabelStageConfig, LabelSettings),
            ["--policy", str(made / "sft"), "--data", str(made / "data"), "--wandb", "false",
             "--output_dir", str(folder), "--max_new_tokens", "24", "--verifier",
             "countdown", *words],
        )
    )  # fmt: skip
    return folder


METHODS: dict[str, list[str]] = {
    "monte_carlo": ["--solutions", "4"],
    "every_step": ["--method", "every_step", "--solutions", "2", "--rollouts", "4"],
    "binary_search": [
        "--method", "binary_search", "--solutions", "2", "--rollouts", "4", "--searches", "2",
        "--search_unsolved", "true",
    ],
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_labels_by_every_method_and_their_audit(made: Path, method: str) -> None:
    folder = make_labels(made, method, *METHODS[method], "--max_generated_tokens", "400")
    rows = list(read_labels(folder / "labels.jsonl"))
    assert {r.problem_id for r in rows} == {f"countdown-3-4-7-to-{11 + i}" for i in range(4)}
    costs = [json.loads(line) for line in (folder / "costs.jsonl").read_text().splitlines()]
    manifest = read_manifest(folder)
    spent = sum(cost["cost"]["policy"]["generated_tokens"] for cost in costs)
    assert spent == manifest["metrics"]["generated_tokens"]
    assert spent == manifest["usage"]["ledger"][0]["generated_tokens"]
    assert manifest["metrics"]["rows"] == len(rows)
    assert not [*folder.glob("*.rank*"), *folder.glob("*journal*"), *folder.glob("*merging*")]

    output = made / f"audit_{method}"
    config = AuditConfig(
        labels=str(folder), policy=str(made / "sft"), data=str(made / "data"), num_prefixes=5,
        rollouts=20,
    )  # fmt: skip
    run_audit(RuntimeConfig(output_dir=str(output), wandb=False, seed=2), config)
    content = json.loads((output / "audit.json").read_text())
    known = labelled_prefixes(rows)
    whole = content["groups"][0]
    assert content["labelled_prefixes"] == len(known)
    assert whole["prefixes"] == min(5, len(known)) and whole["group"] == "all"
    assert "mean error" in (output / "audit.md").read_text()
    for line in (output / "prefixes.jsonl").read_text().splitlines():
        prefix = json.loads(line)
        assert prefix["rollouts"] == 20 and prefix["text"]
        assert prefix["depth"] == prefix["text"].count("\n")
    metrics = read_manifest(output)["metrics"]
    assert metrics["coverage"] == whole["coverage"] and metrics["prefixes"] == whole["prefixes"]
    tokens = read_manifest(output)["usage"]["ledger"][0]
    assert tokens["sequences"] == 20 * whole["prefixes"] and tokens["generated_tokens"] > 0


def test_kept_prefixes_change_no_label_and_no_reference(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels, references and ledgers are equal, and the engine loads what the ledger calls
    repeated."""
    opened: list[Workbench] = []

    def opening(**fields: Any) -> Workbench:
        opened.append(open_workbench(**fields))
        return opened[-1]

    for module in ("label", "audit_labels"):
        monkeypatch.setattr(f"trainer.stages.{module}.open_workbench", opening)
    ledgers: list[Any] = []
    for mib in (0, 4):
        folder = make_labels(made, f"kept_{mib}", *METHODS["every_step"],
                             "--kept_prefixes_mib", str(mib))  # fmt: skip
        config = AuditConfig(
            labels=str(folder), policy=str(made / "sft"), data=str(made / "data"), num_prefixes=5,
            rollouts=4, kept_prefixes_mib=mib,
        )  # fmt: skip
        audit = made / f"audit_kept_{mib}"
        run_audit(RuntimeConfig(output_dir=str(audit), wandb=False, seed=2), config)
        ledgers.append([read_manifest(f)["usage"]["ledger"] for f in (folder, audit)])
    for name, file in (("kept", "labels.jsonl"), ("audit_kept", "references.jsonl")):
        assert (made / f"{name}_0" / file).read_text() == (made / f"{name}_4" / file).read_text()
    assert ledgers[0] == ledgers[1]
    loaded = [workbench.engine.loaded_positions for workbench in opened]
    labelling, auditing = (ledger[0]["repeated_positions"] for ledger in ledgers[0])
    assert loaded[:2] == [0, 0]
    assert loaded[2] >= labelling > 0 and loaded[3] >= auditing > 0
    with pytest.raises(ValueError, match="kept_prefixes_mib is -1"):
        AuditConfig(labels="x", policy="p", data="d", kept_prefixes_mib=-1)
    with pytest.raises(ValueError, match="kept_prefixes_mib is -1"):
        LabelSettings(kept_prefixes_mib=-1)


def test_an_audit_says_what_it_cannot_judge(made: Path) -> None:
    hard = make_labels(
        made, "hard", "--solutions", "2", "--hard_labels", "true", "--num_problems", "1"
    )
    settings: dict[str, Any] = {"policy": str(made / "sft"), "data": str(made / "data")}
    runtime = RuntimeConfig(output_dir=str(made / "refused"), wandb=False)
    with pytest.raises(ValueError, match="labels are hard"):
        run_audit(runtime, AuditConfig(labels=str(hard), **settings))
    with pytest.raises(ValueError, match=r"it has no manifest\.json"):
        run_audit(runtime, AuditConfig(labels=str(made / "data"), **settings))
    exact = make_labels(
        made, "exact", "--method", "solver", "--solutions", "3", "--num_problems", "1"
    )
    assert {label for row in read_labels(exact / "labels.jsonl") for label in row.labels} <= {0, 1}
    with pytest.raises(ValueError, match="labels are the solver's"):
        run_audit(runtime, AuditConfig(labels=str(exact), **settings))
    with pytest.raises(ValueError, match="method is 'solver', but verifier is 'math'"):
        LabelStageConfig(policy="p", data="d", method="solver", verifier="math")
    soft = make_labels(made, "soft", "--solutions", "2", "--num_problems", "1")
    (made / "other").mkdir(exist_ok=True)
    (made / "other" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="set other_policy: true to allow this"):
        run_audit(
            runtime,
            AuditConfig(labels=str(soft), **(settings | {"policy": str(made / "other")})),
        )
    with pytest.raises(ValueError, match="num_prefixes is 1"):
        AuditConfig(labels="x", policy="p", data="d", num_prefixes=1)
    with pytest.raises(ValueError, match="rollouts is 1"):
        AuditConfig(labels="x", policy="p", data="d", rollouts=1)


def test_rows_and_text_of_an_audit() -> None:
    config = AuditConfig(labels="x", policy="p", data="d", rollouts=4)
    prefixes = [audited("p", 1.0, 1, 4), audited("q", 0.5, 2, 1)]
    audit = audit_of(prefixes, labelled=9, config=config)
    assert [g.group for g in audit.groups] == ["all", "count 1", "count 2", "depth 1"]
    # the first one's reference is 1; 1 of 2 beside 1 of 4: inside, as are 0, 1 of 2 but not 2 of 2
    assert audit.undecided.prefixes == 1 and audit.undecided.coverage == 1.0
    assert audit.undecided.expected == pytest.approx(1 - 0.25**2)
    text = audit_markdown(audit)
    assert "2 of 9 labelled prefixes, 4 fresh rollouts each" in text
    assert "| all | 2 | +0.1250 " in text
    assert record_from_json(LabelAudit, json.loads(json.dumps(asdict(audit)))) == audit
