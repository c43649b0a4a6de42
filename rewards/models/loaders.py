"""Load a reward model of a known convention: one function per convention. `CONVENTIONS` in
rewards/models/opening.py gives them by name."""

# transformers has no complete types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
)

from data.flops import flop_model
from rewards.base import NO_CONTEXT_LIMIT, RewardModel, TextRewardModel
from rewards.models import conventions
from rewards.models.causal_lm import candidate_reader
from rewards.models.folders import (
    TARGETS,
    THINKTREE,
    WHOLE_PROMPT,
    load_reward_model,
    load_tokenizer,
)
from rewards.models.implicit import ImplicitRewardModel
from rewards.models.llm_judge import JudgeConfig, JudgeRewardModel
from rewards.models.prm import ProcessRewardModel, process_reward_model
from rewards.models.published_architectures import PUBLISHED
from rewards.models.questions import QUESTION, answer_token, asker
from rewards.models.rendering import Render, as_written, continued, single_token
from rewards.models.text_models import ConventionRewardModel, GenerativeRewardModel
from rewards.models.value_heads import sequence_classifier_values, value_head_reader
from rewards.models.vllm_server import KnownScores, VLLMRewardConfig, VLLMRewardModel
from rewards.server.client import (
    IN_TEXT,
    IN_TOKEN_IDS,
    ScoringClient,
    ServedTextModel,
    ServedTokenModel,
    ServerConfig,
)

TEXT_ROWS = 64  # solutions per batch; published models are large
PROBES, PROBE_TOKENS = 4, 16  # what a server's weights are compared on


@dataclass(frozen=True, kw_only=True)
class LoadedRewardModel:
    """A reward model with one of two protocols.

    `token_model` reads token ids of a vocabulary of `vocab_size` tokens, at most `max_context`
    tokens (0: no limit). `text_model` reads text: the problem's question, or with `whole_prompt`
    the prompt that the policy gets. `ends_only` is true when the model was trained only at the ends
    of finished solutions.
    """

    convention: str
    token_model: RewardModel | None = None
    text_model: TextRewardModel | None = None
    whole_prompt: bool = False
    ends_only: bool = False
    vocab_size: int = 0
    max_context: int = 0


@dataclass(frozen=True, kw_only=True)
class FolderConfig:
    """A reward model that needs only its folder."""

    model: str
    """Folder or hub id of the model."""


@dataclass(frozen=True, kw_only=True)
class TrlConfig:
    """A process reward model trained by TRL."""

    model: str
    """Folder or hub id of the model."""
    step_separator: str = "\n"
    """Text after each step, the same as in the model's training."""


@dataclass(frozen=True, kw_only=True)
class GenerativeConfig:
    """A causal language model that answers a question after every step. The score compares the
    probabilities of the first tokens of the two answers."""

    model: str
    """Folder or hub id of the model."""
    question: str = QUESTION
    """Question after every step; it holds {problem} and {steps}."""
    yes: str = "yes"
    """Answer that means correct."""
    no: str = "no"
    """Answer that means wrong."""


@dataclass(frozen=True, kw_only=True)
class ImplicitConfig:
    """A causal language model that was trained on outcomes, used as a process reward model."""

    model: str
    """Folder or hub id of the model."""
    reference: str
    """Folder or hub id of the reference model of that training."""
    beta: float
    """Coefficient beta of the training, above 0."""


def load_thinktree(config: FolderConfig, device: Any) -> LoadedRewardModel:
    """A model of this project that reads the policy's token ids."""
    model = load_reward_model(config.model).to(device)
    return LoadedRewardModel(
        convention=THINKTREE,
        token_model=process_reward_model(model, model.config.pad_token_id or 0),
        ends_only=_ends_only(model.config),
        vocab_size=model.config.vocab_size,
        max_context=getattr(model.config, "max_position_embeddings", None) or 0,
    )


