"""Chains that think within a budget of tokens and then answer (budget forcing, s1, 2501.19393).

The granularity is the solution. A thought that is longer than its budget is cut after its last
whole line, its closing words are appended, and the policy writes the answer. A thought that ends
too early loses its closing words: a cue such as "Wait" takes their place, and the policy thinks on.
The budgets are tokens of thought. One run serves all of them, because a smaller budget cuts the
same thoughts earlier.

A path of the tree is: parts of the thought, each followed by its cue; then the closing words, if
they were forced; then the answer. The policy did not propose what was forced, so the `proposals` of
those nodes are 0.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from data.thoughts import THOUGHT_END, THOUGHT_START
from data.types import Sample, StopReason, Usage
from search.answers import choose_for
from search.base import (
    Node,
    SampleRequest,
    SearchEnd,
    SearchResult,
    Session,
    Snapshot,
    finish,
    path_to,
    solution_text,
    without_end,
)
from search.growth import new_tree
from search.guidance import judge_solutions
from search.settings import check_budgets


@dataclass(frozen=True, kw_only=True)
class ThinkingConfig:
    """Chains of thought within a budget. `SearchSettings.answer` chooses among the chains, and
    `max_new_tokens` is not used.

    A solution that neither begins with `<think>` nor follows a prompt that ends with it has no
    thought, unless it closes one. It is an answer, and is not cut.
    """

    budgets: tuple[int, ...] = (256,)
    """Most tokens of thought, ascending; the largest is sampled, smaller ones cut it earlier."""
    least_thinking_tokens: int = 0
    """Least tokens of thought; a thought that ends earlier goes on after the cue."""
    extensions: int = 4
    """How often one thought is extended at most."""
    cue: str = "Wait\n"
    """Text that replaces the closing words of a thought that is too short."""
    closing: str = "</think>\n"
    """Text that ends a thought; it holds </think>."""
    chains: int = 1
    """Chains per problem."""
    answer_tokens: int = 64
    """Limit of an answer after a thought that was cut, in tokens."""

    def __post_init__(self) -> None:
        check_budgets(self.budgets, nested=True)
        if THOUGHT_END not in self.closing:
            raise ValueError(f"closing is {self.closing!r}; it must hold {THOUGHT_END}")
        if THOUGHT_END in self.cue or not self.cue:
            raise ValueError(f"cue is {self.cue!r}; it must be a text without {THOUGHT_END}")
        for name in ("chains", "answer_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.extensions < 0:
            raise ValueError(f"extensions is {self.extensions}; it must not be negative")
        if not 0 <= self.least_thinking_tokens <= self.budgets[0]:
            raise ValueError(
                f"least_thinking_tokens is {self.least_thinking_tokens}; allowed: 0 to the "
                f"smallest of budgets, {self.budgets[0]}"
            )


@dataclass(frozen=True, kw_only=True)
class ThoughtCounts:
    """The thought of one solution: its tokens without the closing words, whether it was cut, and
    how often it was extended."""

    tokens: int
    cut: bool
    extensions: int


def thought_counts(nodes: Sequence[Node], leaf: int) -> ThoughtCounts:
    """Counts of the path to `leaf` in a tree of this strategy. A solution without a thought has 0
    tokens."""
    tokens = extensions = 0
    for id in path_to(nodes, leaf):
        forced = nodes[id].proposals == 0
        if THOUGHT_END in nodes[id].text:
            return ThoughtCounts(tokens=tokens, cut=forced, extensions=extensions)
        tokens += len(nodes[id].token_ids)
        extensions += forced
    return ThoughtCounts(tokens=0, cut=False, extensions=0)


@dataclass(slots=True, kw_only=True)
class _Part:
    """Tokens that were sampled at once or forced. `step_logprobs` and `step_entropies` belong to
    the steps that end before the positions `step_ends` of the part. `line_ends` are those of whole
    steps, so without that of a step which the limit cut off. `sampled` is the length of the whole
    sample, of which `ids` may be the beginning; 0 for a forced part. `tag_end` is the position
    after the `</think>` in the sample, or None."""

    ids: tuple[int, ...]
    sampled: int = 0
    step_ends: tuple[int, ...] = ()
    line_ends: tuple[int, ...] = ()
    step_logprobs: tuple[float, ...] = ()
    step_entropies: tuple[float, ...] = ()
    tag_end: int | None = None

    def node(self, session: Session, nodes: list[Node], parent: int, start: int, end: int) -> int:
        """Add the tokens from `start` to `end` as a node below `parent`."""
        inside = [i for i, e in enumerate(self.step_ends) if start < e <= end]
        ids = self.ids[start:end]
        nodes.append(
            Node(
                id=len(nodes),
                parent=parent,
                token_ids=ids,
                text=session.engine.decode(ids),
                proposals=1 if self.sampled else 0,
                logprob=math.fsum(self.step_logprobs[i] for i in inside),
                entropy=math.fsum(self.step_entropies[i] for i in inside),
            )
        )
        nodes[parent].children.append(nodes[-1].id)
        return nodes[-1].id


@dataclass(slots=True, kw_only=True)
class _Chain:
    """One chain. `closing` is the position of its closing words in the last part, or None. `direct`
    marks a solution without a thought."""

    number: int
    parts: list[_Part] = field(default_factory=list[_Part])
    stop: StopReason = StopReason.LENGTH
    closing: int | None = None
    direct: bool = False

    @property
    def length(self) -> int:
        return sum(len(part.ids) for part in self.parts)

    @property
    def thinking_tokens(self) -> int:
        """The tokens before the closing words, or all tokens of an open thought."""
        return self.length - (0 if self.closing is None else self._last - self.closing)

    @property
    def _last(self) -> int:
        return len(self.parts[-1].ids)

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(token for part in self.parts for token in part.ids)

    def natural(self, budget: int) -> bool:
        """Whether the chain needs no cut: its closing tag is within the budget."""
        if self.closing is None:
            return self.direct
        assert self.parts[-1].tag_end is not None
        return self.length - self._last + self.parts[-1].tag_end <= budget


async def search_thinking(session: Session, config: ThinkingConfig) -> SearchResult:
    """Sample the chains, and take the answer at every budget."""
    nodes = new_tree()
    chains = [_Chain(number=number) for number in range(config.chains)]
    opened = session.problem.prompt.rstrip().endswith(THOUGHT_START)
    [first] = await session.sample(
        [_request(session, session.prompt_ids, 0, config.budgets[-1], n=config.chains)]
    )
    for chain, sample in zip(chains, first.samples, strict=True):
        _add(session, chain, sample, opened)
    for round in range(1, config.extensions + 1):
        await _extend(session, config, chains, opened, round)
    await _finish_answers(session, config, chains)
    leaves = {
        c.number: _natural_leaf(session, nodes, c) for c in chains if c.natural(config.budgets[-1])
    }
    at: dict[int, list[int]] = {}
    costs: dict[int, Usage] = {}
    for budget in config.budgets:
        long = [chain for chain in chains if not chain.natural(budget)]
        cut, usage = await _cut(session, config, nodes, long, budget, opened)
        at[budget] = [leaves[c.number] if c.natural(budget) else cut[c.number] for c in chains]
        costs[budget] = _cost(session, chains, budget) + usage
    if session.settings.needs_scores:
        await judge_solutions(
            session, nodes, list(dict.fromkeys(id for ids in at.values() for id in ids))
        )
    snapshots = [_snapshot(session, nodes, at[b], b, costs[b]) for b in config.budgets]
    return finish(session, "thinking", nodes, snapshots, session.exhausted() or SearchEnd.COMPLETE)


def _snapshot(
    session: Session, nodes: Sequence[Node], leaves: list[int], budget: int, cost: Usage
) -> Snapshot:
    leaf = choose_for(session, nodes, leaves)
    judged = (session.node_usage.get(id, Usage()) for id in dict.fromkeys(leaves))
    return Snapshot(
        budget=budget,
        answer=solution_text(nodes, leaf),
        answer_node=leaf,
        truncated=not nodes[leaf].finished,
        usage=sum(judged, cost),
    )


def _request(
    session: Session, prefix: tuple[int, ...], index: int, limit: int, n: int = 1
) -> SampleRequest:
    return SampleRequest(
        node=0,
        prefix=prefix,
        n=n,
        first_index=index,
        stop_at_step=False,
        max_new_tokens=limit,
        temperature=session.settings.temperature,
    )


def _part(session: Session, sample: Sample) -> _Part:
    ends = tuple(end + 1 for end in session.engine.step_ends(sample.token_ids))
    # The last token always ends a step, so one more token shows which steps are whole.
    followed = (*sample.token_ids, session.engine.end_token_id)
    lines = tuple(end + 1 for end in session.engine.step_ends(followed))[:-1]
    return _Part(
        ids=sample.token_ids,
        sampled=len(sample.token_ids),
        step_ends=ends,
        line_ends=lines,
        step_logprobs=sample.step_logprobs,
        step_entropies=sample.step_entropies,
    )


def _add(session: Session, chain: _Chain, sample: Sample, opened: bool) -> None:
    """Add a sample to a chain whose thought is open, and look for the thought's end in it."""
    part = _part(session, sample)
    chain.parts.append(part)
    chain.stop = sample.stop_reason
    chain.closing, part.tag_end = _closing_tag(session, part.ids)
    if chain.closing is not None:
        return
    text = session.engine.decode(chain.ids).lstrip()
    begun = text.startswith(THOUGHT_START) or THOUGHT_START.startswith(text)
    chain.direct = not opened and not begun and len(chain.parts) == 1
    if sample.stop_reason.finished and not chain.direct:  # the policy ended inside its thought
        part.ids = without_end(session, part.ids)


