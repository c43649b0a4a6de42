"""The verifiers of whole solutions by name, as recipes call them.

A verifier is made when a stage starts; one that needs what the machine lacks raises there.
"""

from __future__ import annotations

from collections.abc import Callable

from data.settings import did_you_mean
from rewards.base import Verifier
from rewards.verifiers.countdown import CountdownVerifier
from rewards.verifiers.math_answers import MathVerifier
from rewards.verifiers.programs import CodeVerifier
from rewards.verifiers.puzzles import GymVerifier

VERIFIERS: dict[str, Callable[[], Verifier]] = {
    "countdown": CountdownVerifier,
    "math": MathVerifier,
    "code": CodeVerifier,
    "reasoning_gym": GymVerifier,
    # Runs what a model wrote as this user. For machines that are thrown away after each run.
    "code_without_isolation": lambda: CodeVerifier(isolation="none"),
}

# Where a verifier finds the answer in a solution, for people. No verifier reads a thought. Bundles
# show this text, so every verifier has a line here.
ANSWER_FORMATS: dict[str, str] = {
    "countdown": "one step per line, such as 7 - 4 = 3 | 3 12 3; the last step reaches the target",
    "math": "the last line after ####, else <answer> tags, else the last \\boxed{...}, else what "
    "follows 'answer is' in the last line",
    "code": "a Python program, in the last fenced block if there is one",
    "reasoning_gym": "what follows the last ####, else as in mathematics",
    "code_without_isolation": "a Python program, in the last fenced block if there is one",
}


def check_verifier(name: str) -> None:
    """Raises ValueError, with the most similar name, where no verifier has this one."""
    if name not in VERIFIERS:
        raise ValueError(
            f"verifier is {name!r}; {did_you_mean(name, VERIFIERS)}allowed: {', '.join(VERIFIERS)}"
        )


def answer_format(name: str) -> str:
    """The verifier's line of ANSWER_FORMATS. Raises ValueError for an unknown verifier, and for one
    without a line."""
    check_verifier(name)
    if name not in ANSWER_FORMATS:
        raise ValueError(
            f"verifier {name!r} has no line in ANSWER_FORMATS of rewards/verifiers/by_name.py, "
            "which says where it finds the answer"
        )
    return ANSWER_FORMATS[name]
