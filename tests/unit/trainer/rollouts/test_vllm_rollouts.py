"""Rollouts that another engine sampled: what they weigh, what is said of them, and how what vLLM
answers is read. tests/integration/test_vllm_rollouts.py has the real vLLM."""

from __future__ import annotations

import importlib
import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from data.progress import listening
from data.tasks.countdown import make_problem
from data.types import StopReason
from search.engines.transformers_engine import EngineConfig, TransformersEngine
from trainer.models.loading import load_policy
from trainer.ppo.actor_critic import token_logprobs
from trainer.ppo.guards import LARGEST_GAP
from trainer.ppo.losses import importance_corrections, policy_loss
from trainer.rollouts.collect import SamplingConfig
from trainer.rollouts.files import ROLLOUTS
from trainer.rollouts.vllm import (
    RolloutEngineConfig,
    VLLMSampler,
    check_vllm,
    open_vllm,
    report_requests,
)
from trainer.rollouts.vllm_weights import FolderClient

T = torch.tensor


def test_corrections_by_hand() -> None:
    half, nan = math.log(2.0), math.nan
    ours = T([[-1.0, -1.0, -1.0, -1.0, -9.0]])
    engine = T([[-1.0 + half, -1.0 - half, -1.0 - 2 * half, nan, -1.0]])
    mask = T([[1.0, 1.0, 1.0, 1.0, 0.0]])
    corrections, gaps = importance_corrections(ours, engine, mask, 3.0)
    # Ratios of 1/2, 2 and 4; 4 is cut to 3. Unknown and masked tokens weigh 1.
    assert corrections[0].tolist() == pytest.approx([0.5, 2.0, 3.0, 1.0, 1.0])
    assert gaps[0].tolist() == pytest.approx([-half, half, 2 * half, 0.0, 0.0])
    # Weighing advantages is weighing the clipped loss: clip(1.5) A 2 = 1.2 x 2, then x 1/2.
    new, advantages = T([[math.log(1.5)]]), T([[2.0]])
    zero, one = torch.zeros(1, 1), torch.ones(1, 1)
    loss, _ = policy_loss(new, zero, advantages * 0.5, one, (0.2, 0.2), 1.0)
    assert float(loss) == pytest.approx(-1.2)


