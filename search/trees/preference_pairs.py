"""Preference pairs for a process preference model, from search trees and from step labels
(rStar-Math, 2501.04519, section 3.3).

Pairs of steps are made per prefix. Among the steps after one prefix, take the `per_side` steps of
highest value that lead to a correct answer, and the `per_side` steps of lowest value that lead to a
wrong answer. Each of the first is preferred to each of the second.

Identical paths rarely end in different answers. So for the last step, the pairs are whole solutions
of one problem: the correct solutions of highest mean value against the wrong solutions of lowest
mean value. The weights of all pairs of one prefix, or of one problem's solutions, sum to 1 in the
loss, as in the paper.

Departures from the paper:
- The values of two steps must differ by at least `min_gap` and come from at least `min_visits`
  visits (or rollouts), because the values in a small tree are noisy.
- A step that was cut off or has no score is in no pair.
- There may be fewer than `per_side` steps or solutions on a side.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from data.types import StepLabels, StepPair
from rewards.base import Verify
from search.base import SearchResult, path_to, solution_ids, solution_text
from search.trees.training_rows import finished_solutions, value_of, visits_of

PAIRS_WITHIN = ("prefix", "problem")
Ids = tuple[int, ...]
Encode = Callable[[str], Ids]


@dataclass(frozen=True, kw_only=True)
class PairRules:
    """Which steps make a pair (see the docstring of this module). A label that does not come from
    rollouts, such as a person's label, needs no visits. `within` is "prefix" or, for pairs made
    from labels, "problem": then a pair is two beginnings of solutions to one problem, of equally
    many steps."""

    per_side: int = 2
    min_gap: float = 0.3
    min_visits: int = 4
    within: str = "prefix"

    def __post_init__(self) -> None:
        for name in ("per_side", "min_visits"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.min_gap <= 1:
            raise ValueError(f"min_gap is {self.min_gap}; it must be in [0, 1]")
        if self.within not in PAIRS_WITHIN:
            raise ValueError(f"pairs_within is {self.within!r}; allowed: {', '.join(PAIRS_WITHIN)}")


@dataclass(frozen=True, kw_only=True)
class _Place:
    """A prefix as text and as token ids. The prefix begins with the prompt."""

    problem_id: str
    prompt: str
    prompt_ids: Ids


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    text: str
    ids: Ids
    value: float


def pairs_of_steps(
    results: Iterable[SearchResult], prompt_ids: Encode, verify: Verify, rules: PairRules
) -> Iterator[StepPair]:
    """Yield pairs of open steps below the same node of a tree.

    A step leads to a correct answer if a finished solution through it is correct, and to a wrong
    answer if one is wrong. The finished solutions include those of rollouts.
    """
    for result in results:
        nodes = result.nodes
        leads: dict[bool, set[int]] = {True: set(), False: set()}
        for node in finished_solutions(result):
            correct = verify(result.problem, solution_text(nodes, node.id)).correct
            leads[correct].update(path_to(nodes, node.id))
        start = prompt_ids(result.problem.prompt)
        for parent in nodes:
            known = [
                child
                for child in parent.children
                if nodes[child].terminal is None and visits_of(nodes[child]) >= rules.min_visits
            ]
            better, worse = (
                [
                    _Candidate(
                        text=nodes[child].text,
                        ids=nodes[child].token_ids,
                        value=value_of(nodes[child]),
                    )
                    for child in known
                    if child in leads[correct]
                ]
                for correct in (True, False)
            )
            place = _Place(
                problem_id=result.problem.id,
                prompt=result.problem.prompt + solution_text(nodes, parent.id),
                prompt_ids=start + solution_ids(nodes, parent.id),
            )
            yield from _pairs(place, better, worse, rules, min_gap=rules.min_gap)


def pairs_of_solutions(
    results: Iterable[SearchResult], prompt_ids: Encode, verify: Verify, rules: PairRules
) -> Iterator[StepPair]:
    """Yield pairs of a correct and a wrong solution from the distinct finished solutions of a tree,
    including those of rollouts. The value of a solution is the mean value of its steps."""
    for result in results:
        nodes = result.nodes
        found: dict[bool, dict[str, _Candidate]] = {True: {}, False: {}}
        for node in finished_solutions(result):
            text = solution_text(nodes, node.id)
            values = [value_of(nodes[step]) for step in path_to(nodes, node.id)]
            candidate = _Candidate(
                text=text, ids=solution_ids(nodes, node.id), value=sum(values) / len(values)
            )
            found[verify(result.problem, text).correct].setdefault(text, candidate)
        place = _Place(
            problem_id=result.problem.id,
            prompt=result.problem.prompt,
            prompt_ids=prompt_ids(result.problem.prompt),
        )
        yield from _pairs(place, [*found[True].values()], [*found[False].values()], rules)


@dataclass(slots=True)
class _Labelled:
    """The labels that all rows together give one step.

    Several rows may count the same rollouts. So `count` is the largest count of one row, which is a
    lower bound of the step's rollouts.
    """

    text: str
    count: int = 0
    weighted: float = 0.0
    weight: int = 0

    @property
    def value(self) -> float:
        return self.weighted / self.weight


@dataclass(slots=True)
class _Rows:
    """The rows of one problem as a trie of steps, and the finished solutions of the problem."""

    prompt: str
    children: dict[Ids, dict[Ids, _Labelled]] = field(
        default_factory=lambda: defaultdict[Ids, dict[Ids, _Labelled]](dict)
    )
    texts: dict[Ids, str] = field(default_factory=dict[Ids, str])
    depths: dict[Ids, int] = field(default_factory=dict[Ids, int])
    solutions: dict[bool, dict[Ids, _Candidate]] = field(
        default_factory=lambda: {True: {}, False: {}}
    )


def pairs_of_labels(
    rows: Iterable[StepLabels], end_token_ids: frozenset[int], rules: PairRules
) -> Iterator[StepPair]:
    """Yield pairs of steps and pairs of solutions from label rows.

    Rows with the same problem and prompt share the steps of their common prefixes. The value of a
    step is the mean of its labels over the rows, weighted by their counts. A step with a value
    above 0 leads to a correct answer, and a step with a value below 1 leads to a wrong answer. A
    finished solution ends with an end token, and its last label is the verifier's verdict.
    """
    problems: dict[tuple[str, Ids], _Rows] = {}
    for row in rows:
        key = (row.problem_id, row.prompt_ids)
        _take_in(problems.setdefault(key, _Rows(prompt=row.prompt)), row, end_token_ids)
    for (problem_id, prompt_ids), known in problems.items():
        for start, candidates in _candidates(known, rules):
            place = _Place(
                problem_id=problem_id,
                prompt=known.prompt + known.texts[start],
                prompt_ids=prompt_ids + start,
            )
            better = [c for c in candidates if c.value > 0]
            worse = [c for c in candidates if c.value < 1]
            yield from _pairs(place, better, worse, rules, min_gap=rules.min_gap)
        place = _Place(problem_id=problem_id, prompt=known.prompt, prompt_ids=prompt_ids)
        correct, wrong = ([*known.solutions[word].values()] for word in (True, False))
        yield from _pairs(place, correct, wrong, rules)


def _candidates(known: _Rows, rules: PairRules) -> Iterator[tuple[Ids, list[_Candidate]]]:
    """Yield the steps that may make pairs, with the prefix that they all follow: the steps after
    each prefix, or, within a problem, the beginnings of solutions of each number of steps."""
    by_depth: dict[int, list[_Candidate]] = defaultdict(list)
    for prefix, children in known.children.items():
        steps = {
            ids: step
            for ids, step in children.items()
            if not step.count or step.count >= rules.min_visits
        }
        if rules.within == "prefix":
            found = [_Candidate(text=s.text, ids=ids, value=s.value) for ids, s in steps.items()]
            yield prefix, found
        by_depth[known.depths[prefix]] += [
            _Candidate(text=known.texts[prefix] + s.text, ids=prefix + ids, value=s.value)
            for ids, s in steps.items()
        ]
    if rules.within == "problem":
        for depth in sorted(by_depth):
            yield (), by_depth[depth]


def _take_in(known: _Rows, row: StepLabels, end_token_ids: frozenset[int]) -> None:
    prefix: Ids = ()
    text = ""
    for i, ids in enumerate(row.completion_ids):
        known.texts.setdefault(prefix, text)
        known.depths.setdefault(prefix, i)
        if ids[-1] in end_token_ids:
            whole = _Candidate(
                text=text + row.completions[i],
                ids=prefix + ids,
                value=sum(row.labels) / len(row.labels),
            )
            known.solutions[row.labels[i] >= 0.5].setdefault(whole.ids, whole)
            return
        step = known.children[prefix].setdefault(ids, _Labelled(text=row.completions[i]))
        step.count = max(step.count, row.counts[i])
        step.weighted += row.labels[i] * max(1, row.counts[i])
        step.weight += max(1, row.counts[i])
        prefix, text = prefix + ids, text + row.completions[i]


def _pairs(
    place: _Place,
    better: Sequence[_Candidate],
    worse: Sequence[_Candidate],
    rules: PairRules,
    *,
    min_gap: float | None = None,
) -> Iterator[StepPair]:
    """Yield pairs of the `per_side` highest of `better` and the `per_side` lowest of `worse`.

    With `min_gap`, the value of the better one must be larger by at least that much. Also, neither
    token sequence may be a prefix of the other, which happens when several steps share a label.
    """
    best = sorted(better, key=lambda c: -c.value)[: rules.per_side]
    worst = sorted(worse, key=lambda c: c.value)[: rules.per_side]
    pairs = [
        (chosen, rejected)
        for chosen in best
        for rejected in worst
        if min_gap is None or _apart(chosen, rejected, min_gap)
    ]
    for chosen, rejected in pairs:
        yield StepPair(
            problem_id=place.problem_id,
            prompt=place.prompt,
            chosen=chosen.text,
            rejected=rejected.text,
            prompt_token_ids=place.prompt_ids,
            chosen_token_ids=chosen.ids,
            rejected_token_ids=rejected.ids,
            chosen_value=chosen.value,
            rejected_value=rejected.value,
            weight=1 / len(pairs),
        )


def _apart(chosen: _Candidate, rejected: _Candidate, min_gap: float) -> bool:
    shared = min(len(chosen.ids), len(rejected.ids))
    return (
        chosen.value > rejected.value
        and chosen.value - rejected.value >= min_gap
        and chosen.ids[:shared] != rejected.ids[:shared]
    )
