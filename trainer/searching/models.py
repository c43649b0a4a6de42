"""The models of a search: a policy, a reward model that guides, and a judge that chooses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rewards.models.opening import open_reward_model
from search.base import Scorer
from search.engines.transformers_engine import TransformersEngine
from trainer.models.compatibility import check_models
from trainer.models.loading import whole_models
from trainer.searching.engines import (
    SearchEngine,
    check_vocabulary,
    keep_prefixes,
    load_engine,
    scorer_of,
)
from trainer.searching.server_engines import SearchEngineConfig


@dataclass(frozen=True, kw_only=True)
class SearchModels:
    """The engine that samples, the reward model that guides, and the judge, which `answer_guidance:
    judge` asks for the values of finished solutions."""

    engine: SearchEngine
    scorer: Scorer | None
    judge: Scorer | None


def load_models(
    policy: str,
    reward_model: str | None,
    judge: str | None,
    *,
    seed: int,
    device: Any,
    max_rows: int = 512,
    bit_identical: bool = True,
    kept_prefixes_mib: int = 0,
    bf16: bool = False,
    engine: SearchEngineConfig | None = None,
) -> SearchModels:
    """Loads the models that a recipe names. `judge` may be all that `reward_model` may be, and is
    loaded beside it also if both are the same. The context is the smallest one of the models.

    Raises ValueError, before a model is loaded, for folders that are missing or do not fit
    together, and the errors of `load_engine` and `open_reward_model`."""
    loaded = None
    if judge is not None:
        check_models(policy, reward_model, judge)
        with whole_models():
            loaded = open_reward_model(judge, device)
        keep_prefixes(loaded.token_model, kept_prefixes_mib, bit_identical)
    opened, scorer = load_engine(
        policy,
        reward_model,
        seed=seed,
        device=device,
        max_rows=max_rows,
        bit_identical=bit_identical,
        kept_prefixes_mib=kept_prefixes_mib,
        bf16=bf16,
        engine=engine,
        max_context=0 if loaded is None else loaded.max_context,
    )
    if loaded is None:
        return SearchModels(engine=opened, scorer=scorer, judge=None)
    check_vocabulary(judge, loaded, _vocabulary_size(opened), "judge")
    return SearchModels(engine=opened, scorer=scorer, judge=scorer_of(loaded, opened))


def _vocabulary_size(engine: SearchEngine) -> int:
    if isinstance(engine, TransformersEngine):
        return engine.model.config.vocab_size
    return engine.vocab_size
