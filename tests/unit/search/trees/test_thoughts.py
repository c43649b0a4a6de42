"""Search trees as thoughts: two by hand, pruning, and properties over random trees."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from data.behaviours import behaviour_rates
from data.tasks.countdown import OPERATORS, apply, make_problem, parse_step
from data.tasks.countdown_lines import REASONS, read_thought
from data.thoughts import split_solution
from data.types import Problem, StopReason, Usage
from rewards.verifiers.countdown import CountdownVerifier
from search.base import Node, SearchResult, solution_text
from search.trees.operations import OperationTree, operations_of
from search.trees.thoughts import ORDERS, LinearisationConfig, TreeThought, thought_of_tree

END, LENGTH = StopReason.END_OF_SOLUTION, StopReason.LENGTH
PROBLEM = make_problem((3, 4, 7, 12), 24)
QUIET = LinearisationConfig(evaluation=0.0, most_tries=7)
# (parent, text, why the path ends there); node 3 repeats node 2, and node 5 is false.
NODES: list[tuple[int, str, StopReason | None]] = [
    (0, "7 - 4 = 3 | 3 12 3\n", None),
    (0, "4 * 3 = 12 | 7 12 12\n", None),
    (0, "3 * 4 = 12 | 12 7 12\n", None),
    (1, "12 * 3 = 36 | 3 36\n", None),
    (1, "3 + 3 = 7 | 12 7\n", None),
    (5, "12 + 7 = 19 | 19", END),
    (2, "12 - 7 = 5 | 12 5\n", None),
    (4, "36 / 3 = 12 | 12", END),
    (1, "3 + 3 = 6 | 12 6\n", LENGTH),
    (3, "12 + 12 = 24 | 7 24", END),
    (0, "12 + 7 = 19 | 3 4 19\n", None),
]
DEPTH_FIRST = """<think>
numbers 3 4 7 12 target 24
try 7 - 4 = 3 | 3 12 3
try 12 * 3 = 36 | 3 36
try 36 / 3 = 12 | 12
spent back 3 36
tried back 3 12 3
instead 3 + 3 = 6 | 12 6
far back 3 12 3
tried back 3 4 7 12
instead 4 * 3 = 12 | 7 12 12
try 12 - 7 = 5 | 12 5
far back 7 12 12
instead 12 + 12 = 24 | 7 24
</think>
4 * 3 = 12 | 7 12 12
12 + 12 = 24 | 7 24"""
AS_SEARCHED = """<think>
numbers 3 4 7 12 target 24
try 7 - 4 = 3 | 3 12 3
far back 3 4 7 12
instead 4 * 3 = 12 | 7 12 12
far back 3 12 3
try 12 * 3 = 36 | 3 36
far back 7 12 12
try 12 - 7 = 5 | 12 5
far back 3 36
try 36 / 3 = 12 | 12
spent back 3 12 3
instead 3 + 3 = 6 | 12 6
far back 7 12 12
instead 12 + 12 = 24 | 7 24
</think>
4 * 3 = 12 | 7 12 12
12 + 12 = 24 | 7 24"""


def result_of(
    nodes: list[tuple[int, str, StopReason | None]], problem: Problem = PROBLEM
) -> SearchResult:
    made = [Node(id=0, parent=-1, token_ids=(), text="")]
    for parent, text, terminal in nodes:
        made.append(Node(id=len(made), parent=parent, token_ids=(1,), text=text, terminal=terminal))
    return SearchResult(
        problem=problem, strategy="mcts", nodes=tuple(made), snapshots=(), usage=Usage()
    )


def thought_of(
    nodes: list[tuple[int, str, StopReason | None]],
    config: LinearisationConfig = QUIET,
    seed: int = 0,
) -> TreeThought:
    found = thought_of_tree(operations_of(result_of(nodes)), config, random.Random(seed))
    assert found is not None
    return found


def tried(thought: TreeThought) -> list[str]:
    """The operations of a thought, without the numbers that remain."""
    lines = (split_solution(thought.solution).thought or "").split("\n")
    return [
        line.partition(" ")[2].partition(" =")[0]
        for line in lines
        if line.startswith(("try ", "instead "))
    ]


@pytest.mark.parametrize(
    ("order", "solution"), [("depth_first", DEPTH_FIRST), ("as_searched", AS_SEARCHED)]
)
def test_a_tree_by_hand(order: str, solution: str) -> None:
    thought = thought_of(NODES, replace(QUIET, order=order))
    assert thought.solution == solution
    # 36 / 3, 3 + 3 and 12 - 7 lead nowhere; 12 + 7 at the start comes after the solution.
    assert (thought.operations, thought.dead_ends, thought.pruned) == (7, 3, 0)
    read = read_thought(PROBLEM, split_solution(solution).thought or "")
    assert [line.fault for line in read] == [None] * len(read)


def test_operations_by_hand() -> None:
    tree = operations_of(result_of(NODES))
    assert [place.parent for place in tree.places] == [-1, 0, 0, 1, 2, 3, 1, 2, 0]
    assert [place.children for place in tree.places[:3]] == [(1, 2, 8), (3, 6), (4, 7)]
    assert tree.places[2].step == "4 * 3 = 12 | 7 12 12"  # as it was written first
    assert (tree.false_steps, tree.repeated_steps, tree.solutions) == (2, 1, [7])


def test_a_node_may_hold_a_whole_solution() -> None:
    solutions: list[tuple[int, str, StopReason | None]] = [
        (0, "4 * 3 = 12 | 7 12 12\n12 - 7 = 5 | 12 5\n12 + 5 = 17 | 17", END),
        (0, "4 * 3 = 12 | 7 12 12\n12 + 12 = 24 | 7 24\n", END),
        (0, "4 * 3 = 12 | 7 12 12\n12 - 7 = 5 | 12", LENGTH),  # cut off within the line
    ]
    tree = operations_of(result_of(solutions))
    assert (tree.false_steps, tree.repeated_steps, tree.solutions) == (1, 2, [4])
    assert tried(thought_of(solutions)) == ["4 * 3", "12 - 7", "12 + 5", "12 + 12"]


def test_a_solution_ends_where_the_target_is_reached() -> None:
    """The verifier calls a solution wrong that goes on after the target, or that does not end."""
    on: list[tuple[int, str, StopReason | None]] = [
        (0, "4 * 3 = 12 | 7 12 12\n", None),
        (1, "12 + 12 = 24 | 7 24\n", None),
        (2, "24 + 7 = 31 | 31", END),
    ]
    tree = operations_of(result_of(on))
    assert (tree.solutions, tree.false_steps, len(tree.places)) == ([], 2, 2)
    assert thought_of_tree(tree, QUIET, random.Random(0)) is None
    cut_off = operations_of(result_of([*on[:1], (1, "12 + 12 = 24 | 7 24", LENGTH)]))
    assert cut_off.solutions == []
    # The same step ends a solution in another node.
    ended = operations_of(result_of([*on, (1, "12 + 12 = 24 | 7 24", END)]))
    assert (ended.solutions, ended.false_steps, ended.repeated_steps) == ([2], 1, 1)
    # The end of a solution may be a node of its own, without text.
    apart = operations_of(result_of([*on[:2], (2, "", END)]))
    assert apart.solutions == [2]
    # Without a line break, the step goes on in the next node.
    one_line = [(0, on[0][1].rstrip(), None), (1, "12 + 12 = 24 | 7 24", END)]
    assert operations_of(result_of(one_line)).false_steps == 1


def test_a_branch_with_another_solution_is_no_dead_end() -> None:
    """One of the two solutions is drawn; nothing of the other one's branch is written."""
    other: list[tuple[int, str, StopReason | None]] = [
        (0, "12 - 4 = 8 | 3 7 8\n", None),
        (1, "8 + 7 = 15 | 3 15\n", None),
        (1, "8 * 3 = 24 | 7 24", END),
        (0, "4 * 3 = 12 | 7 12 12\n", None),
        (4, "12 + 12 = 24 | 7 24", END),
    ]
    found = {tuple(tried(thought_of(other, seed=seed))) for seed in range(20)}
    assert found == {("12 - 4", "8 + 7", "8 * 3"), ("4 * 3", "12 + 12")}


