"""DPO on pairs of steps: what TRL is given, token by token, and what it learns from it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import TrainerCallback

from data.problems import write_problems
from data.tasks.countdown import make_problem
from search.engines.transformers_engine import EngineConfig, TransformersEngine
from search.trees.training_rows import PreferenceRow
from trainer.labels.step_preference_files import read_step_preferences
from trainer.models.loading import load_policy, save_model
from trainer.rollouts.held_out import HeldOutConfig
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.manifests import read_manifest
from trainer.stages import dpo
from trainer.stages.dpo import StepPreferenceConfig, run_dpo, step_preference_dataset
from trainer.training.checkpoints import mark_whole

PROBLEM = make_problem((1, 2, 3), 6)
FIRST, OTHER = "1 + 2 = 3 | 3 3\n", "1 - 2 = 1 | 1 3\n"
LAST, WRONG = "3 + 3 = 6 | 6", "3 - 3 = 0 | 0"


def engine_of(tiny_policy: Any) -> TransformersEngine:
    return TransformersEngine(*tiny_policy, EngineConfig(seed=1))


def rows_of(engine: TransformersEngine) -> list[dict[str, Any]]:
    """A pair of first steps, and one of last steps after the better of them, as exported."""
    end = (engine.end_token_id,)
    common: dict[str, Any] = {
        "problem_id": PROBLEM.id, "problem_prompt": PROBLEM.prompt, "chosen_value": 0.9,
        "rejected_value": 0.1, "chosen_visits": 4, "rejected_visits": 4,
    }  # fmt: skip
    first, other = engine.encode(FIRST), engine.encode(OTHER)
    rows = (
        PreferenceRow(
            prompt=PROBLEM.prompt, chosen=FIRST, rejected=OTHER, prefix_ids=(), chosen_ids=first,
            rejected_ids=other, **common,
        ),
        PreferenceRow(
            prompt=PROBLEM.prompt + FIRST, chosen=LAST, rejected=WRONG, prefix_ids=first,
            chosen_ids=engine.encode(LAST) + end, rejected_ids=engine.encode(WRONG) + end, **common,
        ),
    )  # fmt: skip
    return [asdict(row) for row in rows]


@pytest.fixture
def folders(tiny_policy: Any, tmp_path: Path) -> Path:
    """`policy`, `data` and `export` folders."""
    save_model(*tiny_policy, tmp_path / "policy")
    for name in ("data", "export"):
        (tmp_path / name).mkdir()
    write_problems(tmp_path / "data" / "validation.jsonl", [make_problem((1, 1, 3), 5)])
    rows = rows_of(engine_of(tiny_policy))
    (tmp_path / "export" / "step_preferences.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows)
    )
    return tmp_path


def arguments_of(out: Path, **changes: Any) -> Any:
    from trl.trainer.dpo_config import DPOConfig

    values: dict[str, Any] = {
        "output_dir": str(out), "max_steps": 8, "per_device_train_batch_size": 2, "beta": 0.5,
        "learning_rate": 3e-3, "max_length": None, "bf16": False, "gradient_checkpointing": False,
        "report_to": [], "use_cpu": True, "disable_tqdm": True, "save_steps": 4,
    }  # fmt: skip
    return DPOConfig(**(values | changes))


def run(folders: Path, name: str, **changes: Any) -> Path:
    out = folders / name
    config = StepPreferenceConfig(
        policy=str(folders / "policy"),
        step_preferences=[str(folders / "export")],
        data=str(folders / "data"),
        verifier="countdown",
    )
    evaluation = HeldOutConfig(evaluate_every=1, evaluation_problems=1, max_new_tokens=6)
    runtime = RuntimeConfig(output_dir=str(out), wandb=False)
    run_dpo(runtime, config, evaluation, arguments_of(out, **changes))
    return out


def logprobs(folder: Path, prompt: tuple[int, ...], step: tuple[int, ...]) -> float:
    model, _ = load_policy(str(folder))
    ids = torch.tensor([prompt + step])
    with torch.no_grad():
        log = torch.log_softmax(model.eval()(input_ids=ids).logits[0, :-1], -1)
    chosen = log.gather(-1, ids[0, 1:, None])[len(prompt) - 1 :]
    return float(chosen.sum())


def test_trl_is_given_the_steps_as_they_were_generated(folders: Path, tiny_policy: Any) -> None:
    engine = engine_of(tiny_policy)
    pairs = read_step_preferences(str(folders / "export"), engine, None)
    question, first = engine.encode(PROBLEM.prompt), engine.encode(FIRST)
    assert [pair.prompt_ids for pair in pairs] == [question, question + first]
    end = engine.end_token_id
    assert pairs[0].chosen_ids == first and end not in pairs[0].rejected_ids
    assert pairs[1].chosen_ids == (*engine.encode(LAST), end)
    model, tokenizer = load_policy(str(folders / "policy"))
    trainer = dpo._trainer_class()(
        model=model, args=arguments_of(folders / "x"),
        train_dataset=step_preference_dataset(pairs[:1]), processing_class=tokenizer,
    )  # fmt: skip
    [batch] = list(trainer.get_train_dataloader())
    both = [list(question + ids) for ids in (pairs[0].chosen_ids, pairs[0].rejected_ids)]
    assert batch["input_ids"].tolist() == both
    masks = [[0] * len(question) + [1] * (len(ids) - len(question)) for ids in both]
    assert batch["completion_mask"].tolist() == masks


@pytest.mark.slow
def test_dpo_prefers_the_better_step_and_does_not_end_after_it(
    folders: Path, tiny_policy: Any
) -> None:
    engine = engine_of(tiny_policy)
    out = run(folders, "out")
    for pair in read_step_preferences(str(folders / "export"), engine, None):
        margins = [
            logprobs(folder, pair.prompt_ids, pair.chosen_ids)
            - logprobs(folder, pair.prompt_ids, pair.rejected_ids)
            for folder in (folders / "policy", out)
        ]
        assert margins[1] > margins[0] + 1.0  # nats
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["metrics"]["pairs"] == 2 and manifest["metrics"]["updates"] == 8
    evaluating, _, training = manifest["usage"]["ledger"]
    assert evaluating["sequences"] == 9  # before the first step and after each
    sequences = [
        len(pair.prompt_ids) + len(ids)
        for pair in read_step_preferences(str(folders / "export"), engine, None)
        for ids in (pair.chosen_ids, pair.rejected_ids)
    ]
    assert training["positions"] == 8 * sum(sequences)
    flops = 4 * 8 * sum(engine.flops.forward(0, length) for length in sequences)
    assert training["flops"] == pytest.approx(flops)
    assert not [*out.glob("checkpoint-*")]


@pytest.mark.slow
def test_a_run_that_was_cut_off_ends_the_same(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dies(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 6:
                raise KeyboardInterrupt

    whole = run(folders, "whole")
    of = dpo._trainer_class

    def dying() -> Any:
        def build(callbacks: list[Any], **values: Any) -> Any:
            return of()(callbacks=[*callbacks, Dies()], **values)

        return build

    monkeypatch.setattr(dpo, "_trainer_class", dying)
    with pytest.raises(KeyboardInterrupt):
        run(folders, "cut")
    assert (folders / "cut" / "checkpoint-4").exists()
    monkeypatch.setattr(dpo, "_trainer_class", of)
    again = run(folders, "cut")
    first, second = (load_file(out / "model.safetensors") for out in (whole, again))
    assert all(torch.equal(first[name], second[name]) for name in first)
    texts = [(out / "evaluations.jsonl").read_text() for out in (whole, again)]
    assert texts[0] == texts[1]
    ledgers = [json.loads((out / "manifest.json").read_text())["usage"] for out in (whole, again)]
    assert ledgers[0] == ledgers[1]


@pytest.mark.slow
def test_no_update_follows_the_last_one(
    folders: Path, monkeypatch: pytest.MonkeyPatch, die_late: Any
) -> None:
    changes = {"max_steps": 7, "per_device_train_batch_size": 1}  # ends within an epoch
    whole = run(folders, "whole/out", **changes)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        die_late(patch, 7)
        run(folders, "cut/out", **changes)
    found = [read_manifest(out) for out in (whole, run(folders, "cut/out", **changes))]
    for key in ("outputs", "usage", "metrics"):
        assert found[0][key] == found[1][key]


def test_a_checkpoint_of_another_batch_size_is_refused(folders: Path) -> None:
    checkpoint = folders / "out" / "checkpoint-4"
    checkpoint.mkdir(parents=True)
    mark_whole(checkpoint, 4, 1, batch=6, verdicts={})
    with pytest.raises(ValueError, match="6 sequences per update, but this run takes 2"):
        run(folders, "out")


def test_parquet_holds_the_same_pairs(folders: Path, tiny_policy: Any, tmp_path: Path) -> None:
    engine = engine_of(tiny_policy)
    path = tmp_path / "pairs.parquet"
    Dataset.from_list(rows_of(engine)).to_parquet(str(path))
    expected = read_step_preferences(str(folders / "export"), engine, None)
    assert read_step_preferences(str(path), engine, None) == expected


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"chosen_ids": None}, "row 2: not a pair of steps"),
        ({"rejected_ids": []}, "row 2: .*rejected_ids is empty"),
        ({"chosen": "2 + 2"}, "row 2: .*chosen_ids decode to '3 . 3 = 6 . 6' with this policy"),
        ({"problem_prompt": "what is 2?"}, "row 2: .*not in the vocabulary"),
    ],
)
def test_a_bad_row_is_named(
    folders: Path, tiny_policy: Any, changes: dict[str, Any], said: str
) -> None:
    engine = engine_of(tiny_policy)
    rows = rows_of(engine)
    rows[1] |= changes
    path = folders / "export" / "step_preferences.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=rf"step_preferences\.jsonl, {said}"):
        read_step_preferences(str(folders / "export"), engine, None)


def test_what_cannot_be_learnt_from_is_refused(folders: Path, tiny_policy: Any) -> None:
    engine = engine_of(tiny_policy)
    with pytest.raises(ValueError, match=r"row 1: .*it has 15 tokens; max_length is 12"):
        read_step_preferences(str(folders / "export"), engine, 12)
    with pytest.raises(ValueError, match=r"which has no step_preferences\.jsonl or \.parquet"):
        read_step_preferences(str(folders / "data"), engine, None)
    with pytest.raises(ValueError, match="step_preferences is empty"):
        StepPreferenceConfig(policy="p", data="d", step_preferences=[], verifier="countdown")
    (folders / "export" / "step_preferences.jsonl").write_text("")
    with pytest.raises(ValueError, match="holds no row: lower min_gap or min_visits"):
        run(folders, "none")
