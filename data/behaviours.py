"""Reasoning behaviours in solutions: how often a policy analyses, checks, goes back, and so on.

The six behaviours are those of data/tasks/countdown_lines.py. In Countdown every line of a thought
is replayed, so the counts are exact. In free text, patterns look for the words that people and
models use (as 2503.01307 counts them with a model as the reader). Patterns miss behaviours without
such words, and count words that mean something else; the test measures both on labelled sentences.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from data.tasks.countdown import parse_prompt
from data.tasks.countdown_lines import BEHAVIOURS, read_thought
from data.thoughts import split_solution
from data.types import Problem

_LET_ME = r"(?:let(?:'s| us| me)|i(?:'ll| will| should| need to)|we (?:should|need to|can))"
PATTERNS = {
    "analysis": (
        rf"{_LET_ME} (?:first |carefully )?(?:understand|restate|re-?read|parse|analy[sz]e|"
        r"see what (?:is|we))"
        r"|the (?:problem|question) (?:is asking|asks|says|states|wants|gives|tells)"
        r"|(?:we|i)(?:'re| are|'m| am) (?:given|asked|told)"
        r"|(?:we|i) (?:need|have|want) to (?:find|determine|compute|show|prove|figure out)"
        r"|what (?:do we|we) (?:know|have)|the (?:unknown|goal|target) (?:here )?is"
    ),
    "decomposition": (
        r"\b(?:first(?:ly)?,|to start,|step (?:\d|one|two|three)\b|case (?:\d|one|two|[ivx]+)\b"
        r"|sub-?(?:problem|goal|task|case)s?\b"
        r"|in (?:two|three|four|several) (?:steps|parts|cases))"
        r"|\b(?:break|split|divide|separate) .{1,40}? (?:down\b|up\b|into (?:\w+ )?"
        r"(?:parts|cases|steps|pieces|problems|terms))"
        r"|\b(?:my|the|our) plan is|plan:|work(?:ing)? backwards?\b"
    ),
    "completion": (
        r"\d[\d.,]*\)?\s*(?:[-+*/×·÷^]|times|plus|minus|divided by)\s*\(?[\d.,]+\)?[^=]{0,30}?="
        r"\s*-?\$?\d"
        r"|\b(?:substitut|simplif|plugging|expand|factor|multiply|divid|subtract|add|solv)\w*"
        r"\b.{0,60}?(?:\bgives?\b|\bwe get\b|\byields?\b|\bto get\b|=)"
        r"|\bwhich (?:gives|is equal to|equals|simplifies)"
    ),
    "alternative": (
        r"\balternative(?:ly|s)?\b"
        r"|\b(?:another|a different|a second|one more|some other|other) "
        r"(?:way|approach|method|idea|possibility|route|option|strategy|angle)"
        r"|\btry (?:another|a different|something else|instead)"
        r"|\binstead,? (?:let|we could|i could|of (?:that|this),? (?:let|we|i))"
        r"|\bwhat if (?:we|i|instead)\b|\bwe could also\b|\bor (?:maybe|perhaps) (?:we|i|use)\b"
    ),
    "evaluation": (
        r"\bdouble-?\s?check|\bsanity check|\b(?:to|let's|let me|i'll|i should|we should|we can) "
        r"(?:quickly |now )?(?:check|verify)\b|\b(?:checking|verifying|verification)\b"
        r"|\b(?:does|do|did) (?:this|that|it|these) .{0,20}?"
        r"(?:make sense|work|match|hold|fit|agree)"
        r"|\bis (?:this|that|it) (?:right|correct|reasonable|possible|enough)\?"
        r"|\b(?:checks out|makes sense|is consistent with|matches the)"
        r"|\bseems (?:right|reasonable|off|wrong|too)|\bam i sure"
        r"|\bnot sure (?:if|whether|that)|\bclose(?:r)? to the target"
    ),
    "correction": (
        r"^(?:oh |hmm,? |but |no,? )?wait\b|[.,;—-] ?wait,|\boops\b|\bscratch that\b"
        r"|\bon second thought"
        r"|\b(?:that|this|it)(?:'s| is| was) (?:not right|not correct|wrong|incorrect|a mistake|"
        r"an error|a dead end)"
        r"|\b(?:that|this|it) (?:doesn't|does not|didn't|won't|will not) work"
        r"|\bi (?:made|see) (?:a|an|my|the) (?:mistake|error|slip)"
        r"|\bthere(?:'s| is) an? (?:mistake|error)|\bi (?:forgot|miscounted|misread|overlooked)"
        r"|\blet me (?:redo|correct|fix|start over|go back|backtrack|reconsider|rethink)"
        r"|\b(?:go|going) back to\b|\bstart(?:ing)? over\b|\bactually,? (?:no|that)"
    ),
}
_COMPILED = {name: re.compile(pattern, re.I) for name, pattern in PATTERNS.items()}
_SENTENCE = re.compile(r"[^.!?\n]*(?:\.(?=\d)[^.!?\n]*)*[.!?\n]+|[^.!?\n]+\Z")
MAX_SENTENCE = 1000  # characters of a sentence that the patterns read


@dataclass(frozen=True, kw_only=True)
class BehaviourRates:
    """Behaviours in `solutions` solutions, of which the share `thoughts` begins with a thought.

    `shown` is the share of solutions that show a behaviour, and `per_solution` the mean number of
    lines (Countdown) or sentences that show it. `false_lines` is the share of a Countdown thought's
    lines that are false or have no known form; None for free text and without a line.
    """

    solutions: int
    thoughts: float
    shown: dict[str, float]
    per_solution: dict[str, float]
    false_lines: float | None

    def metrics(self) -> dict[str, float]:
        """The numbers by the name under which a stage logs them."""
        found = {f"behaviours/{name}": share for name, share in self.shown.items()}
        found |= {f"behaviours/{name}_per_solution": n for name, n in self.per_solution.items()}
        found["behaviours/thoughts"] = self.thoughts
        if self.false_lines is not None:
            found["behaviours/false_lines"] = self.false_lines
        return found


def behaviour_rates(solutions: Iterable[tuple[Problem, str]]) -> BehaviourRates:
    """The rates over pairs of a problem and a solution. Raises ValueError without a solution."""
    count = thoughts = lines = false = 0
    shown, total = Counter[str](), Counter[str]()
    for problem, solution in solutions:
        count += 1
        thought = split_solution(solution).thought
        thoughts += thought is not None
        if parse_prompt(problem.prompt) is None:
            found = behaviours_in_text(solution if thought is None else thought)
        else:
            read = read_thought(problem, thought or "")
            found = Counter(name for line in read for name in line.behaviours)
            lines += len(read)
            false += sum(line.fault is not None for line in read)
        shown.update(found.keys())
        total.update(found)
    if not count:
        raise ValueError("there is no solution whose behaviours could be counted")
    return BehaviourRates(
        solutions=count,
        thoughts=thoughts / count,
        shown={name: shown[name] / count for name in BEHAVIOURS},
        per_solution={name: total[name] / count for name in BEHAVIOURS},
        false_lines=false / lines if lines else None,
    )


def behaviours_in_text(text: str) -> Counter[str]:
    """How many sentences of a free text show each behaviour. A line break ends a sentence."""
    counts = Counter[str]()
    for match in _SENTENCE.finditer(text):
        counts.update(behaviours_of_sentence(match[0]))
    return counts


def behaviours_of_sentence(sentence: str) -> set[str]:
    """The behaviours that the words of one sentence show."""
    sentence = sentence.strip().replace("\u2019", "'")[:MAX_SENTENCE]
    return {name for name, pattern in _COMPILED.items() if pattern.search(sentence)}
