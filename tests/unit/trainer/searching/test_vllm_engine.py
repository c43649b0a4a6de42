"""Stages whose searches ask a vLLM server: they find what the engine in this process finds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from data.problems import write_problems
from data.tasks.countdown import make_problem
from search.engines.model_server import EngineRefused
from search.labellers.by_name import LabelSettings
from search.labellers.monte_carlo import MonteCarloConfig
from search.settings import SearchSettings
from search.strategies.mcts.config import MCTSConfig
from search.trees.files import read_trees
from trainer.models.loading import build_policy, load_policy, policy_shape, save_model
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.manifests import hash_input, hash_value
from trainer.searching.engines import load_engine
from trainer.searching.server_engines import IN_PROCESS, SearchEngineConfig
from trainer.searching.solve import SolveConfig, solve
from trainer.stages.label import LabelStageConfig, run_label
from trainer.stages.search import TreesConfig, run_trees

from ...conftest import TINY
from ...policy_server import PolicyServer

SETTINGS = SearchSettings(guidance="likelihood", max_step_tokens=6, max_new_tokens=16, max_depth=3)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tiny_policy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy and problems."""
    path = tmp_path_factory.mktemp("served")
    save_model(*tiny_policy, path / "policy")
    (path / "data").mkdir()
    write_problems(path / "data" / "train.jsonl", [make_problem((3, 4, 7), 11 + i) for i in (0, 3)])
    return path


@pytest.fixture(scope="module")
def loaded(folder: Path) -> tuple[Any, Any]:
    return load_policy(str(folder / "policy"))


@pytest.fixture
def server(folder: Path, loaded: tuple[Any, Any]) -> Iterator[PolicyServer]:
    started = PolicyServer(*loaded, str(folder / "policy"))
    yield started
    started.stop()


def served(server: PolicyServer, **options: Any) -> SearchEngineConfig:
    return SearchEngineConfig(engine="vllm_server", engine_url=server.address, **options)


def search(folder: Path, out: Path, engine: SearchEngineConfig) -> dict[str, Any]:
    runtime = RuntimeConfig(output_dir=str(out), wandb=False, seed=3)
    stage = TreesConfig(
        policy=str(folder / "policy"), data=str(folder / "data"), verifier="countdown"
    )
    run_trees(runtime, stage, SETTINGS, MCTSConfig(budgets=(3,), proposals=2), engine)
    return json.loads((out / "manifest.json").read_text())


def test_a_stage_finds_the_same_trees_and_counts_what_the_server_did(
    folder: Path, server: PolicyServer, tmp_path: Path
) -> None:
    here = search(folder, tmp_path / "here", IN_PROCESS)
    there = search(folder, tmp_path / "there", served(server))
    assert "engine" not in here["recipe"] and there["recipe"]["engine"] == "vllm_server"
    assert there["usage"] == here["usage"]
    counted = {key for key in there["metrics"] if key not in here["metrics"]}
    assert counted == {
        f"server_{name}"
        for name in ("requests", "computed_tokens", "cached_tokens", "generated_tokens")
    }
    policy = there["usage"]["ledger"][0]
    assert there["metrics"]["server_generated_tokens"] == policy["generated_tokens"]
    assert there["metrics"]["server_requests"] == policy["sequences"]
    one, two = (read_trees(tmp_path / name / "trees.jsonl") for name in ("here", "there"))
    assert [[n.token_ids for n in tree.nodes] for tree in one] == [
        [n.token_ids for n in tree.nodes] for tree in two
    ]


def test_the_manifest_says_that_a_server_of_text_is_inexact(
    folder: Path, server: PolicyServer, tmp_path: Path
) -> None:
    server.text_only, server.model_id, server.root = True, "tiny", ""
    engine = SearchEngineConfig(engine="openai", engine_url=server.address, engine_model="tiny")
    manifest = search(folder, tmp_path / "text", engine)
    assert manifest["recipe"]["engine"] == "openai"
    assert manifest["recipe"]["engine_inexact"].startswith("text goes in and out")
    assert manifest["metrics"]["server_requests"] == server.seeds().total() - 1  # without the check
    with pytest.raises(EngineRefused, match=r"serves 'tiny' .*: engine_model is 'other'"):
        search(folder, tmp_path / "other", replace(engine, engine_model="other"))


