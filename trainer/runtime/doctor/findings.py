"""What one check of the installation found, and how a terminal shows it.

The checks use only the standard library, so that they also run where torch, or this project, is not
installed yet.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """What a finding means for the user."""

    OK = "ok"
    LIMITED = "limited"  # the rest works; the line says what does not
    MISSING = "missing"  # something that is needed


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check. `mend` says what to do; it is empty where nothing is to be done."""

    name: str
    state: State
    found: str
    mend: str = ""

    def __post_init__(self) -> None:
        assert (self.state is State.OK) <= (self.mend == ""), "what is ok needs no mending"
        assert self.state is State.OK or self.mend, "a finding says what to do"


def ok(name: str, found: str) -> Finding:
    return Finding(name=name, state=State.OK, found=found)


def limited(name: str, found: str, mend: str) -> Finding:
    return Finding(name=name, state=State.LIMITED, found=found, mend=mend)


def missing(name: str, found: str, mend: str) -> Finding:
    return Finding(name=name, state=State.MISSING, found=found, mend=mend)


def as_text(findings: Sequence[Finding]) -> str:
    """One line per finding, the mend below it, and last a line that counts them."""
    width = max(len(finding.name) for finding in findings)
    lines: list[str] = []
    for finding in findings:
        lines.append(f"{finding.state.value:<8} {finding.name:<{width}}  {finding.found}")
        if finding.mend:
            lines.append(f"{'':<8} {'':<{width}}  -> {finding.mend}")
    counts = {state: sum(f.state is state for f in findings) for state in State}
    lines.append(
        f"\n{counts[State.OK]} ok, {counts[State.LIMITED]} limited, {counts[State.MISSING]} missing"
    )
    return "\n".join(lines)


def exit_status(findings: Sequence[Finding]) -> int:
    """1 if something that is needed is missing, else 0."""
    return int(any(finding.state is State.MISSING for finding in findings))


def run_quietly(
    words: Sequence[str], seconds: float, *, environment: Mapping[str, str], given: str = ""
) -> tuple[int, str, str]:
    """(exit status, output, errors) of a program. A program that does not start, or does not end
    within `seconds`, has the status -1, and `errors` says why."""
    try:
        done = subprocess.run(
            list(words),
            input=given,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            env=dict(environment),
        )
    except subprocess.TimeoutExpired:
        return -1, "", f"{words[0]} did not end within {seconds:g} s"
    except OSError as error:
        return -1, "", f"{words[0]} did not start: {error}"
    return done.returncode, done.stdout, done.stderr


def last_line(text: str) -> str:
    """The last line that is not blank, cut to 300 characters."""
    return ([line.strip() for line in text.splitlines() if line.strip()] or ["no message"])[-1][
        :300
    ]
