"""The process that runs computer algebra: `python -m rewards.mathematics.worker`.

One JSON line in, `{"relation": bool, "complex": bool, "gold": tex, "answer": tex}`, one out:
`{"equal": bool}` or `{"unparsed": "gold" or "answer"}` or `{"failed": reason}`. Text is parsed by
math-verify's grammar for LaTeX, never by its reader of plain expressions, which goes through
Python's `eval`. Limits and deadlines are the caller's; the process only sees to it that it cannot
outlive its caller for long.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

from rewards.mathematics.imaginary import with_imaginary_unit, with_variable_capital

MEMORY_BYTES = 3 << 30
# Digits of numeric comparison, after exact numbers that differ have been told apart.
PRECISION = 50


@lru_cache(maxsize=1)
def library() -> Any:
    """math-verify, which has no type stubs; its parser keeps the case of letters here."""
    parser: Any = importlib.import_module("math_verify.parser")
    latex: Any = importlib.import_module("latex2sympy2_extended.latex2sympy2")
    parser.latex2sympy = partial(
        latex.latex2sympy, conversion_config=latex.ConversionConfig(lowercase_symbols=False)
    )
    return importlib.import_module("math_verify")


@lru_cache(maxsize=1)
def extraction() -> Any:
    """How text is normalized: nothing that looks like a unit is left out."""
    default = library().LatexExtractionConfig(boxed_match_priority=-1)
    return replace(default, normalization_config=replace(default.normalization_config, units=False))


@lru_cache(maxsize=4096)
def parsed(tex: str) -> Any:
    """math-verify's reading, or None."""
    found: list[Any] = library().parse(
        f"${with_variable_capital(tex)}$",
        extraction_config=[extraction()],
        fallback_mode="no_fallback",
        parsing_timeout=None,
    )
    return found[0] if found else None


def compare(
    gold: str, answer: str, *, relation: bool, complex_question: bool = False
) -> dict[str, Any]:
    sides = {"gold": parsed(gold), "answer": parsed(answer)}
    for side, value in sides.items():
        if value is None:
            return {"unparsed": side}
    sides["gold"], sides["answer"] = with_imaginary_unit(
        sides["gold"], sides["answer"], complex_question=complex_question
    )
    if relation and all(value.__class__.__name__ == "Equality" for value in sides.values()):
        return {"equal": same_equation(sides["gold"], sides["answer"])}
    if distinct_numbers(sides["gold"], sides["answer"]):
        return {"equal": False}
    equal = library().verify(
        sides["gold"],
        sides["answer"],
        float_rounding=15,
        numeric_precision=PRECISION,
        allow_set_relation_comp=relation,
        timeout_seconds=None,
        raise_on_error=True,
    )
    return {"equal": bool(equal)}


def same_equation(gold: Any, answer: Any) -> bool:
    """Whether one is the other times a number. (math-verify also compares what the equations are
    solved by, and takes two that have no solution for the same.)"""
    sympy: Any = importlib.import_module("sympy")
    ratio = sympy.simplify((gold.lhs - gold.rhs) / (answer.lhs - answer.rhs))
    return bool(ratio.is_number and ratio.is_finite and not ratio.is_zero)


def distinct_numbers(gold: Any, answer: Any) -> bool:
    """Whether the two are exact numbers that are proved different, however small they are.
    (math-verify takes a small enough difference for none.)"""
    sympy: Any = importlib.import_module("sympy")
    sides = (gold, answer)
    if not all(isinstance(side, sympy.Expr) and side.is_number for side in sides):
        return False
    if any(side.has(sympy.Float, sympy.nan, sympy.zoo, sympy.oo, -sympy.oo) for side in sides):
        return False
    difference = (gold - answer).evalf(20, maxn=1000)
    parts = difference.as_real_imag()
    if not all(part.is_Float or part.is_Integer for part in parts):
        return False
    # A precision of 1 says that no digit could be found: it may well be zero.
    return any(part != 0 and getattr(part, "_prec", 53) > 1 for part in parts)


def answer_line(line: str) -> dict[str, Any]:
    request = json.loads(line)
    try:
        return compare(
            request["gold"],
            request["answer"],
            relation=request["relation"],
            complex_question=request["complex"],
        )
    except MemoryError:
        return {"failed": "ran out of memory"}
    except RecursionError:
        return {"failed": "is nested too deeply"}
    except Exception as error:  # whatever the library makes of hostile text
        return {"failed": f"cannot be compared ({type(error).__name__})"}


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # Nothing that a library prints may get into the replies.
    silence = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(silence, number)
    library()
    alarm_seconds = float(sys.argv[1])
    print(json.dumps({"ready": True}), file=replies, flush=True)
    for line in requests:
        # A caller that died cannot kill this process; the alarm's default action does.
        signal.setitimer(signal.ITIMER_REAL, alarm_seconds)
        reply = answer_line(line)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
