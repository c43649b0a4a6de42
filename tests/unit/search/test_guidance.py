"""Each guidance on a small tree, with scores computed by hand, and invalid settings."""

from __future__ import annotations

import math
from typing import Any

import pytest

from data.types import Problem, StopReason
from rewards.heuristics import countdown_closeness
from rewards.verifiers.final_answers import countdown_operations, mathematical_answer
from search.base import SearchResult
from search.batcher import run_searches
from search.growth import add_sample, new_tree, set_priors
from search.guidance import judge
from search.settings import SearchSettings, check_budgets


def letters(text: str) -> dict[str, float]:
    return {".": 1.0} if len(text) == 2 else {"a": 0.8, "b": 0.2}


def scores(
    toys: Any, settings: SearchSettings, words: list[str], **options: Any
) -> tuple[list[float | None], Any]:
    """The scores of the paths that spell the words, on a tree that holds all of them. The letter
    "." ends a word."""
    found: list[float | None] = []
    holder: list[Any] = []

    async def strategy(session: Any) -> SearchResult:
        from data.types import Sample

        nodes = new_tree()
        ids: list[int] = []
        for word in words:
            text, logs, entropies = "", [], []
            for letter in word:
                options = letters(text)
                logs.append(math.log(options[letter]))
                entropies.append(-sum(p * math.log(p) for p in options.values()))
                text += letter
            done = word.endswith(".")
            sample = Sample(
                token_ids=tuple(0 if letter == "." else ord(letter) for letter in word),
                step_logprobs=tuple(logs),
                step_entropies=tuple(entropies),
                stop_reason=StopReason.END_OF_SOLUTION if done else StopReason.STEP_END,
            )
            ids.append(add_sample(session, nodes, 0, sample))
        await judge(session, nodes, ids)
        found.extend(nodes[id].score for id in ids)
        holder.extend([nodes, session.usage])
        return SearchResult(
            problem=session.problem, strategy="x", nodes=(), snapshots=(), usage=session.usage
        )

    list(
        run_searches(
            [options.pop("problem", None) or toys.problem("p", "ab")], strategy,
            engine=options.pop("engine", None) or toys.Engine(letters),
            scorer=toys.Scorer(lambda text: {"": 0.0, "a": 0.5, "ab": 0.4}[text]),
            verify=toys.verify, settings=settings,
        )
    )  # fmt: skip
    return found, holder


def test_reward_models(toys: Any) -> None:
    # the path a, b, end has the process rewards 0.5, 0.4, 0.4
    for aggregate, expected in (("last", 0.4), ("min", 0.4), ("product", 0.08), ("mean", 1.3 / 3)):
        [found], (nodes, usage) = scores(toys, SearchSettings(aggregate=aggregate), ["ab."])
        assert found == pytest.approx(expected)
        assert usage.reward.sequences == 1  # one forward pass also scores the earlier steps
        assert nodes[1].score == 0.5
    [found], (nodes, _) = scores(toys, SearchSettings(guidance="outcome"), ["ab."])
    assert found == 0.4 and nodes[1].score is None


def test_the_policys_own_confidence(toys: Any) -> None:
    # "ab.": (0.8 x 0.2 x 1)^(1/3); entropies H(0.8), H(0.8), 0
    found, _ = scores(toys, SearchSettings(guidance="likelihood"), ["ab.", "a"])
    assert found == pytest.approx([0.16 ** (1 / 3), 0.8])
    entropy = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2))
    found, (_, usage) = scores(toys, SearchSettings(guidance="entropy"), ["ab.", "a"])
    assert found == pytest.approx([math.exp(-2 * entropy / 3), math.exp(-entropy)])
    assert usage.flops == 0 and usage.policy.sequences == 0


def test_self_evaluation(toys: Any) -> None:
    settings = SearchSettings(guidance="self_evaluation", question="!", yes="yes", no="no")
    engine = toys.Engine(letters, choices=lambda text: {"y": 0.3, "n": 0.1, "z": 0.6})
    found, (_, usage) = scores(toys, settings, ["ab.", "a"], engine=engine)
    assert found == pytest.approx([0.75, 0.75])
    assert usage.policy.sequences == 2
    # The question does not fit into the context: the path has no value and a bad score.
    small = toys.Engine(letters, choices=engine.choices, context_length=4)
    found, (nodes, _) = scores(toys, settings, ["ab.", "a"], engine=small)
    assert found == [None, pytest.approx(0.75)]
    assert nodes[3].bad_score and nodes[3].terminal is StopReason.END_OF_SOLUTION
    wrong = SearchSettings(guidance="self_evaluation", question="!", yes="yes", no="yet")
    with pytest.raises(ValueError, match="first tokens must differ"):
        scores(toys, wrong, ["a"], engine=engine)


def test_self_consistency(toys: Any) -> None:
    settings = SearchSettings(guidance="self_consistency", guidance_rollouts=200)
    # Two of three samples are "ab". A word that begins with "a" becomes "aa" with probability 0.8.
    found, (_, usage) = scores(toys, settings, ["ab.", "ab.", "aa.", "a"])
    assert found[:3] == pytest.approx([2 / 3, 2 / 3, 1 / 3])
    assert found[3] == pytest.approx(0.8, abs=0.1)
    assert usage.policy.sequences == 200  # only the open path needs rollouts


