"""The gate that a new policy must pass: its greedy answers are compared with those of the incumbent
on the same problems, by a paired one-sided exact test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data.types import Problem, Usage
from trainer.evaluation.policies import evaluate_greedy, groups_of
from trainer.measures.results import GateResult
from trainer.measures.statistics import paired_p_value
from trainer.searching.workbench import open_workbench


def run_gate_test(
    incumbent: str,
    candidate: str,
    problems: Sequence[Problem],
    folder: Path,
    *,
    verifier: str,
    seed: int,
    max_new_tokens: int,
    p_value_below: float,
) -> tuple[GateResult, list[Usage]]:
    """Let both policies answer the problems, and judge the candidate. `folder` gets the answers.
    Also returns what each policy spent."""
    solved: dict[str, list[bool]] = {}
    spent: list[Usage] = []
    for name, policy in (("incumbent", incumbent), ("candidate", candidate)):
        workbench = open_workbench(policy=policy, reward_model=None, verifier=verifier, seed=seed)
        _, solved[name] = evaluate_greedy(workbench, name, problems, folder, max_new_tokens)
        spent.append(workbench.usage)
    return judge_gate(solved["candidate"], solved["incumbent"], problems, p_value_below), spent


def judge_gate(
    candidate: Sequence[bool],
    incumbent: Sequence[bool],
    problems: Sequence[Problem],
    p_value_below: float,
) -> GateResult:
    """`candidate` and `incumbent` say which problems each policy solves, in the order of
    `problems`."""
    p_value, wins, losses = paired_p_value(candidate, incumbent, groups_of(problems))
    accepted = p_value < p_value_below
    decision = (
        f"below {p_value_below}, so it is kept"
        if accepted
        else f"not below {p_value_below}, so the incumbent stays"
    )
    return GateResult(
        accepted=accepted,
        p_value=p_value,
        wins=wins,
        losses=losses,
        n=len(problems),
        incumbent_accuracy=sum(incumbent) / len(problems),
        candidate_accuracy=sum(candidate) / len(problems),
        reason=(
            f"the candidate solved {wins} problems that the incumbent did not and lost {losses}: "
            f"p = {p_value:.2g}, {decision}"
        ),
    )