def with_engine(path: Path, to: Path, change: float) -> None:
    """Recorded rollouts whose tokens another engine sampled with log-probabilities `change` below
    those of `logprobs`, which the rows hold."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["engine_logprobs"] = [value + change for value in row.pop("logprobs")]
    to.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def recorded(ppo: Any) -> tuple[Any, Path, Path]:
    """A config, the folder of a run with it, and its rollouts, each with its log-probabilities."""
    config = ppo.config(
        cycles=1, epochs=1, minibatches=1, record_rollouts=True, evaluation_problems=0,
        learning_rate=1e-3, critic_learning_rate=1e-3, kl_coefficient=0.0,
        value_coefficient=0.0,
    )  # fmt: skip
    first = ppo.run("first", config)
    policy, _ = load_policy(config.policy, torch.float32)
    rows = [json.loads(line) for line in (first / ROLLOUTS).read_text().splitlines()]
    for row in rows:
        assert row["engine_logprobs"] == []
        ids = T([row["prompt_ids"] + row["response_ids"]])
        with torch.no_grad():
            logprobs, _ = token_logprobs(policy, ids, torch.ones_like(ids))
        row["logprobs"] = logprobs[0, len(row["prompt_ids"]) - 1 :].tolist()
    path = ppo.folder / "with_logprobs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return replace(config, record_rollouts=False), first, path


def test_what_another_engine_sampled_weighs_its_ratio_up_to_the_cap(
    ppo: Any, recorded: tuple[Any, Path, Path]
) -> None:
    config, first, path = recorded
    [own] = ppo.metrics(first)
    assert not {"engine_gap", "correction_mean"} & own.keys()  # nothing to correct
    found: dict[float, Any] = {}
    for change in (0.0, math.log(0.5), -math.log(0.5), math.log(0.1)):
        given = ppo.folder / f"rollouts{change}.jsonl"
        with_engine(path, given, change)
        replayed = replace(config, replay=str(given), importance_cap=4.0)
        [found[change]] = ppo.metrics(ppo.run(f"out{change}", replayed))
        assert found[change]["engine_gap"] == pytest.approx(abs(change), abs=1e-5)
        assert found[change]["engine_gap_max"] == pytest.approx(abs(change), abs=1e-4)
        assert bool(found[change]["warnings"]) == (abs(change) > LARGEST_GAP)
    # Half as probable to the engine: every token weighs 2. A tenth: 10, of which the cap leaves 4.
    ratios = {0.0: 1.0, math.log(0.5): 2.0, -math.log(0.5): 0.5, math.log(0.1): 4.0}
    for change, ratio in ratios.items():
        row = found[change]
        assert row["correction_mean"] == pytest.approx(ratio, rel=1e-4)
        assert row["correction_capped"] == (1.0 if ratio == 4.0 else 0.0)
        # The gradient is the policy loss's alone, in proportion to what tokens weigh.
        assert row["grad_norm"] == pytest.approx(ratio * own["grad_norm"], rel=1e-3)
        assert row["value_loss"] == pytest.approx(own["value_loss"], rel=1e-5)
    assert "nats per token from the trainer's" in found[math.log(0.1)]["warnings"][0]


def test_a_row_with_too_few_log_probabilities_is_refused(
    ppo: Any, recorded: tuple[Any, Path, Path]
) -> None:
    config, _, path = recorded
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["engine_logprobs"] = row.pop("logprobs")
    del rows[2]["engine_logprobs"][0]
    bad = ppo.folder / "bad.jsonl"
    bad.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=r"bad\.jsonl, line 3: .* \d+ engine_logprobs for \d+"):
        ppo.run("out", replace(config, replay=str(bad)))


class Answers:
    """In place of TRL's `VLLMGeneration`: answers in its form."""

    mode = "server"
    temperature, max_completion_length = 0.0, 0

    def __init__(self, ids: list[list[int]], logprobs: list[list[list[float | None]]]) -> None:
        self.ids, self.logprobs = ids, logprobs
        self.asked: list[Any] = []
        self.syncs = 0

    def sync_weights(self) -> None:
        self.syncs += 1

    def generate(self, prompts: Any, images: Any, num_generations: int) -> Any:
        asked = (prompts, num_generations, self.temperature, self.max_completion_length)
        self.asked.append(asked)
        return prompts, self.ids, self.logprobs, None


PROBLEMS = [make_problem((1, 2, 3 + i), 6 + i) for i in range(2)]
SAMPLING = SamplingConfig(samples_per_problem=2, max_new_tokens=3, temperature=0.7)


def test_answers_of_vllm_become_completions(tiny_policy: Any) -> None:
    engine = TransformersEngine(*tiny_policy, EngineConfig(seed=1))
    end = engine.end_token_id
    prompts = [engine.encode(problem.prompt) for problem in PROBLEMS]
    ids = [[5, end], [5, 6, 7], [end], [8, 9, end]]
    answers = Answers(ids, [[[-0.5]] * len(row) for row in ids])
    sampler = VLLMSampler(answers, engine)
    for version in (0, 0, 1):  # weights that it has are not brought again
        sampler.sync(version)
    assert answers.syncs == 2
    groups, usage = sampler(PROBLEMS, prompts, SAMPLING, 0)
    repeated = [list(prompts[i]) for i in (0, 0, 1, 1)]
    assert answers.asked == [(repeated, 2, 0.7, 3)]
    assert [[list(c.token_ids) for c in group] for group in groups] == [ids[:2], ids[2:]]
    done, cut = StopReason.END_OF_SOLUTION, StopReason.LENGTH
    assert [c.stop_reason for group in groups for c in group] == [done, cut, done, done]
    assert groups[0][1].logprobs == (-0.5, -0.5, -0.5)
    assert usage.generated_tokens == 9 and usage.sequences == 4
    assert usage == engine.sample_usage(len(prompts[0]), [2, 3]) + engine.sample_usage(
        len(prompts[1]), [1, 3]
    )


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (Answers([[5]] * 3, [[[-0.5]]] * 3), "vLLM gave 3 samples for 4 prompts"),
        (Answers([[5]] * 4, [[[None]]] * 4), r"no log-probability for a token of \[5\]"),
        (Answers([[5, 6]] * 4, [[[-0.5]]] * 4), "no log-probability for a token"),
    ],
)
def test_answers_that_cannot_be_used_are_refused(
    answers: Answers, message: str, tiny_policy: Any
) -> None:
    engine = TransformersEngine(*tiny_policy, EngineConfig(seed=1))
    prompts = [engine.encode(problem.prompt) for problem in PROBLEMS]
    with pytest.raises(ValueError, match=message):
        VLLMSampler(answers, engine)(PROBLEMS, prompts, SAMPLING, 0)