def test_numbers_that_are_there_already_are_not_gone_back_to() -> None:
    """Two places have the numbers 12 and 19, and the search goes on from the one that it reached
    first when the thought is at the other."""
    nodes: list[tuple[int, str, StopReason | None]] = [
        (0, "3 * 4 = 12 | 7 12 12\n", None),
        (0, "12 + 7 = 19 | 3 4 19\n", None),
        (2, "3 * 4 = 12 | 19 12\n", None),
        (1, "12 + 7 = 19 | 12 19\n", None),
        (3, "19 - 12 = 7 | 7", END),
        (4, "19 + 12 = 31 | 31", END),
        (1, "12 + 12 = 24 | 7 24", END),
    ]
    thought = thought_of(nodes, replace(QUIET, order="as_searched"))
    lines = thought.solution.split("\n")
    at = lines.index("try 12 + 7 = 19 | 12 19")  # the numbers 12 19 for the second time
    assert lines[at + 1 : at + 3] == ["try 19 - 12 = 7 | 7", "spent back 12 19"]


def test_a_tree_that_does_not_fit_keeps_its_solution_and_random_dead_ends() -> None:
    """The solution has 2 of the 7 operations. A thought of 6 has 4 of the 5 others: the branch of
    7 - 4 whole, or 12 - 7 and three of that branch."""
    config = replace(QUIET, most_tries=6)
    by_size: dict[int, set[tuple[str, ...]]] = {}
    for seed in range(200):
        thought = thought_of(NODES, config, seed)
        operations = tried(thought)
        assert thought.operations == len(operations) == 7 - thought.pruned
        by_size.setdefault(len(operations), set()).add(tuple(operations))
        assert thought.solution.endswith("4 * 3 = 12 | 7 12 12\n12 + 12 = 24 | 7 24")
        assert thought_of(NODES, config, seed) == thought
    assert sorted(by_size) == [2, 3, 4, 5, 6]
    solution = ("4 * 3", "12 + 12")
    assert by_size[2] == {solution}
    assert by_size[3] == {("7 - 4", *solution), ("4 * 3", "12 - 7", "12 + 12")}
    assert by_size[6] == {
        ("7 - 4", "12 * 3", "36 / 3", "3 + 3", *solution),
        ("7 - 4", "12 * 3", "36 / 3", "4 * 3", "12 - 7", "12 + 12"),
        ("7 - 4", "12 * 3", "3 + 3", "4 * 3", "12 - 7", "12 + 12"),
    }


