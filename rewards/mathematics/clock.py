"""Times of day, which look like ratios and are none: 12:30 is not 2:5."""

from __future__ import annotations

import re
from dataclasses import replace

from rewards.mathematics.structure import Answer

CLOCK = re.compile(r"0?(\d{1,2}) ?: ?(\d{2})")
HALVES = {"am", "pm"}
ASKS_FOR_A_TIME = re.compile(
    r"o'clock|\b[ap]\.? ?m\b|what time|\bclock\b|time of day", re.IGNORECASE
)


def is_clock_time(gold: Answer, answer: Answer, question: str) -> bool:
    """Whether the gold answer is a time of day and the answer may be meant as one."""
    of_day = {gold.unit, answer.unit} & HALVES or ASKS_FOR_A_TIME.search(question) is not None
    texts = (gold.text, answer.text)
    return (
        bool(of_day)
        and any(CLOCK.fullmatch(text) for text in texts)
        and all(
            CLOCK.fullmatch(side.text) or side.unit in HALVES or ":" in side.text
            for side in (gold, answer)
        )
    )


def clock_time(answer: Answer) -> Answer:
    """6 p.m. is 6:00 p.m."""
    text = f"{answer.text}:00" if re.fullmatch(r"\d{1,2}", answer.text) else answer.text
    return replace(answer, text=CLOCK.sub(r"\1:\2", text))