def test_a_prompt_that_leaves_no_room_is_refused(tiny_policy: Any) -> None:
    engine = TransformersEngine(*tiny_policy, EngineConfig(seed=1, max_context=20))
    prompts = [engine.encode(problem.prompt) for problem in PROBLEMS]
    sampling = replace(SAMPLING, max_new_tokens=21 - len(prompts[0]))
    with pytest.raises(ValueError, match=rf"problem {PROBLEMS[0].id}: a prompt of \d+ tokens"):
        VLLMSampler(Answers([], []), engine)(PROBLEMS, prompts, sampling, 0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rollout_engine": "vllm"}, "'vllm'; allowed: transformers, vllm_colocate, vllm_server"),
        ({"rollout_engine": "vllm_server"}, "vllm_server needs an address"),
        ({"vllm_server_url": "http://x"}, "the other engines take none"),
        ({"vllm_memory_share": 1.0}, r"must be in \(0, 1\)"),
        ({"vllm_tensor_parallel": 0}, "must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RolloutEngineConfig(**values)


def test_vllm_is_looked_for_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    config = RolloutEngineConfig(rollout_engine="vllm_colocate", vllm_tensor_parallel=2)
    utilities = importlib.import_module("trl.import_utils")
    monkeypatch.setattr(utilities, "is_vllm_available", lambda: False)
    with pytest.raises(ImportError, match=r"vLLM is not installed here: see docs/scaling\.md"):
        check_vllm(config, 2)
    monkeypatch.setattr(utilities, "is_vllm_available", lambda: True)
    check_vllm(config, 4)
    with pytest.raises(ValueError, match="it must divide the 3 processes"):
        check_vllm(config, 3)


def test_a_server_on_a_cpu_refuses_tied_embeddings(tiny_policy: Any, tmp_path: Path) -> None:
    policy, tokenizer = tiny_policy
    engine = TransformersEngine(policy, tokenizer, EngineConfig(seed=1))
    config = RolloutEngineConfig(rollout_engine="vllm_server", vllm_server_url="http://nowhere")
    with pytest.raises(ValueError, match="does not update an output head that is tied"):
        open_vllm(config, policy, tokenizer, engine, Accelerator(cpu=True), tmp_path)


def test_weights_go_to_a_server_through_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, Any]] = []

    def post(self: FolderClient, url: str, json: Any) -> None:
        asked.append((url, json))

    monkeypatch.setattr(FolderClient, "_post", post)
    client = FolderClient.__new__(FolderClient)  # no server to connect to
    client.base_url, client.folder = "http://server", tmp_path / "served"
    client.update_named_params([], [("layer", T([1.0, 2.0]))])
    assert load_file(client.folder / "model.safetensors")["layer"].tolist() == [1.0, 2.0]
    arguments = {"weights_path": str(client.folder.resolve())}
    assert asked == [
        ("http://server/collective_rpc", {"method": "reload_weights", "kwargs": arguments})
    ]


class FakeLLM:
    """Draws its bar as vLLM's LLM._run_engine does: by requests, of one or several solutions."""

    def generate(self, prompts: list[str], *, use_tqdm: Any) -> list[str]:
        for _ in use_tqdm(prompts, desc="Adding requests"):
            pass
        bar = use_tqdm(total=len(prompts), desc="Processed prompts", dynamic_ncols=True, postfix="")
        for _ in prompts:
            assert bar.format_dict["elapsed"] > 0  # vLLM divides by it
            bar.postfix = "est. speed"
            bar.update(1)
        assert bar.n == len(prompts)
        bar.refresh()
        bar.close()
        return prompts


def test_finished_solutions_of_vllm_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    llm = FakeLLM()
    report_requests(SimpleNamespace(mode="colocate", llm=llm))
    seen: list[tuple[int, int, str]] = []
    with listening(lambda batch: seen.append((batch.done, batch.total, batch.unit))):
        assert llm.generate(["a", "b", "c"], use_tqdm=False) == ["a", "b", "c"]
    assert seen == [(1, 3, "solutions"), (2, 3, "solutions"), (3, 3, "solutions")]
    assert "".join(capsys.readouterr()) == ""
