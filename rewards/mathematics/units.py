"""Units in answers: taken off the number, brought to one spelling, compared.

A unit is an upright word or symbol after a number (`\\text{ cm}^2`, `miles per hour`, `\\%`, a
degree sign) or a currency sign before it. Nothing is converted: 1 hour is not 60 minutes.
"""

from __future__ import annotations

import re

PERCENT, DEGREE = "percent", "degree"
CURRENCIES = {"$": "dollar", "\u20ac": "euro", "\u00a3": "pound sterling", "\u00a5": "yen"}
FAMILIES: dict[str, tuple[str, ...]] = {
    "time": ("second", "minute", "hour", "day", "week", "month", "year", "decade", "century"),
    "length": ("millimeter", "centimeter", "meter", "kilometer", "inch", "foot", "yard", "mile"),
    "mass": ("milligram", "gram", "kilogram", "ton", "ounce", "pound"),
    "volume": ("milliliter", "liter", "cup", "pint", "quart", "gallon", "tablespoon", "teaspoon"),
    "money": ("cent", "dollar", "euro", "pound sterling", "yen"),
    "angle": (DEGREE, "radian"),
}
SPELLINGS = {
    "s": "second", "sec": "second", "min": "minute", "mins": "minute", "h": "hour", "hr": "hour",
    "hrs": "hour", "mm": "millimeter", "cm": "centimeter", "m": "meter", "km": "kilometer",
    "centimetre": "centimeter", "metre": "meter", "kilometre": "kilometer",
    "millimetre": "millimeter", "in": "inch", "inches": "inch", "ft": "foot", "feet": "foot",
    "yd": "yard", "mi": "mile", "mg": "milligram", "g": "gram", "kg": "kilogram", "lb": "pound",
    "lbs": "pound", "oz": "ounce", "l": "liter", "litre": "liter", "ml": "milliliter",
    "gal": "gallon", "centuries": "century", "buck": "dollar", "usd": "dollar", "pennies": "cent",
    "penny": "cent", "deg": DEGREE, "pct": PERCENT, "percentage": PERCENT, "sq": "square",
    "cu": "cubic",
}  # fmt: skip
WHOLE_SPELLINGS = {"mph": "mile per hour", "kph": "kilometer per hour", "kmh": "kilometer per hour"}
# After a number these change its value, or say that it is no answer.
NOT_UNITS = frozenset((
    "hundred", "hundreds", "thousand", "thousands", "million", "millions", "billion", "trillion",
    "dozen", "dozens", "half", "halves", "third", "thirds", "quarter", "quarters", "pair", "pairs",
    "couple", "k", "less", "more", "than", "not", "and", "or", "to", "from", "minus", "plus",
    "times", "over", "divided", "between", "but", "if", "is", "are", "was", "squared", "cubed",
    "mod", "modulo", "remainder", "base", "power", "no", "none", "sin", "cos", "tan", "log", "ln",
    "exp", "sqrt", "pi", "frac", "cdot", "left", "right",
))  # fmt: skip
WORDS = r"[A-Za-z][A-Za-z.'-]*(?:(?: |/| / )[A-Za-z][A-Za-z.'-]*){0,4}"
TRAILING = re.compile(
    rf"(?P<body>.*[\d}})\]!]) ?(?:\\text ?\{{ ?(?P<upright>{WORDS}) ?\.?\}}|(?P<plain>{WORDS})\.?)"
    r" ?(?:\^ ?\{? ?(?P<power>[23]) ?\}?)?"
)
PERCENT_END = re.compile(r"(?P<body>.*\S) ?\\?%")
DEGREE_END = re.compile(r"(?P<body>.*\S) ?\^ ?\\circ ?(?P<scale>[CF]?)")
CURRENCY_START = re.compile(
    r"(?P<sign>-?) ?\\?(?P<symbol>[$\u20ac\u00a3\u00a5]) ?(?P<body>[-\d.].*)"
)


