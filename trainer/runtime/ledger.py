"""The ledger of a stage: what each of its models computed, in searches and in trainings."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from data.types import ModelUsage


@dataclass(frozen=True, kw_only=True)
class LedgerEntry(ModelUsage):
    """The cost of one search or training, for one model."""

    model: str  # policy or reward
    kind: str  # search or training


def search_entry(model: str, usage: ModelUsage) -> LedgerEntry:
    return LedgerEntry(model=model, kind="search", **asdict(usage))


def training_entry(model: str, tokens: int, flops: float) -> LedgerEntry:
    """A training on `tokens` positions, forward and backward."""
    return LedgerEntry(
        model=model, kind="training", prompt_tokens=tokens, positions=tokens, flops=flops
    )
