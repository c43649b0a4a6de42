"""The process that runs computer algebra: `python -m rewards.mathematics.worker`.

One JSON line in, `{"gold": side, "answer": side, "relation": bool, "complex": bool}`, one out:
`{"equal": bool}`, `{"unparsed": "gold" or "answer", "reason": text}` or `{"failed": reason}`. A
side is a formula's TeX; a relation's TeX where `relation` is true, or a list of the pieces of a
set: `["(", left, right, "]"]`, `["{", value, ...]`, or relations joined by "or" or "and":
`{"any" or "all": [TeX, ...]}`. Text is read by `rewards.mathematics.formulas`
alone, never by what goes through Python's `eval`. Limits and deadlines are the caller's; the
process only sees to it that it cannot outlive its caller for long.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, cast

from rewards.line_worker import answer_lines
from rewards.mathematics.equality import Joined, same_relations, same_solutions, same_value
from rewards.mathematics.formula_tokens import NotRead
from rewards.mathematics.formulas import Formula, Relations, read_formula, read_relations
from rewards.mathematics.imaginary import with_imaginary_unit

MEMORY_BYTES = 3 << 30
Pieces = list[list[Any]]


class _Unparsed(Exception):
    """Arguments: the side, and the reason."""


@lru_cache(maxsize=4096)
def formula(tex: str) -> Formula:
    return read_formula(tex)


def _side(name: str, side: Any, *, relation: bool) -> Formula | Relations | Pieces | Joined:
    try:
        if isinstance(side, dict):
            ((word, parts),) = cast("dict[str, list[str]]", side).items()
            return Joined(any_of=word == "any", relations=tuple(map(read_relations, parts)))
        if isinstance(side, list):
            pieces = cast("list[list[str]]", side)
            return [
                [part if part in "()[]{}" else formula(part).value for part in piece]
                for piece in pieces
            ]
        return read_relations(side) if relation else formula(side)
    except NotRead as error:
        raise _Unparsed(name, str(error)) from error


def compare(gold: Any, answer: Any, *, relation: bool, complex_question: bool = False) -> bool:
    """Raises `NotRead` where it cannot be told."""
    ours = _side("gold", gold, relation=relation)
    theirs = _side("answer", answer, relation=relation)
    if isinstance(ours, Formula) and isinstance(theirs, Formula):
        return same_value(
            *with_imaginary_unit(ours.value, theirs.value, complex_question=complex_question)
        )
    if isinstance(ours, Relations) and isinstance(theirs, Relations):
        return same_relations(ours, theirs)
    assert not isinstance(ours, Formula) and not isinstance(theirs, Formula)
    return same_solutions(ours, theirs)


def answer_line(line: str) -> dict[str, Any]:
    request = json.loads(line)
    try:
        return {
            "equal": compare(
                request["gold"],
                request["answer"],
                relation=request["relation"],
                complex_question=request["complex"],
            )
        }
    except _Unparsed as error:
        side, reason = error.args
        return {"unparsed": side, "reason": reason}
    except NotRead as error:
        return {"failed": str(error)}
    except MemoryError:
        return {"failed": "ran out of memory"}
    except RecursionError:
        return {"failed": "is nested too deeply"}
    except Exception as error:  # whatever the library makes of hostile text
        return {"failed": f"cannot be compared ({type(error).__name__})"}


if __name__ == "__main__":
    answer_lines(answer_line, MEMORY_BYTES)
