"""The control of a guided tree search."""

from __future__ import annotations

from dataclasses import replace

from search.settings import SearchSettings


def random_tree(settings: SearchSettings) -> SearchSettings:
    """The settings of a tree search with random values whose answer is chosen like the search's
    own. With the guidance self_consistency, that is the answer of the majority."""
    random = replace(settings, guidance="random", stop_score=0.0)
    if settings.choosing_guidance == "self_consistency":
        return replace(random, answer="majority")
    return replace(random, answer_guidance=settings.choosing_guidance)
