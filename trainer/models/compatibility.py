"""Checks before a model's weights are read: the model exists, and its parts fit together.

Every function raises ValueError, which names the given value and what is needed. The functions read
only configurations and tokenizers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig

from data.token_text import known_token_ids
from rewards.models.folders import THINKTREE, load_tokenizer, model_end_tokens
from rewards.server.client import is_address

LEAST_SHARE = 0.8  # of a model's vocabulary has a token; Phi-2, the most padded one known, has 0.98


def read_config(name: str) -> Any:
    """A model's configuration, from a folder or the hub."""
    folder = Path(name)
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise ValueError(
            f"{name!r} is an adapter without its model: merge the two with "
            f"scripts/merge_adapter.py --adapter {name}"
        )
    try:
        return AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        where = "in its folder" if folder.is_dir() else "neither a folder nor a name on the hub"
        reason = str(error).splitlines()[0]
        raise ValueError(f"there is no model {name!r} ({where}): {reason}") from None


def check_policy(name: str) -> None:
    """Check that the model has every token of its tokenizer, and that both have one end token."""
    config, tokenizer = read_config(name), _tokenizer(name)
    check_vocabulary(name, tokenizer, config.get_text_config().vocab_size)
    if tokenizer.eos_token_id is None:
        raise ValueError(f"{name!r}: the tokenizer has no end token (eos_token)")
    ends = model_end_tokens(name)
    if ends and tokenizer.eos_token_id not in ends:
        raise ValueError(
            f"{name!r}: the tokenizer ends a text with {tokenizer.eos_token!r} "
            f"({tokenizer.eos_token_id}), the model with {sorted(ends)} (eos_token_id): set both "
            "to the same token"
        )


def check_policy_head(name: str) -> None:
    """Check that the model has a head that predicts tokens."""
    architecture: str = (read_config(name).architectures or [""])[0]
    if architecture.endswith("Classification"):
        raise ValueError(
            f"{name!r} is a reward model ({architecture}): it has no head that predicts tokens; "
            "name a policy"
        )


def check_vocabulary(name: str, tokenizer: Any, size: int) -> None:
    """Check that a tokenizer belongs to a model with `size` tokens. The model may have some more,
    as its vocabulary is padded to a round number. Special tokens may lie behind the model's
    vocabulary: Gemma-3's models of text have no token for an image."""
    added = tokenizer.added_tokens_decoder
    behind = [id for id in known_token_ids(tokenizer) if id >= size]
    foreign = any(id not in added or not added[id].special for id in behind)
    if foreign or len(tokenizer) < LEAST_SHARE * size:
        raise ValueError(
            f"{name!r}: the tokenizer has {len(tokenizer)} tokens, the model {size}: they do not "
            "belong together"
        )


def check_models(policy: str, reward_model: str | None, judge: str | None = None) -> None:
    """Check the policy and the reward models that a search loads."""
    check_policy(policy)
    for key, name in (("reward_model", reward_model), ("judge", judge)):
        if name is not None:
            check_reward_model(name, policy, key)


def check_reward_model(name: str, policy: str, key: str = "reward_model") -> None:
    """Check that a reward model that reads the policy's token ids has the policy's vocabulary. The
    recipe names it by `key`."""
    from rewards.models.opening import convention_of

    if is_address(name):  # a server is checked when it is opened
        return
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise ValueError(f"{key} is {name!r}: there is no such file")
        return
    theirs = read_config(name).get_text_config().vocab_size
    if convention_of(name) != THINKTREE:
        return
    ours = read_config(policy).get_text_config().vocab_size
    if theirs != ours or _tokenizer(name).get_vocab() != _tokenizer(policy).get_vocab():
        raise ValueError(
            f"reward model {name!r} has {theirs} tokens, the policy {policy!r} has {ours}; the "
            f"tokens must be the same: they must share one tokenizer (key {key})"
        )


def _tokenizer(name: str) -> Any:
    try:
        return load_tokenizer(name)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"the tokenizer of {name!r} cannot be read: {reason}") from None