def test_labels_are_those_of_the_engine_in_this_process(
    folder: Path, server: PolicyServer, tmp_path: Path
) -> None:
    found: list[Any] = []
    for name, engine in (("here", IN_PROCESS), ("there", served(server))):
        runtime = RuntimeConfig(output_dir=str(tmp_path / name), wandb=False, seed=3)
        stage = LabelStageConfig(
            policy=str(folder / "policy"), data=str(folder / "data"), verifier="countdown"
        )
        config = MonteCarloConfig(solutions=4, rollouts_per_step=2)
        run_label(runtime, stage, LabelSettings(max_new_tokens=20), config, engine)
        found.append((tmp_path / name / "labels.jsonl").read_bytes())
    assert found[0] == found[1]
    metrics = json.loads((tmp_path / "there" / "manifest.json").read_text())["metrics"]
    assert metrics["server_requests"] > 0


def test_solve_asks_a_server(
    folder: Path, server: PolicyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    config = SolveConfig(model=str(folder / "policy"), problem="3 4 7 -> 14\n")
    [here] = solve(config, SETTINGS, MCTSConfig(budgets=(3,)))
    [there] = solve(config, SETTINGS, MCTSConfig(budgets=(3,)), served(server))
    assert (here.steps, here.flops) == (there.steps, there.flops)
    assert server.asked


def test_the_server_must_have_the_policy_and_its_weights(
    folder: Path, server: PolicyServer, tmp_path: Path
) -> None:
    policy = str(folder / "policy")
    load = lambda **options: load_engine(  # noqa: E731
        policy, None, seed=1, device=CPU, engine=served(server, **options)
    )
    server.model_id, server.root = "name", str(folder / "data" / ".." / "policy")
    load()  # the same folder
    name = f"thinktree-{hash_value(hash_input(policy))[:16]}"
    server.model_id, server.root = name, "/elsewhere"
    load()
    for other in ("thinktree-0123456789abcdef", "policy"):
        server.model_id = other
        with pytest.raises(EngineRefused, match=f"--served-model-name {name}"):
            load()
    server.model_id = name
    torch.manual_seed(4)
    server.model = build_policy(TINY, "numbers", 40)[0].eval()
    with pytest.raises(EngineRefused, match="other weights"):
        load()
    load(engine_compare_weights=False)


def test_a_policy_without_weights_has_the_same_sizes(folder: Path, server: PolicyServer) -> None:
    policy = str(folder / "policy")
    engines = [
        load_engine(
            policy, None, seed=1, device=CPU, engine=served(server, engine_compare_weights=compare)
        )[0]
        for compare in (True, False)
    ]
    assert engines[0].flops == engines[1].flops
    assert engines[0].context_length == engines[1].context_length == 256
    assert next(policy_shape(policy)[0].parameters()).device.type == "meta"


def test_guidance_by_entropy_needs_the_engine_in_this_process(
    folder: Path, server: PolicyServer
) -> None:
    config = SolveConfig(model=str(folder / "policy"), problem="3 4 7 -> 14\n")
    settings = SearchSettings(guidance="entropy", max_new_tokens=30)
    with pytest.raises(ValueError, match="guidance is 'entropy', but a server gives no"):
        solve(config, settings, MCTSConfig(budgets=(3,)), served(server))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"engine": "vlm"}, "engine is 'vlm'; allowed: transformers, vllm_server, openai"),
        ({"engine": "vllm_server"}, "engine_url is None: vllm_server and openai need an"),
        ({"engine_url": "http://a"}, "transformers takes none"),
        (
            {"engine": "vllm_server", "engine_url": "http://a, b:8000"},
            "engine_url holds 'b:8000'; an address has the form",
        ),
        (
            {"engine": "vllm_server", "engine_url": "http://a", "engine_model": "m"},
            "engine_model is 'm', but engine is 'vllm_server': only openai takes it",
        ),
        (
            {"engine": "openai", "engine_url": "http://a", "engine_key_variable": "NO_SUCH_KEY"},
            "engine_key_variable is 'NO_SUCH_KEY'; the environment has no such variable",
        ),
        ({"engine_in_flight": 0}, "engine_in_flight is 0; it must be at least 1"),
        ({"engine_timeout_seconds": 0.0}, "the first must not be negative, the other must be"),
    ],
)
def test_wrong_settings_are_named(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        SearchEngineConfig(**fields)


def test_addresses_are_separated_by_commas() -> None:
    config = SearchEngineConfig(engine="vllm_server", engine_url="http://a:1/, http://b:2/v1")
    assert config.addresses == ("http://a:1", "http://b:2")
