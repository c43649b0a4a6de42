"""Real tiny reward models behind the server: as they are here, in search too."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from data.types import Outcome, Problem, SteppedSolution, Verdict
from rewards.models.opening import open_reward_model
from search.batcher import run_searches
from search.settings import SearchSettings
from search.strategies.by_name import bind
from search.strategies.mcts.config import MCTSConfig
from trainer.models.loading import reward_model_from_policy, save_model
from trainer.models.serving import ServeConfig, open_served
from trainer.ppo.config import PPOConfig
from trainer.runtime.input_identity import fingerprint_of, identity_of
from trainer.runtime.stage import check_begun
from trainer.searching.models import load_models

CPU = torch.device("cpu")
SOLUTIONS = [
    SteppedSolution(prompt="1 2 3 -> 6\n", steps=("1 + 2 = 3\n",) * (1 + i % 3) + ("3 + 3 = 6\n",))
    for i in range(40)
]


def served(name: str | Path, **limits: int) -> Any:
    """Loaded here: transformers must not load two models at once in one process."""
    model = open_served(str(name), CPU, **{"max_tokens": 0, "max_requests": 100} | limits)
    return lambda: model


def unverified(problem: Problem, solution: str) -> Verdict:
    return Verdict(outcome=Outcome.UNVERIFIABLE)


def search(policy: Path, reward_model: str, judge: str | None = None) -> list[Any]:
    models = load_models(str(policy), reward_model, judge, seed=1, device=CPU)
    settings = SearchSettings(max_step_tokens=60, max_new_tokens=90, max_depth=4)
    problems = [Problem(id=str(i), prompt=f"1 2 {i} -> 6\n", answer="6") for i in range(3)]
    return list(
        run_searches(
            problems,
            bind(MCTSConfig(budgets=(6,))),
            engine=models.engine,
            scorer=models.scorer,
            judge=models.judge,
            verify=unverified,
            settings=replace(settings, answer_guidance="judge" if judge else ""),
        )
    )


@pytest.fixture(scope="module")
def folders(tiny_policy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy, two reward models of its vocabulary, and descriptions of what is made of them."""
    root = tmp_path_factory.mktemp("models")
    save_model(*tiny_policy, root / "policy")
    for i, name in enumerate(("prm", "other")):
        torch.manual_seed(i)
        save_model(reward_model_from_policy(str(root / "policy")), tiny_policy[1], root / name)
    describe(root / "text.yaml", convention="thinktree_text", model=str(root / "prm"))
    members = [str(root / "prm"), str(root / "other")]
    describe(root / "both.yaml", convention="ensemble", members=members)
    return root


def describe(path: Path, **fields: Any) -> str:
    path.write_text(json.dumps(fields))
    return str(path)


@pytest.mark.parametrize("convention", ["qwen_math_prm", "skywork", "math_shepherd"])
def test_a_text_model_scores_the_same_in_any_batch(
    convention: str, published: dict[str, Path], tmp_path: Path, serve: Any
) -> None:
    name = describe(tmp_path / "m.yaml", convention=convention, model=str(published[convention]))
    local: Any = open_reward_model(name, CPU).text_model
    expected, spent = local.score_solutions(SOLUTIONS)
    with serve(served(name), batch_rows=7) as (address, _):
        remote = open_reward_model(address, CPU)
        assert remote.text_model is not None and not remote.whole_prompt

        def ask(solutions: Sequence[SteppedSolution]) -> Any:
            return remote.text_model.score_solutions(solutions)  # type: ignore[union-attr]

        assert ask(SOLUTIONS) == (expected, spent)
        with ThreadPoolExecutor(8) as threads:
            alone = list(threads.map(ask, [[solution] for solution in SOLUTIONS]))
        assert [(scores[0], usage[0]) for scores, usage in alone] == [*zip(expected, spent)]  # noqa: B905


