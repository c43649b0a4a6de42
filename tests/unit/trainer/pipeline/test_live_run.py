"""The live page of a run: what is read from files that are still written, and who may read it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from trainer.pipeline.live_run import (
    LiveRun,
    Point,
    Sample,
    last_samples,
    losses_of,
    progress_of,
    read_live_run,
)
from trainer.pipeline.live_server import serving
from trainer.pipeline.recipe import load_pipeline
from trainer.runtime.manifests import write_json

RECIPE = """
run_name: live
output_dir: {out}
stages:
  - {{name: data, script: scripts/make_data.py, args: {{task: countdown}}}}
  - {{name: sft, script: scripts/train_sft.py, args: {{data: "{{data}}"}}}}
  - {{name: round_1, script: scripts/expert_iteration_round.py, args: {{policy: "{{sft}}"}}}}
"""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A recipe whose data stage is done and whose SFT is at update 3 of 8."""
    out = tmp_path / "out"
    path = tmp_path / "live.yaml"
    path.write_text(RECIPE.format(out=out))
    _done(out / "data", {})
    write_json(out / "stages" / "data.json", {"fingerprint": "a", "seconds": 4.5, "attempts": 1})
    write_json(out / "stages" / "sft.json", {"fingerprint": "b", "seconds": 9.0, "attempts": 1})
    (out / "sft").mkdir()
    rows = [{"cycle": 0, "accuracy": 0.25}, {"cycle": 2, "accuracy": 0.5}]
    text = "".join(json.dumps(row) + "\n" for row in rows) + '{"cycle": 4, "acc'
    (out / "sft" / "evaluations.jsonl").write_text(text)
    (out / "logs").mkdir()
    (out / "logs" / "sft.log").write_text(
        "Loading weights: 100%|###| 29/29 [00:00<00:00]\n"
        "  0%|   | 0/8 [00:00<?, ?it/s]\r 25%|## | 2/8 [00:03<00:09]\n"
        "{'loss': '1.5', 'epoch': '0.2'}\n"
        " 38%|###   | 3/8 [00:04<00:07,  1.5s/it]\n"
    )
    yield path, out


def _done(folder: Path, metrics: dict[str, object]) -> None:
    folder.mkdir(parents=True)
    write_json(folder / "manifest.json", {"format": "thinktree-manifest", "metrics": metrics})


def _read(path: Path) -> LiveRun:
    pipeline = load_pipeline(str(path), [])
    return read_live_run(pipeline, pipeline.stages, "live.yaml")


def test_a_run_in_the_middle(run: tuple[Path, Path]) -> None:
    data, sft, later = _read(run[0]).stages
    assert (data.state, data.seconds, data.share) == ("done", 4.5, 1.0)
    assert (sft.state, sft.seconds, sft.share, sft.left) == ("running", 9.0, 0.38, "00:07")
    assert sft.losses == (Point(step=2, value=1.5),)
    assert sft.accuracies == (Point(step=0, value=0.25), Point(step=2, value=0.5))
    assert (later.state, later.line, later.samples) == ("waiting", "", ())


def test_a_gate_is_shown_when_its_round_is_done(run: tuple[Path, Path]) -> None:
    path, out = run
    _done(out / "round_1", {"gate": {"accepted": False, "reason": "lost 3 and solved 2"}})
    assert _read(path).stages[2].gate == "refused: lost 3 and solved 2"


@pytest.mark.parametrize(
    ("line", "progress"),
    [
        ("trees: 3 of 500 problems done (28%), 9.0 problems per second, 40 s left", (0.28, "40 s")),
        ("labels: 1 of 2 done (50%), 2.0 per hour, 3 min 20 s left; 5 more", (0.5, "3 min 20 s")),
        (" 38%|###   | 3/8 [00:04<00:07,  1.5s/it]", (0.38, "00:07")),
        ("starting", (None, "")),
        ("", (None, "")),
    ],
)
def test_progress_of_a_line(line: str, progress: tuple[float | None, str]) -> None:
    assert progress_of(line) == progress


def test_a_loss_that_is_half_written_is_left_out() -> None:
    lines = ["20%|# | 2/9 [00:01<00:08]", "{'loss': '0.5', 'x': 1}", "{'loss': '0.4', 'x"]
    assert losses_of(lines) == (Point(step=2, value=0.5),)


def test_the_bar_of_something_else_does_not_count_updates() -> None:
    lines = ["20%|# | 2/9 [00:01<00:08]", "Writing shards: 100%|###| 1/1 [00:00<00:00]"]
    assert losses_of([*lines, "{'loss': '0.5'}"]) == (Point(step=2, value=0.5),)


def test_the_last_solutions_of_every_kind_of_file(tmp_path: Path) -> None:
    nodes = [
        {"id": 0, "parent": -1, "text": ""},
        {"id": 1, "parent": 0, "text": "one\n"},
        {"id": 2, "parent": 1, "text": "two"},
    ]
    tree = {"problem": {"prompt": "p"}, "strategy": "mcts", "nodes": nodes, "answer": 2}
    label = {"prompt": "p", "completions": ["one\n", "two"], "labels": [0.5, 1.0]}
    ppo = {"cycle": 3, "problem": "p", "text": "one", "correct": False}
    expected = {
        "trees.rank0.jsonl": (tree, Sample(prompt="p", text="one\ntwo", note="mcts")),
        "labels.jsonl": (
            label,
            Sample(prompt="p", text="one\ntwo", note="values of the steps: 0.50, 1.00"),
        ),
        "completions.jsonl": (ppo, Sample(prompt="p", text="one", note="cycle 3, wrong")),
        "trajectories.jsonl": (
            {"prompt": "p", "completion": "one"},
            Sample(prompt="p", text="one", note=""),
        ),
    }
    for name, (row, sample) in expected.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text(json.dumps(row) + "\n" + json.dumps(row)[:-5])
        assert last_samples(folder) == (sample,), name
    assert last_samples(tmp_path / "missing") == ()
    odd = [{"nodes": 3, "answer": 1}, {"completions": [1]}, {"text": "one", "correct": True}]
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in odd))
    assert [sample.text for sample in last_samples(tmp_path / "odd")] == ["one"]


def test_the_page_is_read_only_and_for_this_machine(
    run: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.pipeline.live_server.LAST_LOOK_SECONDS", 0.0)
    with serving(lambda: _read(run[0]), 0) as address:
        place = urlsplit(address)
        assert place.hostname == "127.0.0.1"

        def ask(method: str, path: str, host: str = place.netloc) -> tuple[int, bytes]:
            connection = http.client.HTTPConnection(place.netloc, timeout=10)
            connection.request(method, path, headers={"Host": host})
            answer = connection.getresponse()
            return answer.status, answer.read()

        status, page = ask("GET", "/")
        assert status == 200 and b"connect-src 'self'" in page and b"'unsafe" not in page
        status, state = ask("GET", "/state.json")
        assert status == 200
        assert [stage["state"] for stage in json.loads(state)["stages"]] == [
            "done", "running", "waiting",
        ]  # fmt: skip
        assert ask("GET", "/../live.yaml")[0] == 404
        assert ask("POST", "/state.json")[0] == 501
        assert ask("GET", "/state.json", host="evil.example")[0] == 403
        with (
            pytest.raises(ValueError, match=f"--watch {place.port}"),
            serving(lambda: _read(run[0]), place.port or 0),
        ):
            pass
    with pytest.raises(ValueError, match="--watch 99999"), serving(lambda: _read(run[0]), 99999):
        pass