def _closing_tag(session: Session, ids: tuple[int, ...]) -> tuple[int | None, int | None]:
    """The position of the token with which `</think>` begins, and the position after the token with
    which it ends; None where there is no such tag."""
    decode = session.engine.decode
    at = decode(ids).find(THOUGHT_END)
    if at < 0:
        return None, None
    first, last = (
        bisect_left(range(len(ids)), length, key=lambda i: len(decode(ids[: i + 1])))
        for length in (at + 1, at + len(THOUGHT_END))
    )
    return first, last + 1


async def _extend(
    session: Session, config: ThinkingConfig, chains: Sequence[_Chain], opened: bool, round: int
) -> None:
    """Let the thoughts that ended too early go on after the cue."""
    least, most = config.least_thinking_tokens, config.budgets[-1]
    if not least:
        return  # a tokenizer that does not know the cue's characters is no fault here
    cue = session.engine.encode(config.cue)
    short = [
        chain
        for chain in chains
        if chain.closing is not None
        and chain.thinking_tokens < least
        and chain.thinking_tokens + len(cue) < most
        and _fits(session, chain.thinking_tokens + len(cue))
    ]
    requests: list[SampleRequest] = []
    for chain in short:
        part = chain.parts[-1]
        part.ids = part.ids[: chain.closing]
        chain.parts.append(_Part(ids=cue))
        prefix = session.prompt_ids + chain.ids
        index = config.chains * round + chain.number
        requests.append(_request(session, prefix, index, most - chain.length))
    results = await session.sample(requests) if requests else []
    for chain, result in zip(short, results, strict=True):
        _add(session, chain, result.samples[0], opened)