def without_repeats(value: Any) -> Any:
    """A server reads whole sequences, so that a prefix that a local model could keep is none."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k not in ("repeated_positions", "repeated_flops")}
        return {k: without_repeats(v) for k, v in kept.items()}
    return [without_repeats(item) for item in value] if isinstance(value, list | tuple) else value


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prm", "both.yaml", "text.yaml"])
def test_a_search_is_the_same_through_a_server(name: str, folders: Path, serve: Any) -> None:
    local = search(folders / "policy", str(folders / name))
    assert local[0].usage.reward.positions > 0
    with serve(served(folders / name), batch_rows=5) as (address, _):
        found = search(folders / "policy", address)
    assert all(result.usage.reward.repeated_positions == 0 for result in found)
    assert without_repeats([*map(asdict, found)]) == without_repeats([*map(asdict, local)])


def test_a_judge_may_be_behind_a_server(folders: Path, serve: Any) -> None:
    local = search(folders / "policy", str(folders / "prm"), judge=str(folders / "other"))
    assert any(node.answer_score is not None for result in local for node in result.nodes)
    with serve(served(folders / "other"), batch_rows=5) as (address, _):
        found = search(folders / "policy", str(folders / "prm"), judge=address)
    assert without_repeats([*map(asdict, found)]) == without_repeats([*map(asdict, local)])


def test_ours_is_asked_in_ids_and_in_text(folders: Path, tmp_path: Path, serve: Any) -> None:
    expected = open_reward_model(str(folders / "text.yaml"), CPU).text_model.score_solutions(  # type: ignore[union-attr]
        SOLUTIONS
    )
    with serve(served(folders / "prm", max_tokens=30)) as (address, _):
        said = httpx.get(f"{address}/health").json()
        assert (said["convention"], said["asked_in"]) == ("thinktree", ["token_ids", "text"])
        assert (said["vocab_size"], said["max_tokens"], said["whole_prompt"]) == (
            open_reward_model(str(folders / "prm"), CPU).vocab_size,
            30,
            True,
        )
        remote = open_reward_model(address, CPU)
        assert remote.token_model is not None and remote.max_context == 30
        description = describe(
            tmp_path / "s.yaml", convention="server", server=address, in_text=True
        )
        in_text = open_reward_model(description, CPU)
        assert in_text.text_model is not None and in_text.whole_prompt
        short = [i for i, solution in enumerate(SOLUTIONS) if len(solution.steps) == 2]
        scores, usage = in_text.text_model.score_solutions([SOLUTIONS[i] for i in short])
        assert scores == [expected[0][i] for i in short]
        assert usage == [expected[1][i] for i in short]
        requests = [{"prompt": s.prompt, "steps": list(s.steps)} for s in SOLUTIONS]
        results = httpx.post(f"{address}/score", json={"requests": requests}).json()["results"]
        for solution, result, spent in zip(SOLUTIONS, results, expected[1], strict=True):
            fits = spent.positions <= 30
            assert result["status"] == (200 if fits else 413), solution
            assert fits or (result["length"], result["limit"]) == (spent.positions, 30)
    with serve(served(folders / "both.yaml")) as (address, _):
        described = describe(tmp_path / "s.yaml", convention="server", server=address, in_text=True)
        with pytest.raises(ValueError, match=r"\(ensemble\), which reads token ids only"):
            open_reward_model(described, CPU)
    # Served models are members like others; nobody but their server can shorten what they take.
    with serve(served(folders / "text.yaml")) as (address, _):
        pair = describe(tmp_path / "pair.yaml", convention="ensemble", members=[address] * 2)
        scores, usage = open_reward_model(pair, CPU).text_model.score_solutions(SOLUTIONS)  # type: ignore[union-attr]
        assert scores == expected[0]
        assert [u.positions for u in usage] == [2 * u.positions for u in expected[1]]
        with pytest.raises(ValueError, match=r"max_tokens is 9, .*ServedTextModel asks"):
            open_served(pair, CPU, max_tokens=9, max_requests=1)


@pytest.mark.slow
def test_what_is_too_long_ends_its_path_alike(
    folders: Path, published: dict[str, Path], tmp_path: Path, serve: Any
) -> None:
    """A limit within reach of the search: some paths have no score, and nothing is paid twice."""
    limit = 45

    def limited(name: str, device: Any) -> Any:
        loaded = open_reward_model(name, device)
        loaded.text_model.max_tokens = limit  # type: ignore[union-attr]
        return loaded

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.searching.engines.open_reward_model", limited)
        local = search(folders / "policy", str(folders / "text.yaml"))
    cut = sum(result.terminals["bad_score"] for result in local)
    scored = sum(n.score is not None for result in local for n in result.nodes)
    assert cut > 0 and scored > 0
    with serve(served(folders / "text.yaml", max_tokens=limit)) as (address, _):
        remote = search(folders / "policy", address)
    assert repr(remote) == repr(local)  # a NaN equals no other


def test_a_fingerprint_is_the_contents(folders: Path, tmp_path: Path, serve: Any) -> None:
    prm, other = (fingerprint_of(str(folders / name)) for name in ("prm", "other"))
    assert prm != other and len(prm) == 64
    described = describe(
        tmp_path / "d.yaml", convention="thinktree_text", model=str(folders / "prm")
    )
    first = fingerprint_of(described)
    describe(tmp_path / "d.yaml", convention="thinktree_text", model=str(folders / "other"))
    assert fingerprint_of(described) not in (first, prm, other)
    both = fingerprint_of(str(folders / "both.yaml"))
    config = folders / "other" / "config.json"
    before = config.read_text()
    config.write_text(json.dumps(json.loads(before) | {"thinktree_temperature": 2.0}))
    assert fingerprint_of(str(folders / "both.yaml")) != both
    config.write_text(before)
    assert fingerprint_of(str(folders / "both.yaml")) == both
    judge = describe(tmp_path / "j.yaml", convention="judge", server="http://x/v1", model="prm")
    assert fingerprint_of(judge) == fingerprint_of(judge)
    # A stage that is begun with a served model is not continued with another.
    folder = tmp_path / "stage"
    folder.mkdir()
    with serve(served(folders / "prm")) as (address, _):
        port = int(address.rpartition(":")[2])
        inputs = {"reward_model": address, "policy": str(folders / "policy")}
        found = check_begun(folder, 1, [], inputs)
        assert found["reward_model"] == identity_of(address)
        check_begun(folder, 1, [], inputs)
        server = describe(tmp_path / "s.yaml", convention="server", server=address)
        of_server = fingerprint_of(server)
    with serve(served(folders / "other"), port=port):
        with pytest.raises(ValueError, match=r"other settings \(input reward_model\)"):
            check_begun(folder, 1, [], inputs)
        assert fingerprint_of(server) != of_server


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match=r"port is 0"):
        ServeConfig(reward_model="x", port=0)
    with pytest.raises(ValueError, match=r"max_tokens is -1"):
        ServeConfig(reward_model="x", max_tokens=-1)
    with pytest.raises(ValueError, match=r"which needs the reward model's weights: http://x:1"):
        PPOConfig(
            policy="p",
            data="d",
            verifier="countdown",
            max_new_tokens=64,
            reward_model="http://x:1",
            critic="reward_model",
        )
