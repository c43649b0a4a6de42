"""Rewards for the form of a solution, as plain functions of numbers and text.

They do not judge correctness. A user adds them, with a weight, to the reward of a verifier. Each
docstring names the source and the differences from it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

THINK_THEN_ANSWER = re.compile(
    r"\s*<think>(?P<think>.*?)</think>\s*<answer>(?P<answer>.*?)</answer>\s*", re.S
)
TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def format_reward(solution: str) -> float:
    """1.0 when the solution is `<think>...</think>` followed by `<answer>...</answer>`, else 0.0.

    Each part must appear once and must not be empty. There may be only white space outside the
    tags. The source is DeepSeek-R1 (2501.12948), section 2.2.2. It names the tags, but it does not
    say how strictly they are matched.
    """
    match = THINK_THEN_ANSWER.fullmatch(solution)
    if match is None or any(solution.count(tag) != 1 for tag in TAGS):
        return 0.0
    return float(bool(match["think"].strip()) and bool(match["answer"].strip()))


def cosine_length_reward(
    num_tokens: int,
    max_tokens: int,
    *,
    correct: bool,
    correct_at_zero: float = 2.0,
    correct_at_max: float = 1.0,
    wrong_at_zero: float = -10.0,
    wrong_at_max: float = 0.0,
    over_length: float = -10.0,
) -> float:
    """A reward that follows half a cosine from its value at length 0 to its value at `max_tokens`.

    Lengths are numbers of generated tokens. With the defaults, shorter is better for correct
    solutions, and longer is better for wrong solutions. For t tokens and T = `max_tokens`,
    r = end + (start - end) (1 + cos(pi t / T)) / 2. For t >= T, r = `over_length`.

    The source is Demystifying Long Chain-of-Thought Reasoning (2502.03373), section 4.2 and
    appendix. The defaults are those of the paper (r_0^c = 2, r_L^c = 1, r_0^w = -10, r_L^w = 0,
    r_e = -10). Raises ValueError for a negative `num_tokens` and for a `max_tokens` below 1.
    """
    if num_tokens < 0:
        raise ValueError(f"num_tokens is {num_tokens}; allowed: 0 or more")
    if max_tokens < 1:
        raise ValueError(f"max_tokens is {max_tokens}; allowed: 1 or more")
    if num_tokens >= max_tokens:
        return over_length
    start, end = (correct_at_zero, correct_at_max) if correct else (wrong_at_zero, wrong_at_max)
    return end + 0.5 * (start - end) * (1.0 + math.cos(math.pi * num_tokens / max_tokens))


def repetition_penalties(
    token_ids: Sequence[int], *, ngram: int = 40, penalty: float = -0.05
) -> list[float]:
    """One value per token: `penalty` for a token in an n-gram that occurred before, else 0.0.

    The source is 2502.03373, section 4.3 and appendix (N = 40, P = -0.05). There is one value per
    token, so the penalty applies to the repetition and not to the text around it. Raises ValueError
    for an `ngram` below 1 and for a penalty above 0.
    """
    if ngram < 1:
        raise ValueError(f"ngram is {ngram}; allowed: 1 or more")
    if penalty > 0:
        raise ValueError(f"penalty is {penalty}; allowed: 0 or less")
    values = [0.0] * len(token_ids)
    seen: set[tuple[int, ...]] = set()
    penalised_to = 0
    for start in range(len(token_ids) - ngram + 1):
        gram = tuple(token_ids[start : start + ngram])
        if gram in seen:
            for i in range(max(start, penalised_to), start + ngram):
                values[i] = penalty
            penalised_to = start + ngram
        seen.add(gram)
    return values


def repetition_penalty(text: str, *, ngram: int = 3, max_penalty: float = -1.0) -> float:
    """`max_penalty` times the share of word n-grams that are repetitions. 0.0 for a text with fewer
    than `ngram` words.

    This is the scalar form in open reproductions of DeepSeek-R1 (huggingface/open-r1), after
    2502.03373. Raises ValueError for an `ngram` below 1 and for a `max_penalty` above 0.
    """
    if ngram < 1:
        raise ValueError(f"ngram is {ngram}; allowed: 1 or more")
    if max_penalty > 0:
        raise ValueError(f"max_penalty is {max_penalty}; allowed: 0 or less")
    words = text.casefold().split()
    grams = [tuple(words[i : i + ngram]) for i in range(len(words) - ngram + 1)]
    if not grams:
        return 0.0
    return max_penalty * (1.0 - len(set(grams)) / len(grams))


TEXT_REWARDS: dict[str, Callable[..., float]] = {
    "format": format_reward,
    "cosine_length": cosine_length_reward,
    "repetition": repetition_penalty,
}


def length_factor(tokens: int, target: int, penalty: float) -> float:
    """The factor on the outcome of a solution with this many tokens: clip(1/2 + penalty x (target -
    tokens), 0, 1) (L1-Max, 2503.04697, equation 2, with delta 1/2). So a correct solution of
    `target` tokens earns a half, and every token less or more changes that by `penalty`."""
    return min(1.0, max(0.0, 0.5 + penalty * (target - tokens)))


def check_length(target: int, penalty: float) -> None:
    """Raises ValueError for a target below 0 and for a penalty that is not above 0."""
    if target < 0:
        raise ValueError(f"length_target is {target}; it must not be negative")
    if not penalty > 0:
        raise ValueError(f"length_penalty is {penalty}; it must be above 0")
