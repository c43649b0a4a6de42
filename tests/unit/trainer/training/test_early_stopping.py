"""A training on demonstrations ends when its validation accuracy rises no more, and keeps the best
weights, also when it was killed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file
from trl.trainer.sft_config import SFTConfig

from data.problems import write_demonstrations, write_problems
from data.tasks.countdown import make_problem
from data.types import Demonstration, Outcome, Problem, Verdict
from rewards.verifiers.by_name import VERIFIERS
from rewards.verifiers.tally import TALLY
from tests.unit.trainer.conftest import die_after_the_last_update
from trainer.measures.saturation import still_rising
from trainer.models.loading import save_model
from trainer.rollouts.early_stopping import EarlyStoppingConfig, KeepBest
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.manifests import read_manifest, write_manifest
from trainer.stages.sft import PolicyConfig, run_sft


def test_still_rising_by_hand() -> None:
    # 300 updates: the last third begins after 200. One standard error at 30 % of 400 is 2.3 points.
    updates = [0, 100, 200, 300]
    assert still_rising(updates, [0.0, 0.2, 0.3, 0.33], 400)
    assert not still_rising(updates, [0.0, 0.2, 0.3, 0.32], 400)
    assert not still_rising(updates, [0.0, 0.35, 0.3, 0.33], 400)
    assert not still_rising(updates, [0.0, 0.0, 0.0, 0.002], 400)
    assert still_rising([0, 10], [0.0, 0.3], 400)
    assert not still_rising([0], [0.3], 400)


class Curve:
    """Evaluations with the given accuracies, one per step from 0 on."""

    def __init__(self, accuracies: list[float]) -> None:
        self.accuracies, self.measured = accuracies, 1

    def rows(self) -> list[dict[str, Any]]:
        return [{"cycle": i, "accuracy": a} for i, a in enumerate(self.accuracies[: self.measured])]


def run(
    curve: Curve,
    folder: Path,
    *,
    patience: int,
    start: int,
    end: int,
    save_every: int,
    target: float = 0.0,
) -> Any:
    """Steps start..end of a training whose weights are the number of the step."""
    state = SimpleNamespace(global_step=start, is_world_process_zero=True)
    control = SimpleNamespace(should_training_stop=False)

    def save(path: Path) -> None:
        path.mkdir()
        (path / "weights").write_text(str(state.global_step))

    keep = KeepBest(
        curve,  # type: ignore[arg-type]
        patience=patience,
        target=target,
        folder=folder,
        save=save,
    )
    curve.measured = start + 1
    keep.on_train_begin(None, state, control)
    while state.global_step < end and not control.should_training_stop:
        state.global_step += 1
        curve.measured = state.global_step + 1
        keep.on_step_end(None, state, control)
        if state.global_step % save_every == 0:
            (folder / f"checkpoint-{state.global_step}").mkdir(exist_ok=True)
            keep.on_save(None, state, control)
            for old in folder.glob("checkpoint-[0-9]*"):  # one checkpoint is kept
                if old.name != f"checkpoint-{state.global_step}":
                    shutil.rmtree(old)
    keep.on_train_end(None, state, control)
    return state.global_step, keep


def test_the_first_of_the_best_evaluations_is_kept_and_patience_ends_the_training(
    tmp_path: Path,
) -> None:
    curve = Curve([0.1, 0.3, 0.2, 0.5, 0.4, 0.5, 0.6, 0.7])
    step, keep = run(curve, tmp_path, patience=2, start=0, end=7, save_every=2)
    assert step == 5 and keep.stopped and keep.best()["cycle"] == 3
    assert (keep.best_folder() / "weights").read_text() == "3"
    curve.measured = 1
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    step, keep = run(curve, tmp_path, patience=0, start=0, end=7, save_every=2)
    assert step == 7 and not keep.stopped
    assert (keep.best_folder() / "weights").read_text() == "7"


def test_patience_begins_with_the_first_solved_problem(tmp_path: Path) -> None:
    curve = Curve([0.0, 0.0, 0.0, 0.0, 0.1, 0.1, 0.1, 0.5])
    step, keep = run(curve, tmp_path, patience=2, start=0, end=7, save_every=2)
    assert (step, keep.best()["cycle"]) == (6, 4)
    (tmp_path / "nothing").mkdir()
    nothing = Curve([0.0] * 8)
    step, keep = run(nothing, tmp_path / "nothing", patience=2, start=0, end=7, save_every=2)
    assert step == 7 and (keep.best_folder() / "weights").read_text() == "7"


def test_a_training_ends_where_it_reaches_the_target(tmp_path: Path) -> None:
    curve = Curve([0.6, 0.3, 0.49, 0.5, 0.7, 0.8])
    step, keep = run(curve, tmp_path, patience=0, target=0.5, start=0, end=5, save_every=9)
    assert step == 3 and keep.reached and not keep.stopped  # the start does not count
    # Killed at the update that reaches it, and at the one before.
    for killed in (2, 3):
        folder = tmp_path / str(killed)
        folder.mkdir()
        rising = Curve([0.1, 0.3, 0.49, 0.5, 0.7, 0.8])
        run(rising, folder, patience=0, target=0.9, start=0, end=killed, save_every=1)
        step, keep = run(rising, folder, patience=0, target=0.5, start=killed, end=5, save_every=9)
        assert (step, keep.best()["cycle"]) == (3, 3)
        assert (keep.best_folder() / "weights").read_text() == "3"
    never, keep = run(curve, tmp_path, patience=0, target=0.9, start=0, end=5, save_every=9)
    assert never == 5 and not keep.reached


@pytest.mark.parametrize("killed", [3, 4, 5, 6, 7])
def test_the_best_weights_of_a_checkpoint_are_there_when_a_run_goes_on(
    tmp_path: Path, killed: int
) -> None:
    """The run is killed after update `killed`, and goes on from the newest checkpoint."""
    curve = Curve([0.1, 0.3, 0.2, 0.5, 0.4, 0.6, 0.55, 0.5])
    run(curve, tmp_path, patience=0, start=0, end=killed, save_every=2)
    step, keep = run(curve, tmp_path, patience=2, start=killed // 2 * 2, end=9, save_every=2)
    assert (step, keep.best()["cycle"]) == (7, 5)
    assert (keep.best_folder() / "weights").read_text() == "5"


class Finishes:
    """Accepts every solution that has text and ends by itself. Its verdicts are counted."""

    def verify(self, problem: Problem, solution: str) -> Verdict:
        outcome = Outcome.CORRECT if solution else Outcome.WRONG
        return TALLY.count("finishes", Verdict(outcome=outcome))


@pytest.fixture
def made(tiny_policy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    save_model(*tiny_policy, tmp_path / "policy")
    (tmp_path / "data").mkdir()
    rows = [
        Demonstration(problem=make_problem((3, 4, 7 + i), 14 + i), solution="3 + 4")
        for i in range(16)
    ]
    write_demonstrations(tmp_path / "data" / "demonstrations.jsonl", rows)
    held_out = [make_problem((1, 2, 3 + i), 6 + i) for i in range(8)]
    write_problems(tmp_path / "data" / "validation.jsonl", held_out)
    monkeypatch.setitem(VERIFIERS, "finishes", Finishes)
    return tmp_path


def train(made: Path, folder: Path, save_steps: int = 3) -> None:
    arguments = SFTConfig(
        output_dir=str(folder), max_steps=60, save_steps=save_steps, save_total_limit=1,
        bf16=False, per_device_train_batch_size=4, learning_rate=3e-3, use_cpu=True, seed=5,
        report_to="none", disable_tqdm=True, logging_steps=1, max_length=None,
        lr_scheduler_type="constant",
    )  # fmt: skip
    stopping = EarlyStoppingConfig(
        evaluation_problems=8, evaluate_every=2, patience=2, evaluation_verifier="finishes",
        evaluation_max_new_tokens=6,
    )  # fmt: skip
    config = PolicyConfig(model=str(made / "policy"), data=str(made / "data"))
    runtime = RuntimeConfig(output_dir=str(folder), wandb=False, seed=5)
    run_sft(runtime, config, arguments, stopping=stopping)


@pytest.mark.slow
def test_a_killed_run_stops_at_the_same_update_with_the_same_weights(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = made / "whole" / "out"
    train(made, whole)
    found = read_manifest(whole)
    metrics = found["metrics"]
    assert metrics["verdicts/finishes/correct"] > 8  # the counts of all attempts are compared
    rows = [json.loads(line) for line in (whole / "evaluations.jsonl").read_text().splitlines()]
    assert rows[0]["cycle"] == 0 and metrics["stopped_early"] and not metrics["still_rising"]
    best = max(rows, key=lambda row: row["accuracy"])
    assert best["accuracy"] > rows[0]["accuracy"]
    assert metrics["best_update"] == best["cycle"] == metrics["updates"] - 4 < 56
    assert not list(whole.glob("checkpoint*"))
    # Killed at the checkpoint after the best evaluation, and at the very update that ends it.
    stop = metrics["updates"]
    for name, at, every in (("early", stop // 3 * 3, 3), ("late", stop, stop)):
        cut = made / name / "out"
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            die_after_the_last_update(patch, "checkpoint", at)
            train(made, cut, every)
        train(made, cut, every)
        again = read_manifest(cut)
        assert again["metrics"] == metrics and again["usage"] == found["usage"]
        one, other = (load_file(out / "model.safetensors") for out in (whole, cut))
        assert all((one[key] == other[key]).all() for key in one)


def test_what_is_judged_must_be_known(made: Path) -> None:
    config = EarlyStoppingConfig(evaluation_problems=8)
    with pytest.raises(
        ValueError, match=r"evaluation_verifier is not given, and '.*data' does not"
    ):
        config.resolved(str(made / "data"))
    with pytest.raises(ValueError, match="patience is 2, but evaluation_problems is 0"):
        EarlyStoppingConfig(patience=2)
    with pytest.raises(ValueError, match=r"target_accuracy is 0\.5, but evaluation_problems is 0"):
        EarlyStoppingConfig(target_accuracy=0.5)
    with pytest.raises(ValueError, match=r"target_accuracy is 50; it must be in \[0, 1\]"):
        EarlyStoppingConfig(evaluation_problems=8, target_accuracy=50)


def test_a_control_trains_as_long_as_its_learners(made: Path) -> None:
    for name, updates in (("one", 2), ("two", 3)):
        (made / name).mkdir()
        write_manifest(
            made / name, stage="expert_iteration", recipe={}, seed=1, inputs={},
            usage={"ledger": []}, metrics={"updates": updates}, seconds=1.0,
        )  # fmt: skip
    out = made / "out"
    arguments = SFTConfig(
        output_dir=str(out), max_steps=60, bf16=False, per_device_train_batch_size=4, seed=5,
        use_cpu=True, report_to="none", disable_tqdm=True, max_length=None,
    )  # fmt: skip
    learners = [str(made / name) for name in ("one", "two")]
    config = PolicyConfig(
        model=str(made / "policy"), data=str(made / "data"), updates_like=learners
    )
    run_sft(RuntimeConfig(output_dir=str(out), wandb=False, seed=5), config, arguments)
    assert json.loads((out / "trainer_state.json").read_text())["global_step"] == 5
    assert set(read_manifest(out)["inputs"]) >= {"updates_like_0", "updates_like_1"}
