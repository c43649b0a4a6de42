"""Times of day, which look like ratios and are none: 12:30 is not 2:5."""

from __future__ import annotations

import re
from dataclasses import replace

from rewards.mathematics.structure import Answer

CLOCK = re.compile(r"0?(\d{1,2}) ?: ?(\d{2})")
ASKS_FOR_A_TIME = re.compile(
    r"o'clock|\b[ap]\.? ?m\b|what time|\bclock\b|time of day", re.IGNORECASE
)


def is_clock_time(gold: Answer, answer: Answer, question: str) -> bool:
    """Whether the gold answer is a time of day and the answer may be meant as one."""
    of_day = gold.unit in ("am", "pm") or ASKS_FOR_A_TIME.search(question) is not None
    return of_day and CLOCK.fullmatch(gold.text) is not None and ":" in answer.text


def clock_time(answer: Answer) -> Answer:
    return replace(answer, text=CLOCK.sub(r"\1:\2", answer.text))
