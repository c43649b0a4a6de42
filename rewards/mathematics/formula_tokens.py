"""The tokens of LaTeX formulas, and what their commands mean to sympy."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any

sympy: Any = importlib.import_module("sympy")

TOKEN = re.compile(
    r"\s+|(?P<number>\d+)|(?P<command>\\[A-Za-z]+)|(?P<row>\\\\)|(?P<letter>[A-Za-z])"
    r"|(?P<sign>[-+*/^_(){}\[\]|!&,<>=])"
)
# Letters in a row are a product, but not where they spell one of these.
NAMES_IN_LETTERS = re.compile(
    r"sqrt|sin|cos|tan|cot|sec|csc|log|ln|exp|pi|inf|theta|alpha|beta|gamma|frac|mod|times|deg|abs"
    r"|max|min|gcd|lcm|cdot|text|root|or|and|not|none"
)
GREEK = frozenset((
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa",
    "lambda", "mu", "nu", "xi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega",
    "Gamma", "Delta", "Theta", "Lambda", "Xi", "Sigma", "Upsilon", "Phi", "Psi", "Omega", "Pi",
    "ell", "hbar",
))  # fmt: skip
SAME_LETTER = {"varphi": "phi", "varepsilon": "epsilon", "vartheta": "theta", "varrho": "rho"}
APPLIED = frozenset("fgh")
CLOSING = {"(": ")", "[": "]", "{": "}", "\\lfloor": "\\rfloor", "\\lceil": "\\rceil"}
TIMES = ("*", "\\cdot", "\\times", "\\ast")
OVER = ("/", "\\div")
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    **{name: getattr(sympy, name) for name in ("sin", "cos", "tan", "cot", "sec", "csc", "exp")},
    **{name: getattr(sympy, name) for name in ("sinh", "cosh", "tanh", "coth")},
    "ln": sympy.log,
    **{f"arc{name}": getattr(sympy, f"a{name}") for name in ("sin", "cos", "tan", "cot")},
}
OF_SEVERAL: dict[str, Callable[..., Any]] = {
    "max": sympy.Max,
    "min": sympy.Min,
    "gcd": lambda *values: sympy.igcd(*values),
    "lcm": lambda *values: sympy.ilcm(*values),
}
INVERSE = {"sin": sympy.asin, "cos": sympy.acos, "tan": sympy.atan, "cot": sympy.acot}
RELATIONS = {
    "=": "=", "<": "<", ">": ">", "\\lt": "<", "\\gt": ">", "\\le": "<=", "\\ge": ">=",
    "\\leq": "<=", "\\geq": ">=", "\\ne": "!=", "\\neq": "!=",
}  # fmt: skip
MATRICES = ("matrix", "pmatrix", "bmatrix", "smallmatrix")


class NotRead(ValueError):
    """A formula that is not understood; the message is the reason."""


def tokens_of(tex: str) -> list[str]:
    letters = re.sub(r"\\(?:begin|end) ?\{[a-z]+\}|\\[A-Za-z]+", " ", tex)
    for run in re.findall(r"[A-Za-z]{2,}", letters):
        named = NAMES_IN_LETTERS.search(run)
        if named is not None:
            raise NotRead(f"has the name {named[0]!r} among its letters")
    found: list[str] = []
    at = 0
    while at < len(tex):
        match = TOKEN.match(tex, at)
        if match is None:
            raise NotRead(f"has {tex[at]!r} in a formula")
        if match.lastgroup is not None:
            found.append(match[0])
        at = match.end()
    return found
