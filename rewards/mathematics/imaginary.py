"""When the letter i is the imaginary unit, and when it is a variable like any other.

The letter i is the imaginary unit where no other variable stands beside it in either answer
(3 + 4i, i^2, e^{i\\pi}), where it is in the exponent of e (e^{i\\theta}), and where the question
speaks of complex or imaginary numbers. Anywhere else it is a variable: the interest rate in
P(1+i)^n, a unit vector in 3i + 2j. I is a variable.
"""

from __future__ import annotations

import importlib
import re
from typing import Any

SPEAKS_OF_COMPLEX = re.compile(
    r"\bcomplex[- ](?:number|plane|root|zero|solution|conjugate|coefficient|valued|constant)"
    r"|\bimaginary\b|\\mathbb ?\{? ?C\b|roots? of unity|\bi ?\^ ?\{? ?2 ?\}? ?= ?-1"
    r"|\\sqrt ?\{? ?-1",
    re.IGNORECASE,
)


def speaks_of_complex(question: str) -> bool:
    return SPEAKS_OF_COMPLEX.search(question) is not None


def with_imaginary_unit(gold: Any, answer: Any, *, complex_question: bool) -> tuple[Any, Any]:
    """Both of sympy's expressions with their i's decided, in the same way for both."""
    sympy: Any = importlib.import_module("sympy")
    sides = (gold, answer)
    letters = {str(symbol) for side in sides for symbol in _variables(side)}
    if "i" not in letters:
        return sides
    alone = letters == {"i"}
    euler = any(_in_exponent_of_e(side, sympy) for side in sides)
    if not (complex_question or alone or euler):
        return sides
    return _decided(gold, sympy), _decided(answer, sympy)


def _variables(side: Any) -> Any:
    return side.free_symbols if hasattr(side, "free_symbols") else ()


def _in_exponent_of_e(side: Any, sympy: Any) -> bool:
    powers = side.atoms(sympy.Pow, sympy.exp) if hasattr(side, "atoms") else ()
    return any(
        power.as_base_exp()[0] == sympy.E
        and any(str(symbol) == "i" for symbol in power.as_base_exp()[1].free_symbols)
        for power in powers
    )


def _decided(side: Any, sympy: Any) -> Any:
    return side.subs(sympy.Symbol("i"), sympy.I)
