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
from dataclasses import MISSING, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

from transformers import AutoConfig

from data.renamed_keys import refuse_renamed_keys
from data.settings import check_values, did_you_mean, read_yaml_mapping
from rewards.models import conventions, loaders
from rewards.models.ensemble import EnsembleRewardModel, TextEnsembleRewardModel
from rewards.models.folders import CONVENTION, THINKTREE
from rewards.models.llm_judge import JudgeConfig
from rewards.models.loaders import (
    FolderConfig,
    GenerativeConfig,
    ImplicitConfig,
    LoadedRewardModel,
    TrlConfig,
)
from rewards.models.vllm_server import VLLMRewardConfig
from rewards.server.client import ServerConfig, is_address

# Published causal models and their conventions, by the name on the hub.
PUBLISHED_CAUSAL = {
    "peiyi9979/math-shepherd-mistral-7b-prm": "math_shepherd",
    "RLHFlow/Llama3.1-8B-PRM-Mistral-Data": "rlhflow",
    "RLHFlow/Llama3.1-8B-PRM-Deepseek-Data": "rlhflow",
}


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
        return loaders.load_server(ServerConfig(server=name), device)
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
            f"{path}: convention is {convention!r}; "
            f"{did_you_mean(str(convention), CONVENTIONS)}allowed: {', '.join(CONVENTIONS)}"
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


@dataclass(frozen=True, kw_only=True)
class ConventionEntry:
    """One convention. `load(config, device)` opens a model. `config` is the dataclass for the other
    keys of a YAML description."""

    config: type
    load: Callable[[Any, Any], LoadedRewardModel]


CONVENTIONS: dict[str, ConventionEntry] = {
    THINKTREE: ConventionEntry(config=FolderConfig, load=loaders.load_thinktree),
    "thinktree_text": ConventionEntry(config=FolderConfig, load=loaders.load_thinktree_text),
    "trl": ConventionEntry(config=TrlConfig, load=loaders.load_trl),
    "qwen_math_prm": ConventionEntry(config=FolderConfig, load=loaders.load_qwen_math_prm),
    "math_shepherd": ConventionEntry(
        config=FolderConfig,
        load=partial(loaders.load_candidates, "math_shepherd", conventions.math_shepherd),
    ),
    "rlhflow": ConventionEntry(
        config=FolderConfig, load=partial(loaders.load_candidates, "rlhflow", conventions.rlhflow)
    ),
    "skywork": ConventionEntry(config=FolderConfig, load=loaders.load_skywork),
    "outcome": ConventionEntry(config=FolderConfig, load=loaders.load_outcome),
    "generative": ConventionEntry(config=GenerativeConfig, load=loaders.load_generative),
    "judge": ConventionEntry(config=JudgeConfig, load=loaders.load_judge),
    "server": ConventionEntry(config=ServerConfig, load=loaders.load_server),
    "vllm": ConventionEntry(config=VLLMRewardConfig, load=loaders.load_vllm),
    "implicit": ConventionEntry(config=ImplicitConfig, load=loaders.load_implicit),
    "ensemble": ConventionEntry(config=EnsembleConfig, load=_ensemble),
}
ARCHITECTURES = {
    "Qwen2ForProcessRewardModel": "qwen_math_prm",
    "Qwen2ForPrmModel": "skywork",
}
