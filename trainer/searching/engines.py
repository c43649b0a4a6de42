"""Makes an engine that samples and a scorer that judges from the model names in a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from data.prompts import question_of
from rewards.base import RewardModel
from rewards.models.ensemble import EnsembleRewardModel
from rewards.models.loaders import LoadedRewardModel
from rewards.models.opening import open_reward_model
from rewards.models.prm import ProcessRewardModel
from search.base import Scorer
from search.engines.openai_server import OpenAIEngine
from search.engines.transformers_engine import EngineConfig, TransformersEngine
from search.engines.vllm_server import VLLMServerEngine
from search.scorer import RewardScorer, TextScorer
from search.settings import SearchSettings
from trainer.models.compatibility import check_models
from trainer.models.loading import load_policy, whole_models
from trainer.runtime.precision import computes_in_bf16
from trainer.runtime.processes import is_main_process
from trainer.searching.server_engines import (
    SearchEngineConfig,
    open_openai_servers,
    open_vllm_servers,
)
from trainer.searching.shared_trunk import share_trunk

SearchEngine = TransformersEngine | VLLMServerEngine | OpenAIEngine
OPENERS = {"vllm_server": open_vllm_servers, "openai": open_openai_servers}


def load_engine(
    policy: str,
    reward_model: str | None,
    *,
    seed: int,
    device: Any,
    max_rows: int = 512,
    bit_identical: bool = True,
    kept_prefixes_mib: int = 0,
    bf16: bool = False,
    engine: SearchEngineConfig | None = None,
    max_context: int = 0,
) -> tuple[SearchEngine, Scorer | None]:
    """Loads a policy and a reward model for search; `engine` None is the engine transformers.
    `max_context` limits the context, in tokens, to that of a further model; 0: no such limit.

    Raises the errors of `open_engine`, and those of `OPENERS` for their engines. Before a
    model is loaded, raises ValueError for folders that are missing or do not fit together, and for
    `bf16` (the policy's weights in bf16) on a CPU that does not compute in bf16."""
    check_models(policy, reward_model)
    if engine is not None and engine.engine in OPENERS:
        return _open_servers(
            engine, policy, reward_model, seed=seed, device=device, max_context=max_context
        )
    if bf16 and torch.device(device).type == "cpu" and not computes_in_bf16():
        raise ValueError("bf16 is true, but this CPU has no bf16 instructions: set it to false")
    with whole_models():
        model, tokenizer = load_policy(policy)
        model = model.to(torch.bfloat16) if bf16 else model
    opened, scorer = open_engine(
        model.to(device),
        tokenizer,
        reward_model,
        seed=seed,
        device=device,
        max_rows=max_rows,
        bit_identical=bit_identical,
        kept_prefixes_mib=kept_prefixes_mib,
        max_context=max_context,
    )
    # Only here: a policy that is trained while it samples must not take the reward model along.
    if isinstance(scorer, RewardScorer) and isinstance(scorer.reward_model, ProcessRewardModel):
        share_trunk(opened, scorer)
    return opened, scorer


def _open_servers(
    config: SearchEngineConfig,
    policy: str,
    reward_model: str | None,
    *,
    seed: int,
    device: Any,
    max_context: int,
) -> tuple[VLLMServerEngine | OpenAIEngine, Scorer | None]:
    with whole_models():
        loaded = None if reward_model is None else open_reward_model(reward_model, device)
        limit = _least_context(max_context, 0 if loaded is None else loaded.max_context)
        engine = OPENERS[config.engine](config, policy, seed=seed, max_context=limit)
    if loaded is not None:
        check_vocabulary(reward_model, loaded, engine.vocab_size)
        _say_extrapolations(reward_model, loaded)
    return engine, None if loaded is None else scorer_of(loaded, engine)


def _least_context(*limits: int) -> int:
    """The smallest limit in tokens; 0 is none."""
    return min((limit for limit in limits if limit), default=0)


def check_guidance(engine: SearchEngine, settings: SearchSettings) -> None:
    """Raises ValueError for settings that need what the engine does not know."""
    unknown: dict[str, str] = {}  # guidances, and why the engine has none of their values
    if not isinstance(engine, TransformersEngine):
        unknown["entropy"] = "a server gives no entropies"
    if isinstance(engine, OpenAIEngine):
        unknown["self_evaluation"] = "a server of text gives no probability of a given token"
        if not engine.gives_logprobs:
            unknown["likelihood"] = "the server gives no log-probabilities"
            if settings.likelihood_weight:
                raise ValueError(
                    f"likelihood_weight is {settings.likelihood_weight}, but "
                    f"{unknown['likelihood']}: set it to 0"
                )
    for key in ("guidance", "answer_guidance"):
        if (value := getattr(settings, key)) in unknown:
            raise ValueError(
                f"{key} is {value!r}, but {unknown[value]}: use the engine transformers, or "
                "another guidance"
            )


def check_vocabulary(
    name: str | None, loaded: LoadedRewardModel, vocab_size: int, kind: str = "reward model"
) -> None:
    """Raises ValueError for a model that reads the policy's ids with another vocabulary."""
    if loaded.token_model is not None and loaded.vocab_size != vocab_size:
        raise ValueError(
            f"{kind} {name} has {loaded.vocab_size} tokens, the policy has {vocab_size}: "
            "they must share one tokenizer"
        )


def _say_extrapolations(name: str | None, loaded: LoadedRewardModel) -> None:
    if loaded.ends_only and is_main_process():
        print(
            f"{name} was trained only at the end of finished solutions: scores of other steps are "
            "extrapolations (guidance: outcome asks for none of those on the way)",
            flush=True,
        )


def open_engine(
    model: Any,
    tokenizer: Any,
    reward_model: str | None,
    *,
    seed: int,
    device: Any,
    max_rows: int = 512,
    bit_identical: bool = True,
    kept_prefixes_mib: int = 0,
    max_context: int = 0,
) -> tuple[TransformersEngine, Scorer | None]:
    """An engine over a loaded policy, and a scorer for the named reward model (see
    rewards/models/opening.py). `max_context` is that of `load_engine`. Raises ValueError for a
    reward model that reads the policy's token ids but has another vocabulary, and the errors of
    `open_reward_model`."""
    loaded: LoadedRewardModel | None = None
    if reward_model is not None:
        with whole_models():
            loaded = open_reward_model(reward_model, device)
        check_vocabulary(reward_model, loaded, model.config.vocab_size)
        _say_extrapolations(reward_model, loaded)
        max_context = _least_context(max_context, loaded.max_context)
        keep_prefixes(loaded.token_model, kept_prefixes_mib, bit_identical)
    config = EngineConfig(
        seed=seed,
        max_rows=max_rows,
        max_context=max_context,
        bit_identical=bit_identical,
        kept_prefixes_mib=kept_prefixes_mib,
    )
    engine = TransformersEngine(model, tokenizer, config)
    return engine, None if loaded is None else scorer_of(loaded, engine)


def keep_prefixes(model: RewardModel | None, mib: int, bit_identical: bool) -> None:
    """Let a reward model keep prefixes, if it can. The members of an ensemble share the memory."""
    if isinstance(model, ProcessRewardModel):
        model.keep_prefixes(mib, bit_identical=bit_identical)
    elif isinstance(model, EnsembleRewardModel):
        for member in model.members:
            keep_prefixes(member, mib // len(model.members), bit_identical)


def scorer_of(loaded: LoadedRewardModel, engine: SearchEngine) -> Scorer:
    """A reward model as searches with this engine ask it."""
    if loaded.token_model is not None:
        return RewardScorer(loaded.token_model)
    assert loaded.text_model is not None

    def question(prompt_ids: Sequence[int]) -> str:
        prompt = engine.decode_prompt(prompt_ids)
        return prompt if loaded.whole_prompt else question_of(prompt, engine.tokenizer)

    return TextScorer(loaded.text_model, engine, question)