def test_the_oracle_and_dice(toys: Any) -> None:
    settings = SearchSettings(guidance="oracle", guidance_rollouts=400)
    found, (nodes, _) = scores(toys, settings, ["ab.", "aa.", "a"])
    assert found[:2] == [1.0, 0.0]
    assert found[2] == pytest.approx(0.2, abs=0.07)
    assert nodes[3].verdict is not None
    dice, _ = scores(toys, SearchSettings(guidance="random"), ["ab.", "aa.", "a"])
    again, _ = scores(toys, SearchSettings(guidance="random"), ["ab.", "aa.", "a"])
    assert dice == again and len(set(dice)) == 3
    other = toys.Engine(letters, seed=9)
    assert scores(toys, SearchSettings(guidance="random"), ["a"], engine=other)[0] != dice[2:]


def test_countdown_closeness_by_hand() -> None:
    problem = Problem(id="p", prompt="3 4 7 -> 24\n", answer="24")
    # no step yet: 7 is the number nearest to 24
    assert countdown_closeness(problem, "") == pytest.approx(1 / (1 + 17 / 24))
    assert countdown_closeness(problem, "3 * 7 = 21 | 4 21\n") == pytest.approx(1 / (1 + 3 / 24))
    assert countdown_closeness(problem, "3 * 7 = 20 | 4 20\n") == 0.0  # false
    assert countdown_closeness(problem, "7 + 7 = 14 | 3 4 14\n") == 0.0  # there is only one 7
    assert countdown_closeness(problem, "nonsense") == 0.0
    with pytest.raises(ValueError, match="not a Countdown prompt"):
        countdown_closeness(Problem(id="p", prompt="x", answer="1"), "")


def test_the_same_calculation_is_one_answer() -> None:
    problem = Problem(id="p", prompt="1 2 3 4 -> 21\n", answer="21", numbers=(1, 2, 3, 4))
    first = "1 + 2 = 3 | 3 3 4\n3 + 4 = 7 | 3 7\n3 * 7 = 21 | 21"
    other = "4 + 3 = 7 | 1 2 7\n2 + 1 = 3 | 3 7\n7 * 3 = 21 | 21"
    assert countdown_operations(problem, first) == countdown_operations(problem, other)
    assert countdown_operations(problem, first) != countdown_operations(
        problem, first.replace("3 * 7", "7 / 3")
    )
    assert countdown_operations(problem, "what\nelse") == "what\nelse"
    steps = first.split("\n")
    for bad in (
        "\n".join([steps[1], steps[0], steps[2]]),  # uses a 3 that is a later result
        first.replace("| 3 7", "| 4 7"),  # leaves out a number that remains
        first.replace("1 + 2", "5 + 2"),  # uses a number that is not there
    ):
        assert countdown_operations(problem, bad) == bad


def test_mathematical_solutions_vote_for_their_final_answers() -> None:
    problem = Problem(id="p", prompt="How many?", answer="7")
    for text in ("3 + 4 = 7\n#### 7", "so it is \\boxed{ 7 }", "The answer is 7."):
        assert mathematical_answer(problem, text).rstrip(".") == "7"
    assert mathematical_answer(problem, "no idea") == "no idea"


def test_priors_by_hand() -> None:
    nodes = new_tree() + new_tree() + new_tree()
    nodes[0].proposals, nodes[1].proposals, nodes[2].proposals = 1, 2, 1
    nodes[0].logprob, nodes[1].logprob, nodes[2].logprob = (math.log(p) for p in (0.1, 0.2, 0.1))
    for kind, expected in (
        ("count", [0.25, 0.5, 0.25]),
        ("sequence", [0.25, 0.5, 0.25]),
        ("uniform", [1 / 3] * 3),
    ):
        set_priors(nodes, kind)
        assert [node.prior for node in nodes] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"guidance": "prn"}, "guidance is 'prn'; allowed: prm"),
        ({"answer": "best"}, "answer is 'best'; allowed: score"),
        ({"aggregate": "sum"}, "aggregate is 'sum'"),
        ({"guidance": "heuristic"}, "heuristic is ''; allowed: countdown"),
        ({"max_depth": 0}, "max_depth is 0; it must be at least 1"),
        ({"temperature": math.nan}, "temperature is nan; it must not be negative"),
        ({"max_flops": -1.0}, "max_flops is -1.0"),
        ({"stop_score": 1.5}, "stop_score is 1.5"),
        ({"stop_score": 0.5, "guidance": "self_consistency"}, "stop_score needs a guidance whose"),
    ],
)
def test_bad_settings_are_named(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SearchSettings(**fields)


def test_bad_budgets_are_named() -> None:
    for budgets, nested, said in (
        ((), True, "not empty"), ((2, 1), True, "ascending"), ((0,), True, "at least 1"),
        ((1, 2), False, "one budget"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            check_budgets(budgets, nested=nested)
