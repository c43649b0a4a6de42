"""Open a reward model of any kind, from a folder, a hub id, a server or a YAML description.

The `reward_model` in a recipe is one of these:
- a folder or hub id. The config.json of this project's models, of published process reward models
  and of TRL's outcome models says what they are (`thinktree_convention` and `architectures`).
- the address of a scoring server (scripts/serve_prm.py), `http://host:port`.
- a YAML file with a `convention`, one of `CONVENTIONS`, and the settings of this convention. It is
  needed for causal language models, whose folders do not say which input they need, for judges
  behind a server, and for models made of several models:

      convention: ensemble
      deviations: 1.0
      members: [outputs/prm_a, outputs/prm_b, judge.yaml]

This project's models read the policy's token ids, which is exact and cheapest. So they need the
policy's vocabulary. All other models read text, with their own tokenizer. The text is the problem's
question: the prompt without the policy's chat template and without the text that data/prompts.py
adds. Paths in a YAML file are relative to the working directory of the process, like those in
recipes.
"""

# transformers has no complete types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
)

from data.flops import flop_model
from data.renamed_keys import refuse_renamed_keys
from data.settings import check_values, nearest, read_yaml_mapping
from rewards.base import NO_CONTEXT_LIMIT, RewardModel, TextRewardModel
from rewards.models import conventions
from rewards.models.causal_lm import candidate_reader
from rewards.models.ensemble import EnsembleRewardModel, TextEnsembleRewardModel
from rewards.models.folders import (
    CONVENTION,
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
from rewards.server.client import (
    IN_TEXT,
    IN_TOKEN_IDS,
    ScoringClient,
    ServedTextModel,
    ServedTokenModel,
    ServerConfig,
    is_address,
)

TEXT_ROWS = 64  # solutions per batch; published models are large

# Published causal models and their conventions, by the name on the hub.
PUBLISHED_CAUSAL = {
    "peiyi9979/math-shepherd-mistral-7b-prm": "math_shepherd",
    "RLHFlow/Llama3.1-8B-PRM-Mistral-Data": "rlhflow",
    "RLHFlow/Llama3.1-8B-PRM-Deepseek-Data": "rlhflow",
}


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


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig:
    """Several reward models. All must read token ids, or all must read text."""

    members: list[str]
    """Reward models, each named like the `reward_model` of a recipe."""
    deviations: float = 1.0
    """Number of standard deviations between the members that is subtracted from their mean."""


def open_reward_model(name: str, device: Any) -> LoadedRewardModel:
    """Open the `reward_model` of a recipe on `device`, ready to score.

    Raises ValueError when the folder does not say which convention it follows, and the message
    lists all conventions. Raises ValueError for a description with unknown, missing or wrong keys.
    """
    if is_address(name):
        return _served(ServerConfig(server=name), device)
    if name.endswith((".yaml", ".yml")):
        return _described(Path(name), device)
    return CONVENTIONS[convention_of(name)].load(FolderConfig(model=name), device)


def convention_of(name: str) -> str:
    """The convention of a folder or hub id. Raises ValueError when its config does not say it."""
    config: Any = AutoConfig.from_pretrained(name, trust_remote_code=False)
    stated = getattr(config, CONVENTION, None)
    architecture = (config.architectures or [""])[0]
    if stated is not None:
        found = stated
    elif architecture in ARCHITECTURES:
        found = ARCHITECTURES[architecture]
    elif architecture.endswith("ForTokenClassification"):
        named = "incorrect" in {str(label).lower() for label in config.id2label.values()}
        found = THINKTREE if named else "trl"
    elif architecture.endswith("ForSequenceClassification"):
        found = "outcome"
    else:
        found = PUBLISHED_CAUSAL.get(name, "")
    if found not in CONVENTIONS:
        raise ValueError(
            f"reward_model {name!r} ({architecture or 'no architecture'}) "
            + (f"states the convention {found!r}" if found else "does not say its convention")
            + "; write a YAML file with its `model` and its `convention`, one of "
            + ", ".join(CONVENTIONS)
        )
    return found


def _described(path: Path, device: Any) -> LoadedRewardModel:
    values = read_yaml_mapping(path)
    convention = values.pop("convention", None)
    if convention not in CONVENTIONS:
        raise ValueError(
            f"{path}: convention is {convention!r}; did you mean "
            f"{nearest(str(convention), CONVENTIONS)!r}? Allowed: {', '.join(CONVENTIONS)}"
        )
    entry = CONVENTIONS[convention]
    try:
        config = entry.config(**_checked(values, entry.config))
    except ValueError as error:
        raise ValueError(f"{path} ({convention}): {error}") from None
    return entry.load(config, device)


def _checked(values: Mapping[str, Any], kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    refuse_renamed_keys(values, (kind,))
    check_values(values, {name: [hint] for name, hint in hints.items()})
    for field in fields(kind):
        if field.default is MISSING and field.name not in values:
            raise ValueError(f"{field.name} is missing")
    return dict(values)


# --- One function per convention ---


def _ours(config: FolderConfig, device: Any) -> LoadedRewardModel:
    """A model of this project that reads the policy's token ids."""
    model = load_reward_model(config.model).to(device)
    return LoadedRewardModel(
        convention=THINKTREE,
        token_model=process_reward_model(model, model.config.pad_token_id or 0),
        ends_only=_ends_only(model.config),
        vocab_size=model.config.vocab_size,
        max_context=getattr(model.config, "max_position_embeddings", None) or 0,
    )


def _ours_in_text(config: FolderConfig, device: Any) -> LoadedRewardModel:
    """A model of this project that reads text, for solutions that come as text and for policies
    with another vocabulary."""
    if _ends_only(AutoConfig.from_pretrained(config.model)):
        raise ValueError(
            f"reward model {config.model!r} was trained at the end token alone, which a text does "
            "not contain; name its folder as the reward model, so that it reads token ids"
        )
    loaded = _classes("thinktree_text", config.model, as_written, load_reward_model, device)
    return replace(loaded, whole_prompt=True)


def _trl(config: FolderConfig | TrlConfig, device: Any) -> LoadedRewardModel:
    render = conventions.trl
    if isinstance(config, TrlConfig):
        render = partial(conventions.trl, step_separator=config.step_separator)
    return _classes("trl", config.model, render, load_reward_model, device)


def _qwen_math_prm(config: FolderConfig, device: Any) -> LoadedRewardModel:
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


def _skywork(config: FolderConfig, device: Any) -> LoadedRewardModel:
    tokenizer = load_tokenizer(config.model)
    model = _load_published(config.model, architecture="Qwen2ForPrmModel").to(device)
    reader = value_head_reader(
        model,
        lambda ids_RL, mask_RL: model(ids_RL, mask_RL).logits[..., 0],
        tokenizer.pad_token_id,
        flop_model(model).forward,
    )
    return _in_text("skywork", reader, conventions.skywork(tokenizer), model)


def _outcome(config: FolderConfig, device: Any) -> LoadedRewardModel:
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


def _candidates(
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


def _generative(config: GenerativeConfig, device: Any) -> LoadedRewardModel:
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


def _implicit(config: ImplicitConfig, device: Any) -> LoadedRewardModel:
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


def _judge(config: JudgeConfig, device: Any) -> LoadedRewardModel:
    return LoadedRewardModel(convention="judge", text_model=JudgeRewardModel(config))


def _served(config: ServerConfig, device: Any) -> LoadedRewardModel:
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


def _ensemble(config: EnsembleConfig, device: Any) -> LoadedRewardModel:
    members = [open_reward_model(name, device) for name in config.members]
    in_tokens = [m.token_model for m in members if m.token_model is not None]
    in_text = [m.text_model for m in members if m.text_model is not None]
    if in_text and in_tokens:
        asked = {name: m.convention for name, m in zip(config.members, members, strict=True)}
        raise ValueError(
            f"members of an ensemble must all read token ids ({THINKTREE}) or all read text (the "
            f"other conventions); these are {asked}. A YAML file with "
            "`convention: thinktree_text` makes a model of this project read text"
        )
    if in_text:
        text_model = TextEnsembleRewardModel(in_text, config.deviations)
        return LoadedRewardModel(
            convention="ensemble",
            text_model=text_model,
            whole_prompt=all(member.whole_prompt for member in members),
            ends_only=any(member.ends_only for member in members),
        )
    sizes = {member.vocab_size for member in members}
    if len(sizes) > 1:
        raise ValueError(
            f"members of the ensemble have {sorted(sizes)} tokens; they must share one tokenizer"
        )
    return LoadedRewardModel(
        convention="ensemble",
        token_model=EnsembleRewardModel(in_tokens, config.deviations),
        ends_only=any(member.ends_only for member in members),
        vocab_size=max(sizes),
        max_context=min((m.max_context for m in members if m.max_context), default=0),
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


@dataclass(frozen=True, kw_only=True)
class ConventionEntry:
    """One convention. `load(config, device)` opens a model. `config` is the dataclass for the other
    keys of a YAML description."""

    config: type
    load: Callable[[Any, Any], LoadedRewardModel]


CONVENTIONS: dict[str, ConventionEntry] = {
    THINKTREE: ConventionEntry(config=FolderConfig, load=_ours),
    "thinktree_text": ConventionEntry(config=FolderConfig, load=_ours_in_text),
    "trl": ConventionEntry(config=TrlConfig, load=_trl),
    "qwen_math_prm": ConventionEntry(config=FolderConfig, load=_qwen_math_prm),
    "math_shepherd": ConventionEntry(
        config=FolderConfig,
        load=partial(_candidates, "math_shepherd", conventions.math_shepherd),
    ),
    "rlhflow": ConventionEntry(
        config=FolderConfig, load=partial(_candidates, "rlhflow", conventions.rlhflow)
    ),
    "skywork": ConventionEntry(config=FolderConfig, load=_skywork),
    "outcome": ConventionEntry(config=FolderConfig, load=_outcome),
    "generative": ConventionEntry(config=GenerativeConfig, load=_generative),
    "judge": ConventionEntry(config=JudgeConfig, load=_judge),
    "server": ConventionEntry(config=ServerConfig, load=_served),
    "implicit": ConventionEntry(config=ImplicitConfig, load=_implicit),
    "ensemble": ConventionEntry(config=EnsembleConfig, load=_ensemble),
}
ARCHITECTURES = {
    "Qwen2ForProcessRewardModel": "qwen_math_prm",
    "Qwen2ForPrmModel": "skywork",
}
