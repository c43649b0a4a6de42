"""LaTeX formulas as sympy's expressions, read strictly: what has two readings, or none, is refused.

Nothing is evaluated as a program and no words are left out. The rules:
- Factors side by side are a product: 2(3), (2)(3), 2[3], 3\\binom{4}{2}, 2\\sqrt{2}, 2^{3}(4). A
  mixed number is a whole number right before a proper fraction of two integers: 5\\frac{1}{2} is
  11/2, and 5\\frac{10}{2} is 25.
- Refused: two numbers side by side; an exponent of several digits without braces (2^10); a slash
  whose divisor goes on (1/2x); a function without brackets before a slash (\\sin x/2); powers of
  powers; a letter before a number (x2); words, and names of functions without a backslash.
- Without brackets a function takes the numbers, letters and powers that follow: \\sin 2x^2.
- f, g and h before brackets are functions; all other letters are factors. e is Euler's number; log
  without a base has the base 10; odd roots of negative numbers are negative.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rewards.mathematics.formula_tokens import (
    APPLIED,
    CLOSING,
    FUNCTIONS,
    GREEK,
    INVERSE,
    MATRICES,
    OF_SEVERAL,
    OVER,
    RELATIONS,
    SAME_LETTER,
    TIMES,
    NotRead,
    tokens_of,
)

sympy: Any = importlib.import_module("sympy")

MAX_DEPTH = 60


@dataclass(frozen=True, kw_only=True)
class Formula:
    """`names` are the letters that the text holds, also where they cancel."""

    value: Any
    names: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Relation:
    """One sign of relation and the values beside it; `sign` is =, !=, <, <=, > or >=."""

    left: Any
    sign: str
    right: Any


@dataclass(frozen=True, kw_only=True)
class Relations:
    """a < b < c is two relations, which both hold."""

    parts: tuple[Relation, ...]
    names: frozenset[str]


def read_formula(tex: str) -> Formula:
    """Raises `NotRead`."""
    reader = _Reader.of(tex)
    value = reader.sum()
    reader.expect_end()
    parts = list(value) if getattr(value, "is_Matrix", False) else [value]
    for part in parts:
        if part.has(sympy.nan, sympy.zoo):
            raise NotRead("is undefined")
    return Formula(value=value, names=frozenset(reader.names))


def read_relations(tex: str) -> Relations:
    """A chain of relations. Raises `NotRead`."""
    reader = _Reader.of(tex)
    sides, signs = [reader.sum()], list[str]()
    while reader.peek() in RELATIONS:
        signs.append(RELATIONS[reader.take()])
        sides.append(reader.sum())
    reader.expect_end()
    if not signs:
        raise NotRead("is no relation")
    if any(getattr(side, "is_Matrix", False) for side in sides):
        raise NotRead("relates matrices")
    parts = tuple(
        Relation(left=left, sign=sign, right=right)
        for left, sign, right in zip(sides, signs, sides[1:], strict=False)
        if not (sign in ("<", "<=") and (left == -sympy.oo or right == sympy.oo))
    )
    for part in parts:
        if any(side.has(sympy.nan, sympy.zoo, sympy.oo) for side in (part.left, part.right)):
            raise NotRead("relates what is undefined")
    if not parts:
        raise NotRead("says nothing")
    return Relations(parts=parts, names=frozenset(reader.names))


@dataclass(kw_only=True)
class _Reader:
    tokens: list[str]
    at: int = 0
    depth: int = 0
    bars: bool = False
    """Whether a bar would close."""
    open_function: bool = False
    """Whether the last factor is a function without brackets, whose end is not marked."""
    names: set[str] = field(default_factory=set[str])

    @staticmethod
    def of(tex: str) -> _Reader:
        return _Reader(tokens=[*tokens_of(tex), ""])

    def peek(self) -> str:
        return self.tokens[self.at]

    def take(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1]

    def expect(self, token: str) -> None:
        if self.peek() != token:
            raise NotRead(f"has {self.peek() or 'its end'!r} where {token!r} must stand")
        self.at += 1

    def expect_end(self) -> None:
        if self.peek():
            raise NotRead(f"has {self.peek()!r} in a place where it is not read")

    def sum(self) -> Any:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NotRead("is nested too deeply")
        value = self.signed_product()
        while self.peek() in ("+", "-"):
            negative = self.take() == "-"
            following = self.signed_product()
            value = value - following if negative else value + following
        self.depth -= 1
        return value

    def signed_product(self) -> Any:
        if self.peek() in ("+", "-"):
            return -self.product() if self.take() == "-" else self.product()
        return self.product()

    def product(self) -> Any:
        value = self.run()
        while self.peek() in TIMES or self.peek() in OVER:
            if self.take() in TIMES:
                negative = self.peek() == "-" and bool(self.take())
                value = value * self.run() * (-1 if negative else 1)
                continue
            if self.open_function:
                raise NotRead("has a function without brackets before a slash")
            value = _divided(value, self.factor())
            if self.starts_factor():
                raise NotRead("has a slash whose divisor may go on")
        return value

    def run(self) -> Any:
        """Factors side by side."""
        self.open_function = False
        bare = self.peek() == "{"
        mixed = self.mixed_number()
        value = self.factor() if mixed is None else mixed
        while self.starts_factor():
            before = self.tokens[self.at - 1]
            apart = before in (")", "]", "}", "!", "|", "\\rfloor", "\\rceil") and not bare
            if self.peek().isdigit() and not apart:
                raise NotRead(f"has {self.peek()!r} right behind {before!r}")
            if self.peek() == "{" and (bare or before.isdigit()):
                raise NotRead("has braces that hide where a number ends")
            bare = self.peek() == "{"
            value = value * self.factor()
        return value

    def mixed_number(self) -> Any | None:
        """A whole number right before a proper fraction of two integers."""
        words = self.tokens[self.at : self.at + 9]
        if len(words) < 9 or not words[0].isdigit() or words[1] != "\\frac":
            return None
        braces = words[2], words[4], words[5], words[7]
        if braces != ("{", "}", "{", "}") or not (words[3] + words[6]).isdigit():
            return None
        over, under = int(words[3]), int(words[6])
        if not 0 < over < under:
            return None
        if words[8] in ("^", "!"):
            raise NotRead("has a power of what may be a mixed number")
        self.at += 8
        return int(words[0]) + sympy.Rational(over, under)

    def starts_factor(self) -> bool:
        token = self.peek()
        if token in CLOSING:
            return True
        if token == "|":
            return not self.bars
        if token.startswith("\\"):
            return token[1:] in _COMMANDS or token[1:] in GREEK or token[1:] in SAME_LETTER
        return token.isalnum()

    def factor(self) -> Any:
        start = self.peek()
        value = self.base()
        # f^{-1}(x), and f(x)^2, which is read as a power of the value
        if start in APPLIED and self.peek() == "^" and not value.args:
            value = self.power(value)
            if self.peek() == "(":
                raise NotRead("has a power of a function's name")
            return value
        before = ""
        while self.peek() in ("!", "^"):
            if self.peek() == before:
                raise NotRead("has a power of a power, or a factorial of one, without brackets")
            before = self.peek()
            if before == "^":
                value = self.power(value)
            else:
                self.take()
                value = sympy.factorial(value)
        return value

    def base(self) -> Any:
        token = self.take()
        if token.isdigit():
            return sympy.Integer(token)
        if token.isalpha():
            return self.letter(token)
        if token in CLOSING:
            return self.group(token)
        if token == "|":
            return self.magnitude()
        if token.startswith("\\"):
            name = SAME_LETTER.get(token[1:], token[1:])
            if name in GREEK:
                return self.letter(name)
            if name in _COMMANDS:
                return _COMMANDS[name](self, name)
        raise NotRead(f"has {token or 'its end'!r} where a value must stand")

    def letter(self, name: str) -> Any:
        if name == "e" and self.peek() != "_":
            return sympy.E
        if self.peek() == "_":
            self.take()
            name = f"{name}_{self.subscript()}"
        self.names.add(name)
        if name in APPLIED and self.peek() == "(":
            self.take()
            return sympy.Function(name)(*self.arguments(")"))
        return sympy.Symbol(name)

    def subscript(self) -> str:
        token = self.take()
        if token != "{":
            if token.isdigit() and len(token) > 1:
                raise NotRead("has an index of several digits without braces")
            if not token.isalnum() and token[1:] not in GREEK:
                raise NotRead(f"has the index {token!r}")
            return token
        parts: list[str] = []
        while self.peek() != "}":
            part = self.take()
            if not (part.isalnum() or part in ("+", "-", ",") or part[1:] in GREEK):
                raise NotRead(f"has {part or 'its end'!r} in an index")
            parts.append(part)
        self.take()
        return "".join(parts)

    def group(self, opening: str) -> Any:
        (value,) = self.arguments(CLOSING[opening], most=1)
        if opening == "\\lfloor":
            return sympy.floor(value)
        return sympy.ceiling(value) if opening == "\\lceil" else value

    def arguments(self, closing: str, most: int = 8) -> list[Any]:
        """Values with commas between them, up to the closing bracket."""
        outside, self.bars = self.bars, False
        values = [self.sum()]
        while self.peek() == "," and len(values) < most:
            self.take()
            values.append(self.sum())
        self.expect(closing)
        self.bars, self.open_function = outside, False
        return values

    def braced(self) -> Any:
        """What braces hold, or a single digit, letter or constant in their place."""
        token = self.peek()
        if token != "{" and ((len(token) == 1 and token.isalnum()) or token[1:] in ("pi", *GREEK)):
            return self.base()
        self.expect("{")
        return self.group("{")

    def magnitude(self) -> Any:
        outside, self.bars = self.bars, True
        value = self.sum()
        self.expect("|")
        self.bars, self.open_function = outside, False
        if getattr(value, "is_Matrix", False):
            raise NotRead("has bars around a matrix")
        return sympy.Abs(value)

    def power(self, base: Any) -> Any:
        self.expect("^")
        if self.peek() in ("T", "\\top", "\\intercal"):
            return self.transposed(base)
        exponent = self.exponent()
        if getattr(base, "is_Matrix", False) and not (
            exponent.is_Integer and abs(exponent) <= 64 and base.is_square
        ):
            raise NotRead("has a power of a matrix that is not read")
        return _to_the_power(base, exponent)

    def transposed(self, base: Any) -> Any:
        if not getattr(base, "is_Matrix", False):
            raise NotRead("has '^T' in a formula, which is not read")
        self.take()
        return base.T

    def exponent(self) -> Any:
        token = self.peek()
        if token == "{":
            if self.tokens[self.at + 1 : self.at + 3] in (["T", "}"], ["\\top", "}"]):
                raise NotRead("has '^T' in a formula, which is not read")
            return self.braced()
        if token == "-":
            self.take()
            return sympy.Integer(-1) * self.exponent()
        if token.isdigit() and len(token) > 1:
            raise NotRead(f"has the exponent {token} without braces")
        if token == "(":
            self.take()
            return self.group("(")
        if token.isalnum() or token[1:] in GREEK or token in ("\\frac", "\\pi", "\\sqrt"):
            return self.base()
        raise NotRead(f"has the exponent {token!r}")

    def function_argument(self) -> Any:
        """Numbers, letters and powers side by side, a fraction, a root, or what brackets hold."""
        if self.peek() in ("(", "["):
            value = self.group(self.take())
            if self.peek() in ("^", "!"):
                raise NotRead("has a power of a function's brackets")
            return value
        simple = self.peek().isalnum() or self.peek()[1:] in GREEK or self.peek() == "\\pi"
        if not simple and self.peek() not in ("\\frac", "\\sqrt", "{", "|"):
            raise NotRead(f"has a function of {self.peek() or 'nothing'!r}")
        if self.peek().isdigit() and self.tokens[self.at + 1] == "\\frac":
            raise NotRead("has a function whose argument may go on")
        value = self.factor()
        while simple and (
            self.peek().isalpha() or self.peek()[1:] in GREEK or self.peek() == "\\pi"
        ):
            value = value * self.factor()
        if self.starts_factor() and self.peek()[1:] not in (*FUNCTIONS, "log"):
            raise NotRead("has a function whose argument may go on")
        self.open_function = True
        return value

    def function(self, name: str) -> Any:
        call = FUNCTIONS[name]
        exponent: Any = None
        if self.peek() == "^":
            self.take()
            exponent = self.exponent()
        value = self.function_argument()
        if exponent is None:
            return call(value)
        if name in INVERSE and exponent == sympy.Integer(-1):
            return INVERSE[name](value)
        if not (exponent.is_Integer and exponent.is_positive):
            raise NotRead("has a power of a function's name")
        return call(value) ** exponent

    def logarithm(self, name: str) -> Any:
        del name
        base: Any = sympy.Integer(10)
        if self.peek() == "_":
            self.take()
            base = self.exponent()
        exponent: Any = None
        if self.peek() == "^":
            self.take()
            exponent = self.exponent()
        value = sympy.log(self.function_argument(), base)
        return value if exponent is None else value**exponent

    def of_several(self, name: str) -> Any:
        self.expect("(")
        values = self.arguments(")")
        if name in ("gcd", "lcm") and not all(value.is_Integer for value in values):
            raise NotRead(f"has {name} of what is no integer")
        return sympy.sympify(OF_SEVERAL[name](*values))

    def fraction(self, name: str) -> Any:
        del name
        over = self.braced()
        return _divided(over, self.braced())

    def root(self, name: str) -> Any:
        del name
        index: Any = sympy.Integer(2)
        if self.peek() == "[":
            self.take()
            index = self.group("[")
        return _to_the_power(self.braced(), 1 / index)

    def choose(self, name: str) -> Any:
        del name
        over = self.braced()
        return sympy.binomial(over, self.braced())

    def constant(self, name: str) -> Any:
        if name == "pi":
            return sympy.pi
        ends = ("", *RELATIONS)
        before = ["", *self.tokens[: self.at - 1]]
        signed = before[-1] in ("+", "-") and before[-2] in ends
        if not (before[-1] in ends or signed) or self.peek() not in ends:
            raise NotRead("calculates with infinity")
        return sympy.oo

    def accented(self, name: str) -> Any:
        """\\vec{v}, \\overline{AB}: letters of their own."""
        self.expect("{")
        letters: list[str] = []
        while self.peek().isalpha() or self.peek()[1:] in GREEK:
            letters.append(self.take())
        self.expect("}")
        symbol = f"{name}({''.join(letters)})"
        if not letters:
            raise NotRead(f"has \\{name} of no letters")
        self.names.add(symbol)
        return sympy.Symbol(symbol)

    def matrix(self, name: str) -> Any:
        del name
        kind = self.environment()
        if kind not in MATRICES:
            raise NotRead(f"has the environment {kind!r}")
        outside, self.bars = self.bars, False
        rows = [[self.sum()]]
        while self.peek() != "\\end":
            token = self.take()
            if token == "&":
                rows[-1].append(self.sum())
            elif token == "\\\\":
                if self.peek() != "\\end":
                    rows.append([self.sum()])
            else:
                raise NotRead(f"has {token or 'its end'!r} in a matrix")
        self.take()
        if self.environment() != kind or len({len(row) for row in rows}) != 1:
            raise NotRead("has a matrix that is not read")
        self.bars = outside
        return sympy.Matrix(rows)

    def environment(self) -> str:
        self.expect("{")
        letters: list[str] = []
        while self.peek().isalpha():
            letters.append(self.take())
        self.expect("}")
        return "".join(letters)


_COMMANDS: dict[str, Callable[[_Reader, str], Any]] = {
    **dict.fromkeys(FUNCTIONS, _Reader.function),
    **dict.fromkeys(OF_SEVERAL, _Reader.of_several),
    "log": _Reader.logarithm,
    "frac": _Reader.fraction,
    "sqrt": _Reader.root,
    "binom": _Reader.choose,
    "pi": _Reader.constant,
    "infty": _Reader.constant,
    "begin": _Reader.matrix,
    **dict.fromkeys(
        ("overline", "vec", "hat", "bar", "tilde", "mathbb", "mathcal", "overrightarrow"),
        _Reader.accented,
    ),
    **{opening[1:]: lambda reader, name: reader.group(f"\\{name}") for opening in CLOSING
       if opening.startswith("\\")},
}  # fmt: skip


def _divided(over: Any, under: Any) -> Any:
    if getattr(under, "is_Matrix", False):
        raise NotRead("divides by a matrix")
    if under == 0:
        raise NotRead("divides by zero")
    return over / under


def _to_the_power(base: Any, exponent: Any) -> Any:
    """Real roots: the third root of -8 is -2."""
    odd = exponent.is_Rational and exponent.q > 1 and exponent.q % 2 == 1
    if not odd or base.is_nonnegative or base.has(sympy.I):
        return base**exponent
    if base.is_negative:
        return (-1) ** int(exponent.p) * (-base) ** exponent
    return sympy.sign(base) ** int(exponent.p) * sympy.Abs(base) ** exponent