def split_unit(text: str) -> tuple[str, str]:
    """(number, unit), both as text; the unit is '' where there is none. A clean answer goes in."""
    match = CURRENCY_START.fullmatch(text)
    if match is not None:
        body, more = split_unit(match["body"])
        unit = CURRENCIES[match["symbol"]]
        if more in ("", unit):
            return match["sign"] + body, unit
        return text, ""
    match = PERCENT_END.fullmatch(text)
    if match is not None:
        return match["body"], PERCENT
    match = DEGREE_END.fullmatch(text)
    if match is not None:
        return match["body"], f"{DEGREE} {match['scale']}".strip()
    match = TRAILING.fullmatch(text)
    if match is None:
        return text, ""
    words = match["upright"] or match["plain"]
    unit = canonical(words, match["power"])
    if unit is None or (match["upright"] is None and not _plain_unit(text, match)):
        return text, ""
    return match["body"], unit


def _plain_unit(text: str, match: re.Match[str]) -> bool:
    """Whether words without a font are a unit, and no product of variables: each one is a unit
    that is known, or, after a space, one that can be spoken."""
    words = [word.lower() for word in re.split(r"[ /.-]+", match["plain"]) if word]
    known = {name for names in FAMILIES.values() for name in names} | {"per", "square", "cubic"}
    spaced = text[match.start("plain") - 1] == " "
    return bool(words) and all(
        (len(word) > 1 and SPELLINGS.get(word, _singular(word)) in known)
        or word in WHOLE_SPELLINGS
        or (spaced and len(word) > 2 and re.search(r"[aeiouy]", word) is not None)
        for word in words
    )


def canonical(words: str, power: str | None = None) -> str | None:
    """One spelling of a unit, such as "centimeter^2"; None for words that are not a unit."""
    lowered = words.lower().replace(".", "").replace("/", " per ")
    parts = [word for word in re.split(r"[ -]+", lowered) if word]
    if any(part in NOT_UNITS for part in parts):
        return None
    parts = WHOLE_SPELLINGS.get(" ".join(parts), " ".join(parts)).split()
    singular = [SPELLINGS.get(part, _singular(part)) for part in parts]
    for prefix, value in (("square", "2"), ("cubic", "3")):
        if prefix in singular:
            singular.remove(prefix)
            power = value
    return " ".join(singular) + (f"^{power}" if power else "")


def _singular(word: str) -> str:
    if word in SPELLINGS:
        return SPELLINGS[word]
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        return SPELLINGS.get(word[:-1], word[:-1])
    return word


def unit_fault(gold: str, answer: str, question: str) -> str | None:
    """Why the answer's unit is not acceptable, or None. Percent is not judged here.

    The same unit, or none in the answer, is acceptable. Where the gold answer has none, so is every
    unit but one of a family (time, length, mass, volume, money, angle) of which the question's last
    sentence names only others: "how many minutes" is not answered in hours.
    """
    if answer in ("", gold):
        return None
    if gold:
        return f"the unit is {answer}, not {gold}"
    family = next((names for names in FAMILIES.values() if _base(answer) in names), None)
    if family is None:
        return None
    asked = {name for name in family if name in _units_named(_last_question(question))}
    if asked and _base(answer) not in asked:
        return f"the unit is {answer}, but the question asks for {' or '.join(sorted(asked))}"
    return None


def asks_for_percent(question: str) -> bool:
    return re.search(r"%|\bpercent", question, re.IGNORECASE) is not None


def _base(unit: str) -> str:
    return unit.partition("^")[0]


def _last_question(question: str) -> str:
    """The last sentence that ends in a question mark, else the last one."""
    sentences = re.split(r"(?<=[.?!])\s+", question.strip())
    asking = [sentence for sentence in sentences if sentence.endswith("?")]
    return (asking or sentences)[-1]


def _units_named(sentence: str) -> set[str]:
    words = re.findall(r"[A-Za-z]+", sentence.lower())
    names = {SPELLINGS.get(word, _singular(word)) for word in words if len(word) > 2}
    return names | {CURRENCIES[sign] for sign in CURRENCIES if sign in sentence}
