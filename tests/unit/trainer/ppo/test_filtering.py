"""Online filtering: which problems are kept by hand, and a run that was cut off ends the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from data.types import ModelUsage, Problem, Usage
from trainer.ppo.filtering import FilteredRollouts, collect_mixed, replacements
from trainer.ppo.loop import PPORun
from trainer.rollouts.collect import Rollout

# The outcomes of two samples: problems in capitals are mixed.
MIXED = {"A", "B", "C", "D"}


def problem(name: str) -> Problem:
    return Problem(id=name, prompt=name, answer="")


def rollouts_of(name: str) -> list[Rollout]:
    outcomes = (1.0, 0.0) if name in MIXED else (0.0, 0.0) if name < "m" else (1.0, 1.0)
    return [
        Rollout(
            problem_id=name, prompt_ids=(1,), response_ids=(2, 3, i), text="", step_ends=(2,),
            scores=(), outcome=outcome, correct=outcome == 1.0, truncated=False, rewards=(outcome,),
        )
        for i, outcome in enumerate(outcomes)
    ]  # fmt: skip


def filtered(
    first: str, further: str, *, rounds: int, processes: int = 1
) -> tuple[list[FilteredRollouts], list[str]]:
    """What every process gets, and the problems of each round."""
    turns: list[str] = []
    parts: list[list[Rollout]] = []

    def collect_of(process: int, note: bool) -> Any:
        def collect(asked: Sequence[Problem]) -> tuple[list[Rollout], Usage]:
            if note:
                turns.append("".join(p.id for p in asked))
            parts[:] = [
                [r for p in asked[rank::processes] for r in rollouts_of(p.id)]
                for rank in range(processes)
            ]
            own = parts[process]
            return own, Usage(policy=ModelUsage(sequences=len(own)))

        return collect

    found = [
        collect_mixed(
            [problem(name) for name in first],
            [problem(name) for name in further],
            samples=2,
            rounds=rounds,
            process=process,
            processes=processes,
            collect=collect_of(process, process == 0),
            gather=lambda own: parts,
        )
        for process in range(processes)
    ]
    return found, turns


def names(found: FilteredRollouts) -> str:
    return "".join(r.problem_id for r in found.rollouts[::2])


def test_problems_with_one_outcome_are_replaced() -> None:
    [found], turns = filtered("AxBy", "aCzDwE", rounds=5)
    assert turns == ["AxBy", "aC", "z", "D"] and names(found) == "ABCD"
    assert found.usage.policy.sequences == 2 * 8
    metrics = found.metrics
    assert (metrics.sampled_problems, metrics.filtered_share) == (8, 4 / 8)
    assert metrics.unfilled_share == 0.0
    assert metrics.filtered_tokens == 4 * 2 * 3  # x, y, a and z: two samples of 3 tokens
    # A, B, C and D are half right; x, y and z right; a wrong.
    assert metrics.sampled_correct == (4 + 6) / 16


def test_the_rounds_and_the_problems_are_bounded() -> None:
    [found], turns = filtered("AxBy", "aCzDwE", rounds=1)
    assert turns == ["AxBy", "aC"] and names(found) == "ABCx"
    assert found.metrics.unfilled_share == 1 / 4 and found.metrics.filtered_tokens == 2 * 2 * 3
    [found], turns = filtered("axby", "zw", rounds=9)
    assert turns == ["axby", "zw"] and names(found) == "axby"
    assert found.metrics.filtered_share == 1.0 and found.metrics.unfilled_share == 1.0
    [found], turns = filtered("AB", "CD", rounds=9)
    assert turns == ["AB"] and found.metrics.filtered_tokens == 0


def test_two_processes_keep_the_same_problems() -> None:
    [one], _ = filtered("AxBy", "aCzDwE", rounds=9)
    both, turns = filtered("AxBy", "aCzDwE", rounds=9, processes=2)
    assert turns == ["AxBy", "aC", "zD"]
    merged = "".join(a + b for a, b in zip(*map(names, both), strict=True))
    assert merged == names(one) == "ABCD"
    assert both[0].metrics == both[1].metrics
    assert sum(f.usage.policy.sequences for f in both) == 2 * 8


def test_replacements_are_all_others_in_the_cycle_s_order() -> None:
    every = [problem(name) for name in "abcdefgh"]
    orders = [replacements(every, every[:3], cycle, 5) for cycle in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert {p.id for p in orders[2]} == set("defgh") and len(orders[2]) == 5


def test_a_filtering_run_that_was_cut_off_ends_the_same(
    ppo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ppo.config(
        filter_rounds=2, problems_per_cycle=2, samples_per_problem=4, minibatches=1,
        evaluation_problems=0,
    )  # fmt: skip
    whole = ppo.run("whole", config)
    report = PPORun._report

    def dies(self: PPORun, record: Any, *rest: Any) -> None:
        report(self, record, *rest)
        if record.cycle == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(PPORun, "_report", dies)
    with pytest.raises(KeyboardInterrupt):
        ppo.run("cut", config)
    monkeypatch.setattr(PPORun, "_report", report)
    again = ppo.run("cut", config)
    rows = ppo.metrics(whole)
    assert ppo.metrics(again) == rows
    assert any(row["sampled_problems"] > 2 for row in rows)
    for row in rows:
        filled = row["sampled_problems"] * (1 - row["filtered_share"])
        assert filled >= 2 or row["unfilled_share"] > 0


def test_what_filtering_needs_is_said(ppo: Any) -> None:
    with pytest.raises(ValueError, match="filter_rounds is 1: it needs at least 2 samples"):
        ppo.config(filter_rounds=1, samples_per_problem=1, minibatches=1)
    with pytest.raises(ValueError, match="and no replay"):
        ppo.config(filter_rounds=1, replay="rollouts.jsonl")
