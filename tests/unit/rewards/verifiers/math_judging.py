"""How the tests of mathematics ask for a verdict."""

from __future__ import annotations

from data.types import Outcome, Problem, Verdict
from rewards.verifiers.math_answers import MathVerifier

VERIFIER = MathVerifier(seconds=20, workers=1)
CORRECT, WRONG, UNVERIFIABLE = Outcome.CORRECT, Outcome.WRONG, Outcome.UNVERIFIABLE


def judge(gold: str, solution: str, question: str = "") -> Verdict:
    return VERIFIER.verify(Problem(id="p", prompt=question, answer=gold), solution)


def boxed(gold: str, answer: str, question: str = "") -> Verdict:
    return judge(gold, f"So $\\boxed{{{answer}}}$.", question)
