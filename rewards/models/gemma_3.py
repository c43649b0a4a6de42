"""Token classification with Gemma-3, for which transformers has no class: process reward models and
critics need one."""

# transformers has no complete types.
# pyright: reportUnknownMemberType=false, reportUntypedBaseClass=false
# pyright: reportUnknownVariableType=false
from __future__ import annotations

from transformers import AutoModelForTokenClassification, Gemma3PreTrainedModel, Gemma3TextConfig
from transformers.modeling_layers import GenericForTokenClassification


class Gemma3TextForTokenClassification(GenericForTokenClassification, Gemma3PreTrainedModel):
    """A linear head on every token's last hidden state, as transformers gives other families."""

    config_class = Gemma3TextConfig


# Without exist_ok, transformers leaves out what is registered for a configuration of its own.
AutoModelForTokenClassification.register(
    Gemma3TextConfig, Gemma3TextForTokenClassification, exist_ok=True
)