async def _finish_answers(
    session: Session, config: ThinkingConfig, chains: Sequence[_Chain]
) -> None:
    """Go on with the answers that the largest budget of thought cut off."""
    open_ = [
        chain
        for chain in chains
        if (chain.closing is not None or chain.direct)
        and chain.stop is StopReason.LENGTH
        and _fits(session, chain.length)
    ]
    offset = config.chains * (config.extensions + 1)
    requests = [
        _request(session, session.prompt_ids + c.ids, offset + c.number, config.answer_tokens)
        for c in open_
    ]
    results = await session.sample(requests) if requests else []
    for chain, result in zip(open_, results, strict=True):
        [sample] = result.samples
        last, more = chain.parts[-1], _part(session, sample)
        size = len(last.ids)
        last.ids += more.ids
        last.step_ends += tuple(end + size for end in more.step_ends)
        last.step_logprobs += more.step_logprobs
        last.step_entropies += more.step_entropies
        chain.stop = sample.stop_reason


def _natural_leaf(session: Session, nodes: list[Node], chain: _Chain) -> int:
    """Add the chain as it is to the tree. Returns the node at its end."""
    at = 0
    for part in chain.parts[:-1]:
        at = part.node(session, nodes, at, 0, len(part.ids))
    last = chain.parts[-1]
    if chain.closing:
        at = last.node(session, nodes, at, 0, chain.closing)
    at = last.node(session, nodes, at, chain.closing or 0, len(last.ids))
    nodes[at].terminal = chain.stop
    return at