def load_thinktree_text(config: FolderConfig, device: Any) -> LoadedRewardModel:
    """A model of this project that reads text, for solutions that come as text and for policies
    with another vocabulary."""
    if _ends_only(AutoConfig.from_pretrained(config.model)):
        raise ValueError(
            f"reward model {config.model!r} was trained at the end token alone, which a text does "
            "not contain; name its folder as the reward model, so that it reads token ids"
        )
    loaded = _classes("thinktree_text", config.model, as_written, load_reward_model, device)
    return replace(loaded, whole_prompt=True)


def load_trl(config: FolderConfig | TrlConfig, device: Any) -> LoadedRewardModel:
    render = conventions.trl
    if isinstance(config, TrlConfig):
        render = partial(conventions.trl, step_separator=config.step_separator)
    return _classes("trl", config.model, render, load_reward_model, device)


def load_qwen_math_prm(config: FolderConfig, device: Any) -> LoadedRewardModel:
    load = partial(_load_published, architecture="Qwen2ForProcessRewardModel")
    return _classes("qwen_math_prm", config.model, conventions.qwen_math_prm, load, device)


def _classes(
    convention: str,
    name: str,
    render: Callable[[Any], Render],
    load: Callable[[str], Any],
    device: Any,
) -> LoadedRewardModel:
    """A model with a two-class head that reads text."""
    tokenizer = load_tokenizer(name)
    model = load(name).to(device)
    flops = flop_model(model).forward
    reader = ProcessRewardModel(model, tokenizer.pad_token_id, flops, max_rows=TEXT_ROWS)
    return _in_text(convention, reader, render(tokenizer), model)


def load_skywork(config: FolderConfig, device: Any) -> LoadedRewardModel:
    tokenizer = load_tokenizer(config.model)
    model = _load_published(config.model, architecture="Qwen2ForPrmModel").to(device)
    reader = value_head_reader(
        model,
        lambda ids_RL, mask_RL: model(ids_RL, mask_RL).logits[..., 0],
        tokenizer.pad_token_id,
        flop_model(model).forward,
    )
    return _in_text("skywork", reader, conventions.skywork(tokenizer), model)


def load_outcome(config: FolderConfig, device: Any) -> LoadedRewardModel:
    tokenizer = load_tokenizer(config.model)
    model = AutoModelForSequenceClassification.from_pretrained(config.model, dtype="auto").to(
        device
    )
    reader = value_head_reader(
        model,
        sequence_classifier_values(model),
        tokenizer.pad_token_id,
        flop_model(model).forward,
    )
    pad_token_id = model.config.get_text_config().pad_token_id
    loaded = _in_text("outcome", reader, conventions.outcome(tokenizer, pad_token_id), model)
    whole_prompt = bool(getattr(model.config, WHOLE_PROMPT, False))
    return replace(loaded, whole_prompt=whole_prompt, ends_only=True)


def load_candidates(
    convention: str, render: Callable[[Any], Render], config: FolderConfig, device: Any
) -> LoadedRewardModel:
    """A causal language model that answers `+` or `-`."""
    tokenizer, model = _causal(config.model, device)
    reader = candidate_reader(
        model,
        single_token(tokenizer, "+"),
        single_token(tokenizer, "-"),
        tokenizer.pad_token_id,
        flop_model(model.get_decoder()).forward,
    )
    return _in_text(convention, reader, render(tokenizer), model)


def load_generative(config: GenerativeConfig, device: Any) -> LoadedRewardModel:
    tokenizer, model = _causal(config.model, device)
    yes, no = answer_token(tokenizer, config.yes), answer_token(tokenizer, config.no)
    if yes == no:
        raise ValueError(
            f"yes is {config.yes!r} and no is {config.no!r}; their first tokens must differ"
        )
    reader = candidate_reader(
        model, yes, no, tokenizer.pad_token_id, flop_model(model.get_decoder()).forward
    )
    ask = asker(tokenizer, config.question)
    generative = GenerativeRewardModel(reader, ask, _context(model))
    return LoadedRewardModel(convention="generative", text_model=generative)


