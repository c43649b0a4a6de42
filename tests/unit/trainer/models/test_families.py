"""Sampling and training with the layouts of published models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from data.types import StopReason
from rewards.models.vocabulary import forbid_unknown_tokens, unknown_token_ids
from search.base import SampleRequest
from search.engines.transformers_engine import EngineConfig, TransformersEngine
from trainer.models.compatibility import check_policy
from trainer.models.loading import load_policy
from trainer.models.lora import POLICY, LoraSettings, add_adapter
from trainer.ppo.actor_critic import token_logprobs

from ...families import FAMILIES, SIZES, family_folder


def loaded(name: str, folder: Path) -> tuple[Any, Any]:
    family_folder(name, folder)
    check_policy(str(folder))
    return load_policy(str(folder))


def engine_of(model: Any, tokenizer: Any) -> TransformersEngine:
    return TransformersEngine(model, tokenizer, EngineConfig(seed=3))


def request_of(engine: TransformersEngine, **options: Any) -> SampleRequest:
    fields = {"n": 4, "max_new_tokens": 12, "temperature": 1.0, "stop_at_step": False, **options}
    return SampleRequest(node=0, prefix=engine.encode_prompt("1 + 1 = ?\n"), **fields)


@pytest.mark.parametrize("name", FAMILIES)
def test_samples_have_the_probabilities_of_what_can_be_sampled(name: str, tmp_path: Path) -> None:
    """The padded ids have by far the largest logits; without them the probabilities are those of
    the plain model among the tokens of the tokenizer. PPO reads the same ones."""
    model, tokenizer = loaded(name, tmp_path)
    unknown = unknown_token_ids(model, tokenizer)
    assert len(unknown) == max(0, FAMILIES[name].padding)
    head = model.get_output_embeddings()
    if unknown and head.bias is not None:
        head.bias.data[unknown] = 50.0
    engine = engine_of(model, tokenizer)
    request = request_of(engine)
    [result] = engine.sample_batch([("p", request)])
    size = model.config.vocab_size
    known = [id for id in range(size) if id not in set(unknown)]
    for sample in result.samples:
        assert set(sample.token_ids) <= set(known)
        ids = torch.tensor([[*request.prefix, *sample.token_ids]])
        logprobs, entropies = token_logprobs(model, ids, torch.ones_like(ids))
        start = len(request.prefix) - 1
        assert sum(sample.step_logprobs) == pytest.approx(
            logprobs[0, start:].sum().item(), abs=1e-3
        )
        assert sum(sample.step_entropies) == pytest.approx(
            entropies[0, start:].sum().item(), abs=1e-3
        )
        with torch.no_grad():  # the head without its hook
            hidden = model.get_decoder()(input_ids=ids).last_hidden_state
            plain = torch.nn.functional.linear(hidden, head.weight, head.bias)
        own = torch.log_softmax(plain[..., known], dim=-1)[0, start:-1]
        chosen = torch.tensor([known.index(token) for token in sample.token_ids])
        assert torch.allclose(own.gather(1, chosen[:, None])[:, 0], logprobs[0, start:], atol=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_samples_equal_those_of_transformers(name: str, tmp_path: Path) -> None:
    model, tokenizer = loaded(name, tmp_path)
    engine = engine_of(model, tokenizer)
    request = request_of(engine, n=1, temperature=0.0, max_new_tokens=24)
    [result] = engine.sample_batch([("p", request)])
    ids = torch.tensor([request.prefix])
    own = model.generate(ids, max_new_tokens=24, do_sample=False, attention_mask=ids * 0 + 1)
    assert list(result.samples[0].token_ids) == own[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("name", ["llama_3", "qwen_2.5", "gemma_3"])
def test_each_end_token_ends_a_solution(name: str, tmp_path: Path) -> None:
    model, tokenizer = loaded(name, tmp_path)
    engine = engine_of(model, tokenizer)
    assert len(engine.end_token_ids) > 1
    for end in engine.end_token_ids:

        def always(module: Any, inputs: Any, logits: Any, end: int = end) -> Any:
            logits[..., end] = 1e4
            return logits

        hook = model.get_output_embeddings().register_forward_hook(always)
        [result] = engine.sample_batch([("p", request_of(engine))])
        hook.remove()
        assert {s.stop_reason for s in result.samples} == {StopReason.END_OF_SOLUTION}
        assert {s.token_ids for s in result.samples} == {(end,)}
        assert engine.decode((*engine.encode("= 2"), end)) == "= 2"


def test_an_adapter_never_samples_a_padded_id(tmp_path: Path) -> None:
    model, tokenizer = loaded("phi", tmp_path)
    unknown = unknown_token_ids(model, tokenizer)
    model.get_output_embeddings().bias.data[unknown] = 50.0
    adapted = add_adapter(model, LoraSettings(lora_rank=2), POLICY, 1)
    ids = torch.tensor([[5, 6, 7]])
    probabilities = torch.softmax(adapted(input_ids=ids).logits, dim=-1)
    assert probabilities[..., unknown].sum() == 0


def test_logits_that_are_capped_behind_the_head() -> None:
    tokenizer = FAMILIES["gemma_3"].tokenizer()
    config = AutoConfig.for_model("gemma2", **SIZES, vocab_size=len(tokenizer) + 9)
    assert config.final_logit_softcapping == 30.0
    model: Any = AutoModelForCausalLM.from_config(config)
    forbid_unknown_tokens(model, tokenizer)
    probabilities = torch.softmax(model(input_ids=torch.tensor([[5, 6, 7]])).logits, dim=-1)
    assert probabilities[..., -9:].sum() == 0


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    family_folder("smollm_2", tmp_path / "small")
    other = family_folder("llama_2", tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "vocab_size": 128_000}))
    with pytest.raises(ValueError, match=r"has 424 tokens, the model 128000: they do not belong"):
        check_policy(str(other))
