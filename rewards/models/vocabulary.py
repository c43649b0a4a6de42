"""Token ids that a model has and its tokenizer lacks are never sampled.

The vocabularies of published models are padded: Qwen2.5 has 271 ids more than its tokenizer. Such
an id has no text, so no sample may hold one, and the probabilities of all other tokens are taken
among the tokens that can be sampled.
"""

# torch and transformers have no complete types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
from __future__ import annotations

from typing import Any

import torch

from data.token_text import known_token_ids

NEVER = -1e9  # a logit; finite, as entropies multiply it by a probability of 0
MARK = "thinktree_unknown_token_ids"


def unknown_token_ids(model: Any, tokenizer: Any) -> list[int]:
    """The ids of the model's vocabulary that the tokenizer has no token for, in ascending order."""
    known = known_token_ids(tokenizer)
    return [id for id in range(model.config.get_text_config().vocab_size) if id not in known]


def forbid_unknown_tokens(model: Any, tokenizer: Any) -> None:
    """Make the logits of `unknown_token_ids` so small that their probability is 0, in every use of
    the model: sampling, its log-probabilities and training. The weights stay as they are.

    The hook is on the head, because adapters call the parts of a model and not the model itself. A
    model that caps its logits behind the head (Gemma-2) gets a second hook there.
    """
    if hasattr(model, MARK):
        return
    unknown = unknown_token_ids(model, tokenizer)
    setattr(model, MARK, unknown)
    if not unknown:
        return

    def forbid(logits: Any) -> None:
        least = max(NEVER, torch.finfo(logits.dtype).min / 2)
        if len(unknown) == logits.shape[-1] - unknown[0]:  # the last ids, as in published models
            logits[..., unknown[0] :] = least
        else:
            logits[..., unknown] = least

    def behind_head(module: Any, inputs: Any, logits: Any) -> Any:
        forbid(logits)
        return logits

    def behind_model(module: Any, inputs: Any, output: Any) -> Any:
        forbid(output.logits)
        return output

    model.get_output_embeddings().register_forward_hook(behind_head)
    if getattr(model.config.get_text_config(), "final_logit_softcapping", None) is not None:
        model.register_forward_hook(behind_model)
