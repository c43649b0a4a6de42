"""A Countdown search tree written down as one thought that ends at a correct solution.

The policy that made the tree answers at once. A policy that learns from such thoughts searches by
itself (Stream of Search, 2404.03683; journey learning, 2410.18982). The lines are those of
data/tasks/countdown_lines.py, and every line replays as true.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from data.settings import did_you_mean
from data.tasks.countdown_lines import check_line, joined_numbers
from data.thoughts import with_thought
from search.trees.operations import OperationTree

ORDERS = ("depth_first", "as_searched")


@dataclass(frozen=True, kw_only=True)
class LinearisationConfig:
    """How a search tree becomes a thought.

    `depth_first` follows a branch to its end before the next one, with the operations on the same
    numbers in the order in which the search created them. It is the default because a thought then
    goes back by one operation at a time, to numbers that it has just left. A tree search changes
    the branch at almost every simulation. `as_searched` follows it: the thought goes on from where
    the search created the next operation, so it jumps far and often.

    A tree with more operations than `most_tries` is pruned. The thought keeps the operations of the
    solution and a random part of the dead ends. The number that it keeps in all is drawn with equal
    chance between the length of the solution and `most_tries`. Otherwise the length of a thought
    would tell where its solution comes.
    """

    order: str = "depth_first"
    """Order of the operations: depth_first, or as_searched (as the search created them)."""
    most_tries: int = 12
    """Operations that a thought carries out at most."""
    evaluation: float = 0.25
    """Chance that an operation is followed by a check of its result, in [0, 1]."""

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise ValueError(
                f"order is {self.order!r}; {did_you_mean(self.order, ORDERS)}allowed: "
                f"{', '.join(ORDERS)}"
            )
        if self.most_tries < 1:
            raise ValueError(f"most_tries is {self.most_tries}; it must be at least 1")
        if not 0 <= self.evaluation <= 1:
            raise ValueError(f"evaluation is {self.evaluation}; it must be in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class TreeThought:
    """A thought with its answer. `operations` counts those of the thought, `dead_ends` those from
    which it does not go on, without the last one, and `pruned` those that did not fit."""

    solution: str
    operations: int
    dead_ends: int
    pruned: int


def thought_of_tree(
    tree: OperationTree, config: LinearisationConfig, rng: random.Random
) -> TreeThought | None:
    """Write the search down up to one of its correct solutions, drawn with equal chance from those
    of at most `most_tries` operations. None if there is none.

    A branch that leads to another correct solution is no dead end, so it is left out as a whole.
    """
    fitting = [id for id in tree.solutions if len(tree.path_to(id)) <= config.most_tries]
    if not fitting:
        return None
    leaf = rng.choice(fitting)
    path = tree.path_to(leaf)
    before = _dead_ends_before(tree, path, as_searched=config.order == "as_searched")
    if len(path) + len(before) > config.most_tries:
        limit = rng.randint(len(path), config.most_tries)
        kept = _random_part(tree, path, before, limit - len(path), rng)
    else:
        kept = before
    if config.order == "as_searched":
        visits = sorted({*path, *kept})
    else:
        visits = _depth_first(tree, {*path, *kept})
    lines = _lines(tree, visits, config, rng)
    gone_on = {tree.places[id].parent for id in visits}
    return TreeThought(
        solution=with_thought("\n".join(lines), "\n".join(tree.places[id].step for id in path)),
        operations=len(visits),
        dead_ends=sum(id not in gone_on for id in visits) - 1,
        pruned=len(before) - len(kept),
    )


def _dead_ends_before(tree: OperationTree, path: Sequence[int], *, as_searched: bool) -> set[int]:
    """The places beside `path` that come before its end and from which no solution was found. A
    place between one of them and the path is one of them too."""
    leaf, following = path[-1], dict(pairwise((0, *path)))
    solved = {above for id in tree.solutions for above in tree.path_to(id)}
    found: set[int] = set()
    for id, place in enumerate(tree.places):  # a place comes before those below it
        below = place.parent in found
        if as_searched:
            before = id < leaf and (below or place.parent in following)
        else:
            before = below or id < following.get(place.parent, 0)
        if before and id not in solved:
            found.add(id)
    return found


def _random_part(
    tree: OperationTree, path: Sequence[int], before: set[int], most: int, rng: random.Random
) -> set[int]:
    """Up to `most` places of `before`: whole branches in random order while they fit, and the
    first operations of a branch that does not."""
    kept: set[int] = set()

    def branch(root: int) -> list[int]:
        below = [child for child in tree.places[root].children if child in before]
        return [root, *(id for child in below for id in branch(child))]

    def fill(roots: list[int]) -> None:
        rng.shuffle(roots)
        for root in roots:
            whole = branch(root)
            if len(whole) <= most - len(kept):
                kept.update(whole)
            elif len(kept) < most:
                kept.add(root)
                fill([child for child in tree.places[root].children if child in before])

    fill([id for above in (0, *path) for id in tree.places[above].children if id in before])
    return kept


def _depth_first(tree: OperationTree, kept: set[int]) -> list[int]:
    visits: list[int] = []
    waiting = [0]
    while waiting:
        id = waiting.pop()
        visits.append(id)
        waiting += [child for child in reversed(tree.places[id].children) if child in kept]
    return visits[1:]


def _lines(
    tree: OperationTree, visits: Sequence[int], config: LinearisationConfig, rng: random.Random
) -> list[str]:
    """The thought that carries out the operations that lead to `visits`, in this order."""
    places = tree.places
    lines = [f"numbers {joined_numbers(places[0].numbers)} target {tree.target}"]
    left = [places[id].parent for id in visits]  # where operations are still to be carried out
    gone_on: set[int] = set()
    at = 0
    for id in visits:
        place = places[id]
        while at != place.parent:
            back = place.parent if config.order == "as_searched" else places[at].parent
            numbers = places[back].numbers
            if sorted(numbers) != sorted(places[at].numbers):  # else the thought is there already
                tried = at in gone_on and at not in left
                reason = "spent" if len(places[at].numbers) == 1 else "tried" if tried else "far"
                lines.append(f"{reason} back {joined_numbers(numbers)}")
            at = back
        lines.append(f"{'instead' if at in gone_on else 'try'} {place.step}")
        if rng.random() < config.evaluation:
            lines.append(check_line(place.result, tree.target))
        gone_on.add(at)
        left.remove(at)
        at = id
    return lines
