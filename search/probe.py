"""Held-out measurement of a reward model: its score of non-terminal steps beside the share of
rollouts from there that are correct.

The result's nodes are the root and one node a prefix: `score` is the reward model's word,
`visit_count` the number of rollouts and `value_sum` how many of them were correct.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from data.types import Sample, StopReason
from search.base import Node, SampleRequest, ScoreRequest, SearchResult, Session


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """The first `prefixes` distinct non-terminal prefixes of `solutions` free samples, `rollouts`
    completions from each."""

    solutions: int = 4
    prefixes: int = 4
    rollouts: int = 64
    max_new_tokens: int = 64

    def __post_init__(self) -> None:
        for name in ("solutions", "prefixes", "rollouts", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")


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

    [free] = await session.sample([request(0, (), config.solutions)])
    nodes = [Node(id=0, parent=-1, token_ids=(), text="")]
    for prefix in non_terminal_prefixes(session, free.samples)[: config.prefixes]:
        nodes[0].children.append(len(nodes))
        text = session.engine.decode(prefix)
        nodes.append(Node(id=len(nodes), parent=0, token_ids=prefix, text=text))
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
        completed = await session.sample(
            [request(node.id, node.token_ids, config.rollouts) for node in nodes[1:]]
        )
        for node, score, rollouts in zip(nodes[1:], scored, completed, strict=True):
            node.score = score.scores[0]
            node.visit_count = config.rollouts
            node.value_sum = float(
                sum(_correct(session, node.token_ids, sample) for sample in rollouts.samples)
            )
    return SearchResult(
        problem=session.problem,
        strategy="probe",
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
