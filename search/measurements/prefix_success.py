"""The success rates of prefixes, measured with many rollouts. There are two uses:

- to compare them with a reward model's scores of the prefixes (a held-out measurement of the
  reward model);
- to compare them with labels that the prefixes have already (an audit of the labels).

A measurement gives one `PrefixSuccess` per prefix. Its file has the form of search trees, so the
same code as for searches writes, merges and resumes it. `successes_of` reads it back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data.types import Sample
from rewards.base import verdict_of
from search.base import AUDIT_INDEX, Node, SampleRequest, ScoreRequest, SearchResult, Session


@dataclass(frozen=True, kw_only=True)
class PrefixSuccess:
    """`correct` of `rollouts` completions of a prefix were correct. `token_ids` are the ids of the
    prefix after the prompt. `score` is the reward model's score of the prefix, or None in an
    audit."""

    token_ids: tuple[int, ...]
    text: str
    score: float | None
    correct: int
    rollouts: int


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """Which prefixes are measured, and with how many completions."""

    solutions: int = 4
    """Free samples per problem."""
    prefixes: int = 4
    """Distinct unfinished prefixes that are measured per problem."""
    rollouts: int = 64
    """Completions per prefix."""
    max_new_tokens: int = 64
    """Limit of one solution, in tokens after the prompt."""

    def __post_init__(self) -> None:
        for name in ("solutions", "prefixes", "rollouts", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class RelabelConfig:
    """Fresh completions of prefixes that have labels: `rollouts` per prefix.

    `prefixes` maps a problem id to prefixes, as token ids after the prompt. The temperature and
    `max_new_tokens` come from the session's settings. `max_new_tokens` limits the whole solution,
    as it did when the prefixes were labelled.
    """

    prefixes: Mapping[str, Sequence[tuple[int, ...]]]
    rollouts: int = 256

    def __post_init__(self) -> None:
        if self.rollouts < 2:
            raise ValueError(f"rollouts is {self.rollouts}; it must be at least 2")


async def probe_prefixes(session: Session, config: ProbeConfig) -> SearchResult:
    """Sample free solutions of the problem, and measure and score their unfinished prefixes.

    When all solutions have one step only, there is no such prefix, and the tree has only the root.
    """

    def request(node: int, prefix: tuple[int, ...], n: int) -> SampleRequest:
        return SampleRequest(
            node=node,
            prefix=session.prompt_ids + prefix,
            n=n,
            stop_at_step=False,
            max_new_tokens=config.max_new_tokens,
        )

    rollouts = config.prefixes * config.rollouts
    session.share_after_call = config.solutions / (config.solutions + rollouts)
    [free] = await session.sample([request(0, (), config.solutions)])
    prefixes = non_terminal_prefixes(session, free.samples)[: config.prefixes]
    if not prefixes:
        return _result(session, "probe", [])
    scored = await session.score(
        [
            ScoreRequest(
                node=node,
                sequence=session.prompt_ids + prefix,
                step_ends=(len(session.prompt_ids) + len(prefix) - 1,),
                prompt_length=len(session.prompt_ids),
            )
            for node, prefix in enumerate(prefixes, start=1)
        ]
    )
    session.share_after_call = 1.0
    completed = await session.sample(
        [request(node, prefix, config.rollouts) for node, prefix in enumerate(prefixes, start=1)]
    )
    found = [
        _success(session, prefix, rollouts.samples, score.scores[0])
        for prefix, score, rollouts in zip(prefixes, scored, completed, strict=True)
    ]
    return _result(session, "probe", found)


async def relabel_prefixes(session: Session, config: RelabelConfig) -> SearchResult:
    """Measure the success rates of prefixes that have labels.

    The sample indices are indices that no labeller uses. So these rollouts are independent of the
    rollouts behind the labels, even with the same seed.
    """
    settings = session.settings
    prefixes = config.prefixes[session.problem.id]
    found: list[PrefixSuccess] = []
    for node, prefix in enumerate(prefixes, start=1):
        session.share_after_call = node / len(prefixes)
        request = SampleRequest(
            node=node,
            prefix=session.prompt_ids + prefix,
            n=config.rollouts,
            first_index=AUDIT_INDEX,
            stop_at_step=False,
            max_new_tokens=settings.max_new_tokens - len(prefix),
            temperature=settings.temperature,
        )
        [rollouts] = await session.sample([request])
        found.append(_success(session, prefix, rollouts.samples, None))
    return _result(session, "relabel", found)


def _success(
    session: Session, prefix: tuple[int, ...], rollouts: Sequence[Sample], score: float | None
) -> PrefixSuccess:
    return PrefixSuccess(
        token_ids=prefix,
        text=session.engine.decode(prefix),
        score=score,
        correct=sum(_correct(session, prefix, sample) for sample in rollouts),
        rollouts=len(rollouts),
    )


def _result(session: Session, strategy: str, found: Sequence[PrefixSuccess]) -> SearchResult:
    """The measurement as a tree for the file of trees: the root and one node per prefix."""
    root = Node(id=0, parent=-1, token_ids=(), text="")
    nodes = [root]
    for prefix in found:
        root.children.append(len(nodes))
        nodes.append(
            Node(
                id=len(nodes),
                parent=0,
                token_ids=prefix.token_ids,
                text=prefix.text,
                score=prefix.score,
                visit_count=prefix.rollouts,
                value_sum=float(prefix.correct),
            )
        )
    return SearchResult(
        problem=session.problem,
        strategy=strategy,
        nodes=tuple(nodes),
        snapshots=(),
        usage=session.usage,
    )


def successes_of(result: SearchResult) -> list[PrefixSuccess]:
    """The measurements of `probe_prefixes` or `relabel_prefixes`, read from their tree."""
    return [
        PrefixSuccess(
            token_ids=node.token_ids,
            text=node.text,
            score=node.score,
            correct=round(node.value_sum),
            rollouts=node.visit_count,
        )
        for node in result.nodes[1:]
    ]


def non_terminal_prefixes(session: Session, samples: Sequence[Sample]) -> list[tuple[int, ...]]:
    """The distinct prefixes that end at the end of a step but before the end of the solution, in
    order of appearance."""
    found: dict[tuple[int, ...], None] = {}
    for sample in samples:
        for end in session.engine.step_ends(sample.token_ids)[:-1]:
            found[sample.token_ids[: end + 1]] = None
    return list(found)


def _correct(session: Session, prefix: tuple[int, ...], sample: Sample) -> bool:
    """A truncated solution counts as not correct, even if the verifier would accept its text."""
    text = session.engine.decode(prefix + sample.token_ids)
    return verdict_of(session.verify, text, finished=sample.stop_reason.finished).correct