def load_implicit(config: ImplicitConfig, device: Any) -> LoadedRewardModel:
    tokenizer, model = _causal(config.model, device)
    _, reference = _causal(config.reference, device)
    costs = (flop_model(model.get_decoder()), flop_model(reference.get_decoder()))
    implicit = ImplicitRewardModel(
        model,
        reference,
        continued(tokenizer),
        tokenizer.pad_token_id,
        lambda start, end: sum(cost.forward(start, end) for cost in costs),
        beta=config.beta,
        max_tokens=min(_context(model), _context(reference)),
    )
    return LoadedRewardModel(convention="implicit", text_model=implicit)


def load_judge(config: JudgeConfig, device: Any) -> LoadedRewardModel:
    return LoadedRewardModel(convention="judge", text_model=JudgeRewardModel(config))


def load_server(config: ServerConfig, device: Any) -> LoadedRewardModel:
    """A served model. Requests have token ids if the model can read them, as for a model in this
    process, unless `in_text` is true."""
    client = ScoringClient(config)
    served = client.description
    if IN_TOKEN_IDS in served.asked_in and not config.in_text:
        return LoadedRewardModel(
            convention="server",
            token_model=ServedTokenModel(client),
            vocab_size=served.vocab_size,
            max_context=served.max_tokens,
        )
    if IN_TEXT not in served.asked_in:
        raise ValueError(
            f"in_text is true, but {config.server} serves {served.reward_model} "
            f"({served.convention}), which reads token ids only"
        )
    return LoadedRewardModel(
        convention="server",
        text_model=ServedTextModel(client),
        whole_prompt=served.whole_prompt,
    )


def load_vllm(config: VLLMRewardConfig, device: Any) -> LoadedRewardModel:
    """A model of this project behind a vLLM server. It is loaded here once, without `device`, to
    compare some scores: a server with other weights is refused."""
    model = load_reward_model(config.model)
    here = process_reward_model(model, model.config.pad_token_id or 0)
    # Random ids are no text, but they tell weights apart.
    dice = random.Random(0)
    size = model.config.vocab_size
    sequences = [tuple(dice.choices(range(size), k=PROBE_TOKENS)) for _ in range(PROBES)]
    found, _ = here.score(sequences, [(PROBE_TOKENS - 1,)] * PROBES)
    served = VLLMRewardModel(
        config,
        temperature=here.temperature,
        bias=here.bias,
        flops=flop_model(model).forward,
        known=KnownScores(sequences=tuple(sequences), scores=tuple(row[0] for row in found)),
    )
    own = getattr(model.config, "max_position_embeddings", None) or 0
    return LoadedRewardModel(
        convention="vllm",
        token_model=served,
        ends_only=_ends_only(model.config),
        vocab_size=size,
        max_context=min((n for n in (own, served.max_context) if n), default=0),
    )


# --- Functions that the conventions share ---


def _in_text(convention: str, reader: RewardModel, render: Render, model: Any) -> LoadedRewardModel:
    return LoadedRewardModel(
        convention=convention, text_model=ConventionRewardModel(reader, render, _context(model))
    )


def _causal(name: str, device: Any) -> tuple[Any, Any]:
    model = AutoModelForCausalLM.from_pretrained(name, dtype="auto").to(device)
    return load_tokenizer(name), model


def _load_published(name: str, architecture: str) -> Any:
    """Load a published model. Raises ValueError when the folder lacks some of the architecture's
    weights."""
    model, info = PUBLISHED[architecture].from_pretrained(
        name, dtype="auto", output_loading_info=True
    )
    if info["missing_keys"] or info["mismatched_keys"]:
        raise ValueError(
            f"reward_model {name!r} is not a {architecture}: its weights lack "
            f"{sorted(info['missing_keys'])[:5]}"
        )
    return model


def _ends_only(config: Any) -> bool:
    return getattr(config, TARGETS, "") == "outcome"


def _context(model: Any) -> int:
    return (
        getattr(model.config.get_text_config(), "max_position_embeddings", None) or NO_CONTEXT_LIMIT
    )
