"""Sequential revision, alone or combined with parallel sampling: the policy reads its earlier
attempts and tries again (2408.03314, section 6; with a critique: Self-Refine, 2303.17651).

The granularity is the solution. The N attempts form `chains` independent chains of equal length
(the parallel part). In a chain, every attempt but the first revises the attempts before it (the
sequential part).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from string import Formatter

from search.answers import Answers
from search.base import (
    GUIDANCE_INDEX,
    Node,
    SampleRequest,
    SearchEnd,
    SearchResult,
    Session,
    finish,
    without_end,
)
from search.growth import add_solution, new_tree
from search.guidance import judge
from search.settings import check_budgets

CRITIQUES = ("none", "score", "policy")


@dataclass(frozen=True, kw_only=True)
class RevisionConfig:
    """How attempts are revised. A revision leaves out older attempts that do not fit into the
    context.

    `critique` has three forms. With none, the critique is an empty text. With score, it is the
    guidance value of the attempt, written as a number. With policy, the policy writes it after
    `critique_prompt`.
    """

    budgets: tuple[int, ...] = (4,)
    """Number of attempts N; one number only, as another N needs another search."""
    chains: int = 1
    """Chains of attempts in parallel, a divisor of N; N: plain sampling, 1: all in sequence."""
    seen_attempts: int = 1
    """Attempts that a revision sees, the last ones of its chain."""
    revision_prompt: str = "{attempts}{prompt}"
    """Text before a revision; {prompt} and {attempts} are replaced."""
    attempt_template: str = "{attempt}\n{critique}"
    """Text of one earlier attempt; {attempt} and {critique} are replaced."""
    critique: str = "none"
    """Critique of an attempt: none, score (its guidance value) or policy (the policy writes it)."""
    critique_prompt: str = "{prompt}{attempt}\nCritique:"
    """Text before a critique; {prompt} and {attempt} are replaced."""
    critique_tokens: int = 64
    """Limit of one critique, in tokens."""

    def __post_init__(self) -> None:
        check_budgets(self.budgets, nested=False)
        if self.critique not in CRITIQUES:
            raise ValueError(f"critique is {self.critique!r}; allowed: {', '.join(CRITIQUES)}")
        if self.chains < 1 or self.budgets[0] % self.chains:
            raise ValueError(
                f"chains is {self.chains}; budgets, {self.budgets}, must be a multiple of it"
            )
        for name in ("seen_attempts", "critique_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name, fields in (
            ("revision_prompt", ("prompt", "attempts")),
            ("attempt_template", ("attempt",)),
        ):
            found = {field for _, field, _, _ in Formatter().parse(getattr(self, name)) if field}
            for field_name in fields:
                if field_name not in found:
                    raise ValueError(f"{name} lacks {{{field_name}}}: {getattr(self, name)!r}")
            if not found <= {"prompt", *fields, "critique"}:
                raise ValueError(
                    f"{name} has {sorted(found)}; allowed: prompt, {', '.join(fields)}"
                    f"{', critique' if name == 'attempt_template' else ''}"
                )


@dataclass(slots=True, kw_only=True)
class _Chain:
    attempts: list[int] = field(default_factory=list[int])
    critiques: list[tuple[int, ...]] = field(default_factory=list[tuple[int, ...]])


async def search_revision(session: Session, config: RevisionConfig) -> SearchResult:
    """Run the revisions. In each round, all chains make one attempt in the same batch."""
    [n] = config.budgets
    nodes = new_tree()
    chains = [_Chain() for _ in range(config.chains)]
    end = session.exhausted()
    for round in range(n // config.chains):
        if end is not None:
            break
        if round:
            await _criticise(session, config, nodes, chains)
        session.share_after_call = (round + 1) * config.chains / n
        await _attempt(session, config, nodes, chains)
        end = session.exhausted()
    snapshot = await Answers(session, nodes).take(n)
    return finish(session, "revision", nodes, [snapshot], end or SearchEnd.COMPLETE)


async def _attempt(
    session: Session, config: RevisionConfig, nodes: list[Node], chains: Sequence[_Chain]
) -> None:
    """Sample one more attempt of every chain. Equal attempts get separate nodes."""
    settings = session.settings
    prefixes = [_prefix(session, config, nodes, chain) for chain in chains]
    results = await session.sample(
        [
            SampleRequest(
                node=chain.attempts[-1] if chain.attempts else 0,
                prefix=prefix,
                n=1,
                first_index=0 if chain.attempts else i,
                stop_at_step=False,
                max_new_tokens=settings.max_new_tokens,
                temperature=settings.temperature,
            )
            for i, (chain, prefix) in enumerate(zip(chains, prefixes, strict=True))
        ]
    )
    new: list[int] = []
    for chain, prefix, result in zip(chains, prefixes, results, strict=True):
        [sample] = result.samples
        revises = chain.attempts[-1] if prefix != session.prompt_ids else -1
        node = add_solution(session, nodes, sample, revises=revises)
        chain.attempts.append(node.id)
        new.append(node.id)
    if settings.needs_scores or config.critique == "score":
        await judge(session, nodes, new)


async def _criticise(
    session: Session, config: RevisionConfig, nodes: Sequence[Node], chains: Sequence[_Chain]
) -> None:
    """Add a critique of the last attempt to every chain. The critique is empty when the context has
    no room for it."""
    engine = session.engine
    critiques: list[tuple[int, ...]] = [() for _ in chains]
    if config.critique == "score":
        scores = [nodes[chain.attempts[-1]].score for chain in chains]
        critiques = [() if s is None else engine.encode(f"{s:.2f}\n") for s in scores]
    elif config.critique == "policy":
        prefixes = [
            filled_template(
                session,
                config.critique_prompt,
                {"attempt": without_end(session, nodes[chain.attempts[-1]].token_ids)},
            )
            for chain in chains
        ]
        fitting = [i for i, prefix in enumerate(prefixes) if len(prefix) < engine.context_length]
        requests = [
            SampleRequest(
                node=chains[i].attempts[-1],
                prefix=prefixes[i],
                n=1,
                first_index=GUIDANCE_INDEX,
                stop_at_step=False,
                max_new_tokens=config.critique_tokens,
                temperature=session.settings.temperature,
            )
            for i in fitting
        ]
        results = await session.sample(requests) if requests else []
        for i, result in zip(fitting, results, strict=True):
            said = without_end(session, result.samples[0].token_ids)
            critiques[i] = said + engine.encode("\n")
    for chain, critique in zip(chains, critiques, strict=True):
        chain.critiques.append(critique)


def _prefix(
    session: Session, config: RevisionConfig, nodes: Sequence[Node], chain: _Chain
) -> tuple[int, ...]:
    """The prefix of the chain's next attempt. It shows the last `seen_attempts` attempts, or as
    many as leave room for the new attempt in the context. It is the prompt alone for a first
    attempt, and when no earlier attempt fits."""
    for seen in range(min(config.seen_attempts, len(chain.attempts)), 0, -1):
        attempts: tuple[int, ...] = ()
        for id, critique in zip(chain.attempts[-seen:], chain.critiques[-seen:], strict=True):
            attempt = without_end(session, nodes[id].token_ids)
            parts = {"attempt": attempt, "critique": critique}
            attempts += filled_template(session, config.attempt_template, parts)
        prefix = filled_template(session, config.revision_prompt, {"attempts": attempts})
        room = session.engine.context_length - len(prefix)
        if room >= min(session.settings.max_new_tokens, session.engine.context_length // 2):
            return prefix
    return session.prompt_ids


def filled_template(
    session: Session, template: str, parts: Mapping[str, tuple[int, ...]]
) -> tuple[int, ...]:
    """Token ids of a template whose {fields} are replaced by the token ids in `parts`.

    Generated ids go in unchanged and are never re-encoded. {prompt} is the problem's prompt. The
    ids that the tokenizer puts before a text come first, once.
    Raises ValueError for a field that is neither {prompt} nor one of `parts`.
    """
    begin = session.engine.begin_ids
    known = {"prompt": session.prompt_ids[len(begin) :], **parts}
    ids: tuple[int, ...] = begin
    for literal, name, _, _ in Formatter().parse(template):
        ids += session.engine.encode(literal) if literal else ()
        if name is not None:
            if name not in known:
                raise ValueError(
                    f"a template has {{{name}}}; allowed: {', '.join(known)}: {template!r}"
                )
            ids += known[name]
    return ids
