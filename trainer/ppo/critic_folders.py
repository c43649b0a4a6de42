"""Builds the critic, and saves it in a folder.

A critic's folder is an `AutoModelForTokenClassification` folder. The logit of its label `value` is
the value. A critic that started from a reward model has the labels `incorrect` and `correct` before
`value`. Its value is the logit of `value` plus softmax(logits / T)[1] of the other two. T is the
temperature from the reward model's folder.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from rewards.models.calibration import BIAS, TEMPERATURE, bias_of, temperature_of
from rewards.models.folders import CONVENTION, load_tokenizer, token_classifiers
from trainer.models.sharding import whole
from trainer.ppo.actor_critic import Critic

STARTS = ("policy", "reward_model", "reward_backbone")
CRITIC = "thinktree_critic"  # the convention in a critic's config.json
CLASSES = ("incorrect", "correct")
VALUE = "value"


def is_critic_folder(start: str) -> bool:
    """Whether a recipe's `critic` names a folder, not one of `STARTS`."""
    return start not in STARTS and "/" in start


def build_critic(
    start: str, policy: str, reward_model: str | None, *, dtype: Any = "auto"
) -> Critic:
    """Build a critic from `start`:

    - policy: the policy's backbone with a head of zeros;
    - reward_model: the reward model's backbone and its P(correct), for rewards that are not shaped;
    - reward_backbone: the reward model's backbone with a head of zeros, for shaped rewards, whose
      values must not start at Phi again (Wiewiora 2003);
    - a folder: the critic that an earlier run saved there.

    Raises ValueError for another start, for a start that needs a reward model if none is given, and
    for a folder that holds no critic.
    """
    from trl.trainer.utils import disable_dropout_in_model

    if start == "policy":
        critic = Critic(AutoModel.from_pretrained(policy, dtype=dtype), None)
    elif start in STARTS:
        if reward_model is None:
            raise ValueError(f"critic is {start!r}, but no reward_model is given")
        kind = token_classifiers(AutoConfig.from_pretrained(reward_model))
        model = kind.from_pretrained(reward_model, dtype=dtype)
        score = _rows(model.score, 0, 2) if start == "reward_model" else None
        critic = Critic(
            model.base_model, score, temperature_of(model.config), bias_of(model.config)
        )
    elif is_critic_folder(start):
        critic = _kept(start, dtype)
    else:
        raise ValueError(f"critic is {start!r}; allowed: {', '.join(STARTS)}, or a critic's folder")
    disable_dropout_in_model(critic.backbone)
    return critic


def _kept(folder: str, dtype: Any) -> Critic:
    config = AutoConfig.from_pretrained(folder)
    if getattr(config, CONVENTION, None) != CRITIC:
        raise ValueError(f"critic is {folder!r}, which does not hold a critic of an earlier run")
    model = token_classifiers(config).from_pretrained(folder, dtype=dtype)
    score = _rows(model.score, 0, 2) if model.config.num_labels == 3 else None
    critic = Critic(model.base_model, score, temperature_of(model.config), bias_of(model.config))
    last = model.config.num_labels - 1
    critic.head = _rows(model.score, last, last + 1)
    return critic


def _rows(head: Any, first: int, last: int) -> nn.Linear:
    """A new head with the classes first..last-1 of `head`, in fp32. The head is trained even if its
    backbone is not."""
    own = nn.Linear(head.in_features, last - first)
    with whole(head.parameters()), torch.no_grad():
        own.weight.copy_(head.weight[first:last])
        own.bias.copy_(head.bias[first:last]) if head.bias is not None else own.bias.zero_()
    return own


def save_critic(
    critic: Critic, weights: dict[str, Tensor], config: Any, tokenizer: Any, folder: Path
) -> None:
    """Save a critic whose parameters are complete in this process. `weights` and `config` belong to
    its backbone, with the adapters merged."""
    heads = [critic.head] if critic.score is None else [critic.score, critic.head]
    names = [VALUE] if critic.score is None else [*CLASSES, VALUE]
    config = copy.deepcopy(config)
    config.id2label = dict(enumerate(names))
    config.label2id = {name: i for i, name in enumerate(names)}
    setattr(config, CONVENTION, CRITIC)
    if critic.score is not None:
        setattr(config, TEMPERATURE, critic.temperature)
        setattr(config, BIAS, critic.bias)
    with torch.device("meta"):
        model: Any = token_classifiers(config).from_config(config)
    state = {f"{model.base_model_prefix}.{name}": value for name, value in weights.items()}
    dtype = next(iter(weights.values())).dtype
    for name in ("weight", "bias"):
        rows = torch.cat([getattr(head, name).detach() for head in heads])
        state[f"score.{name}"] = rows.to(dtype)
    model.load_state_dict(state, assign=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def check_same_tokens(what: str, name: str, tokenizer: Any, vocab_size: int) -> None:
    """Raises ValueError, with the names of both models, if the model `name` has other tokens than
    the policy, whose `tokenizer` and `vocab_size` are given. A folder without a tokenizer must have
    the same number of tokens. A model with the same tokenizer may be padded to another size."""
    config: Any = AutoConfig.from_pretrained(name)
    own_size = config.get_text_config().vocab_size
    has_tokenizer = not Path(name).is_dir() or (Path(name) / "tokenizer_config.json").exists()
    if not has_tokenizer:
        if own_size != vocab_size:
            raise ValueError(
                f"{what} {name!r} has {own_size} tokens, the policy has {vocab_size}: they must "
                "share one tokenizer"
            )
        return
    own, needed = load_tokenizer(name).get_vocab(), tokenizer.get_vocab()
    differing = sorted(token for token in own | needed if own.get(token) != needed.get(token))
    if differing or own_size < len(needed):
        reason = (
            f"{len(differing)} tokens differ, {differing[0]!r} among them"
            if differing
            else f"it has {own_size} tokens of {len(needed)}"
        )
        raise ValueError(
            f"{what} {name!r} and the policy do not share one tokenizer: {reason}; its "
            "log-probabilities and values would be meaningless"
        )