async def _cut(
    session: Session,
    config: ThinkingConfig,
    nodes: list[Node],
    chains: Sequence[_Chain],
    budget: int,
    opened: bool,
) -> tuple[dict[int, int], Usage]:
    """Cut the thoughts at the budget, and ask for the answers. Returns the nodes at the ends of the
    solutions, by the chain's number, and the cost of the answers."""
    ends = {
        chain.number: _cut_thought(session, config, nodes, chain, budget, opened)
        for chain in chains
    }
    prefixes = {
        number: session.prompt_ids
        + tuple(token for id in path_to(nodes, end) for token in nodes[id].token_ids)
        for number, end in ends.items()
    }
    fitting = [number for number in ends if len(prefixes[number]) < session.engine.context_length]
    offset = config.chains * (config.extensions + 2 + budget)
    requests = [
        _request(session, prefixes[number], offset + number, config.answer_tokens)
        for number in fitting
    ]
    results = await session.sample(requests) if requests else []
    usage = sum((Usage(policy=result.usage) for result in results), Usage())
    for number in set(ends) - set(fitting):
        nodes[ends[number]].terminal = StopReason.CONTEXT
    for number, result in zip(fitting, results, strict=True):
        part = _part(session, result.samples[0])
        end = part.node(session, nodes, ends[number], 0, len(part.ids))
        nodes[end].terminal = result.samples[0].stop_reason
        ends[number] = end
    return ends, usage


def _cut_thought(
    session: Session,
    config: ThinkingConfig,
    nodes: list[Node],
    chain: _Chain,
    budget: int,
    opened: bool,
) -> int:
    """Add the thought up to its last whole line within the budget, and the closing words. Returns
    the node of the closing words. An open thought that the policy ended itself is kept whole."""
    at, start, text = 0, 0, ""
    for part in chain.parts:
        ended = part is chain.parts[-1] and chain.closing is None and chain.stop.finished
        whole = [end for end in part.line_ends if start + end <= budget and end <= len(part.ids)]
        end = whole[-1] if whole else 0
        extended = part.tag_end is not None and start + part.tag_end <= budget
        if start + len(part.ids) <= budget and (ended or extended or not part.sampled):
            end = len(part.ids)
        if end:
            at = part.node(session, nodes, at, 0, end)
            text = nodes[at].text
        late = part.tag_end is not None and start + part.tag_end > budget
        if end < len(part.ids) or late:  # with this budget the thought was not extended
            break
        start += end
    words = config.closing if text.endswith("\n") or not text else "\n" + config.closing
    if not at and not opened:
        words = f"{THOUGHT_START}\n{words}"
    forced = _Part(ids=session.engine.encode(words))
    return forced.node(session, nodes, at, 0, len(forced.ids))


def _cost(session: Session, chains: Sequence[_Chain], budget: int) -> Usage:
    """The cost of sampling these thoughts, and the answers of those that need no cut, with this
    budget alone: no thought goes on beyond it."""
    usage, prompt = session.engine.sample_usage, len(session.prompt_ids)
    first = [min(chain.parts[0].sampled, budget) for chain in chains]
    total = Usage(policy=usage(prompt, first))
    for chain in chains:
        start = 0
        for number, part in enumerate(chain.parts):
            if number and part.sampled and start < budget:
                length = min(part.sampled, budget - start)
                total += Usage(policy=usage(prompt + start, [length]))
            if part.tag_end is not None and start + part.tag_end > budget:
                break
            start += len(part.ids)
        if chain.natural(budget) and chain.length > budget:
            total += Usage(policy=usage(prompt + budget, [chain.length - budget]))
    return total


def _fits(session: Session, length: int) -> bool:
    """Whether the context has room for a token after the prompt and `length` tokens."""
    return len(session.prompt_ids) + length < session.engine.context_length
