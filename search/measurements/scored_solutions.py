"""Solutions with a process reward at every step, for the evaluation of a reward model. Two kinds:

- A pool holds free samples of whole solutions, merged into a tree of their steps. A node's
  `proposals` is the number of samples that passed through it. Its `score` is the process reward at
  its last token. The last nodes of finished solutions have the verifier's verdict.
- Given solutions come from elsewhere. Each one is a chain of nodes, with one score per node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from data.types import StopReason
from search.base import Node, ScoreRequest, SearchEnd, SearchResult, Session, finish, solution_text
from search.growth import add_sample, continuation, new_tree
from search.guidance import judge


@dataclass(frozen=True, kw_only=True)
class PoolConfig:
    """A pool: `samples` whole solutions per problem, sampled in one batch. Each distinct solution
    is scored once."""

    samples: int = 256

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples is {self.samples}; it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class GivenConfig:
    """Given solutions. `steps` maps a problem id to the steps of its solution, without delimiters.
    The last step counts as the end of a finished solution."""

    steps: Mapping[str, tuple[str, ...]]
    delimiter: str = "\n"


async def sample_pool(session: Session, config: PoolConfig) -> SearchResult:
    """Sample and score a pool.

    Raises ValueError when the settings do not make a node's score the process reward of its step.
    """
    settings = session.settings
    if settings.guidance != "prm" or settings.aggregate != "last":
        raise ValueError(
            f"guidance is {settings.guidance!r} and aggregate is {settings.aggregate!r}; they must "
            "be 'prm' and 'last', as a pool holds the process reward of every step"
        )
    nodes = new_tree()
    session.share_after_call = 1.0
    [result] = await session.sample([continuation(session, nodes, 0, config.samples, whole=True)])
    # `max_depth` is a limit of searches, so `rollout=True` makes `add_sample` ignore it.
    ends = [add_sample(session, nodes, 0, sample, rollout=True) for sample in result.samples]
    await judge(session, nodes, list(dict.fromkeys(ends)))
    for node in nodes:
        if node.finished:
            node.verdict = session.verify(solution_text(nodes, node.id))
    return finish(session, "pool", nodes, [], SearchEnd.COMPLETE)


async def score_given(session: Session, config: GivenConfig) -> SearchResult:
    """Score a given solution at the end of every step.

    When the solution does not fit into the context, the tree has only the root and its `end` is
    LONG_PROMPT. Raises ValueError for text that the vocabulary lacks.
    """
    nodes, sequence, ends = new_tree(), session.prompt_ids, list[int]()
    steps = config.steps[session.problem.id]
    for index, step in enumerate(steps):
        last = index == len(steps) - 1
        text = step if last else step + config.delimiter
        end_token = (session.engine.end_token_id,) if last else ()
        ids = session.engine.encode(text) + end_token
        node = Node(id=len(nodes), parent=len(nodes) - 1, token_ids=ids, text=text)
        nodes[-1].children.append(node.id)
        nodes.append(node)
        sequence += ids
        ends.append(len(sequence) - 1)
    if len(sequence) > session.engine.context_length:
        return finish(session, "given", nodes[:1], [], SearchEnd.LONG_PROMPT)
    nodes[-1].terminal = StopReason.END_OF_SOLUTION
    request = ScoreRequest(node=len(nodes) - 1, sequence=sequence, step_ends=tuple(ends))
    session.share_after_call = 1.0
    [result] = await session.score([request])
    for node, score in zip(nodes[1:], result.scores, strict=True):
        node.score = score
    return finish(session, "given", nodes, [], SearchEnd.COMPLETE)
