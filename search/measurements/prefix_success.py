"""Success rates of prefixes by many rollouts: beside a reward model's score of them (a held-out
measurement of it), or of prefixes that have labels already (an audit of those).

The result's nodes are the root and one node a prefix: `score` is the reward model's word,
`visit_count` the number of rollouts and `value_sum` how many of them were correct.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from data.types import Sample, StopReason
from search.base import AUDIT_INDEX, Node, SampleRequest, ScoreRequest, SearchResult, Session


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """Which prefixes are measured, and by how many completions."""

    solutions: int = 4
    """Free samples per problem."""
    prefixes: int = 4
    """Distinct unfinished prefixes per problem that are measured."""
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
    """`rollouts` fresh completions from each of the prefixes (token ids after the prompt) that a
    problem's id has, as the session's settings have them; no solution gets longer than
    `max_new_tokens`, as when the prefixes were labelled."""

    prefixes: Mapping[str, Sequence[tuple[int, ...]]]
    rollouts: int = 256

    def __post_init__(self) -> None:
        if self.rollouts < 2:
            raise ValueError(f"rollouts is {self.rollouts}; it must be at least 2")


async def probe_prefixes(session: Session, config: ProbeConfig) -> SearchResult:
    """Problems whose solutions have one step only give no node but the root."""

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
    nodes = _nodes(session, non_terminal_prefixes(session, free.samples)[: config.prefixes])
    if len(nodes) > 1:
        scored = await session.score(
            [
                ScoreRequest(
                    node=node.id,
                    sequence=session.prompt_ids + node.token_ids,
                    step_ends=(len(session.prompt_ids) + len(node.token_ids) - 1,),
                    prompt_length=len(session.prompt_ids),
                )
                for node in nodes[1:]
            ]
        )
        for node, score in zip(nodes[1:], scored, strict=True):
            node.score = score.scores[0]
        session.share_after_call = 1.0
        await _count_correct(
            session, nodes[1:], lambda node: request(node.id, node.token_ids, config.rollouts)
        )
    return _result(session, "probe", nodes)


async def relabel_prefixes(session: Session, config: RelabelConfig) -> SearchResult:
    """The noise is that of indices that no labeller uses: the rollouts are independent of those
    behind the labels, whatever the seed."""
    settings = session.settings
    nodes = _nodes(session, config.prefixes[session.problem.id])

    def request(node: Node) -> SampleRequest:
        return SampleRequest(
            node=node.id,
            prefix=session.prompt_ids + node.token_ids,
            n=config.rollouts,
            first_index=AUDIT_INDEX,
            stop_at_step=False,
            max_new_tokens=settings.max_new_tokens - len(node.token_ids),
            temperature=settings.temperature,
        )

    for node in nodes[1:]:
        session.share_after_call = node.id / (len(nodes) - 1)
        await _count_correct(session, [node], request)
    return _result(session, "relabel", nodes)


def _nodes(session: Session, prefixes: Iterable[tuple[int, ...]]) -> list[Node]:
    nodes = [Node(id=0, parent=-1, token_ids=(), text="")]
    for prefix in prefixes:
        nodes[0].children.append(len(nodes))
        text = session.engine.decode(prefix)
        nodes.append(Node(id=len(nodes), parent=0, token_ids=prefix, text=text))
    return nodes


async def _count_correct(
    session: Session, nodes: Sequence[Node], request: Callable[[Node], SampleRequest]
) -> None:
    """Set the nodes' rollouts and how many of them were correct."""
    completed = await session.sample([request(node) for node in nodes])
    for node, rollouts in zip(nodes, completed, strict=True):
        node.visit_count = len(rollouts.samples)
        node.value_sum = float(
            sum(_correct(session, node.token_ids, sample) for sample in rollouts.samples)
        )


def _result(session: Session, strategy: str, nodes: Sequence[Node]) -> SearchResult:
    return SearchResult(
        problem=session.problem,
        strategy=strategy,
        nodes=tuple(nodes),
        snapshots=(),
        usage=session.usage,
    )


def non_terminal_prefixes(session: Session, samples: Sequence[Sample]) -> list[tuple[int, ...]]:
    """Distinct prefixes that end with a step but not with the solution, in order of appearance."""
    found: dict[tuple[int, ...], None] = {}
    for sample in samples:
        for end in session.engine.step_ends(sample.token_ids)[:-1]:
            found[sample.token_ids[: end + 1]] = None
    return list(found)


def _correct(session: Session, prefix: tuple[int, ...], sample: Sample) -> bool:
    """A truncated solution is not correct, whatever its text says so far."""
    finished = sample.stop_reason is StopReason.END_OF_SOLUTION
    return finished and session.verify(session.engine.decode(prefix + sample.token_ids)).correct