def test_a_solution_of_more_operations_than_the_most_gives_no_thought() -> None:
    tree = operations_of(result_of(NODES))
    assert thought_of_tree(tree, replace(QUIET, most_tries=1), random.Random(0)) is None
    assert tried(thought_of(NODES, replace(QUIET, most_tries=2))) == ["4 * 3", "12 + 12"]


def test_checks_follow_their_operations() -> None:
    lines = thought_of(NODES, replace(QUIET, evaluation=1.0)).solution.split("\n")
    assert lines[2:4] == ["try 7 - 4 = 3 | 3 12 3", "check 3 < 24"]
    assert lines[-4] == "check 24 = 24"
    assert sum(line.startswith("check ") for line in lines) == 7
    some = [
        thought_of(NODES, replace(QUIET, evaluation=0.25), seed).solution.count("check ")
        for seed in range(100)
    ]
    assert 1.3 < sum(some) / 100 < 2.2  # 7 / 4 expected


def test_another_task_is_refused() -> None:
    problem = Problem(id="q1", prompt="How many apples?", answer="2")
    with pytest.raises(ValueError, match="problem 'q1' has the prompt 'How many apples"):
        operations_of(result_of([], problem))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"order": "depth-first"}, "order is 'depth-first'; did you mean 'depth_first'"),
        ({"most_tries": 0}, "most_tries is 0; it must be at least 1"),
        ({"evaluation": 1.5}, "evaluation is 1.5; it must be in"),
    ],
)
def test_wrong_values(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LinearisationConfig(**values)


def random_line(numbers: list[int], rng: random.Random) -> tuple[str, list[int]]:
    """A step, true or false, and the numbers after it."""
    rest = list(numbers)
    rng.shuffle(rest)
    if rng.random() < 0.03 or len(rest) < 2:
        return rng.choice(["", "7 - 4", f"1 + 1 = 2 | {rng.randint(1, 9)}", "<think>"]), numbers
    left, right = rest.pop(), rest.pop()
    allowed = [operator for operator in OPERATORS if apply(left, operator, right)]
    operator = rng.choice(allowed if rng.random() < 0.95 else OPERATORS)
    result = (apply(left, operator, right) or 1) + (rng.random() < 0.05)
    rest.append(result)
    if rng.random() < 0.5:
        rng.shuffle(rest)
    said = " ".join(map(str, rest[rng.random() < 0.02 :] or [1]))
    return f"{left} {operator} {right} = {result} | {said}", rest


def random_tree(rng: random.Random) -> SearchResult:
    """A tree as a careless policy makes it. Some nodes hold several lines, and some repeat others.
    The target is the last result of one of its solutions, which may be false."""
    numbers = [rng.randint(1, 9) for _ in range(4)]
    nodes: list[tuple[int, str, StopReason | None]] = []
    states = [numbers]
    for _ in range(rng.randint(10, 60)):
        open_nodes = [0, *(i for i, node in enumerate(nodes, start=1) if node[2] is None)]
        parent = rng.choice(open_nodes) if rng.random() < 0.7 else open_nodes[-1]
        lines, state = list[str](), states[parent]
        for _ in range(1 if rng.random() < 0.8 else rng.randint(1, 3)):
            line, state = random_line(state, rng)
            lines.append(line)
        ended = END if rng.random() < 0.2 * (5 - len(state)) else None
        text = "\n".join(lines) + "\n" * (ended is None or rng.random() < 0.5)
        if nodes and rng.random() < 0.2:
            again = rng.randrange(len(nodes))
            (parent, text, ended), state = nodes[again], states[again + 1]
        nodes.append((parent, text, ended))
        states.append(state)
    steps = [parse_step(text.rstrip("\n").split("\n")[-1]) for _, text, end in nodes if end is END]
    results = [step.result for step in steps if step is not None]
    return result_of(nodes, make_problem(numbers, rng.choice([*results, 25])))


@pytest.mark.parametrize("order", ORDERS)
def test_every_line_of_every_thought_is_true(order: str) -> None:
    seen = Counter[str]()
    for seed in range(300):
        rng = random.Random(seed)
        result = random_tree(rng)
        problem, tree = result.problem, operations_of(result)
        correct = [
            node.id
            for node in result.nodes
            if node.finished
            and CountdownVerifier().verify(problem, solution_text(result.nodes, node.id)).correct
        ]
        config = LinearisationConfig(
            order=order, most_tries=rng.randint(1, 12), evaluation=rng.random()
        )
        thought = thought_of_tree(tree, config, rng)
        # What the verifier calls correct is what can be written down.
        assert bool(correct) == bool(tree.solutions)
        if thought is None:
            assert all(len(tree.path_to(id)) > config.most_tries for id in tree.solutions)
            continue
        seen["thoughts"] += 1
        assert CountdownVerifier().verify(problem, thought.solution).correct
        said = (split_solution(thought.solution).thought or "").removesuffix("\n")
        read = read_thought(problem, said)
        assert [line.fault for line in read] == [None] * len(said.split("\n")), said
        assert len(tried(thought)) == thought.operations <= config.most_tries
        check_that_no_operation_is_repeated(tree, thought)
        rates = behaviour_rates([(problem, thought.solution)])
        assert rates.false_lines == 0.0
        seen["pruned"] += thought.pruned > 0
        seen["dead_ends"] += thought.dead_ends
        for line in said.split("\n"):
            seen[" ".join(line.split(" ")[: 2 if " back " in line else 1])] += 1
    assert seen["thoughts"] > 150 and seen["pruned"] > 20, seen
    # In the order of the search, a thought only leaves numbers that it has just reached.
    reasons = {reason for reason in REASONS if seen[f"{reason} back"] > 10}
    assert reasons == ({"spent", "tried", "far"} if order == "depth_first" else {"spent", "far"})
    assert order == "depth_first" or not seen["tried back"]
    assert min(seen[word] for word in ("instead", "check", "dead_ends")) > 50, seen


def check_that_no_operation_is_repeated(tree: OperationTree, thought: TreeThought) -> None:
    """At most as often as the tree has it, at different places."""
    there = Counter(place.step for place in tree.places)
    said = Counter(
        line.partition(" ")[2]
        for line in thought.solution.split("\n")
        if line.startswith(("try ", "instead "))
    )
    assert said <= there
