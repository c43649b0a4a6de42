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
WHOLE_SPELLINGS = {
    "mph": "mile per hour", "kph": "kilometer per hour", "kmh": "kilometer per hour",
    "per cent": PERCENT,
}  # fmt: skip
# Symbols whose case matters. K and M are thousands and millions as well, so they are not here.
SYMBOLS = {
    "N": "newton", "J": "joule", "W": "watt", "V": "volt", "A": "ampere", "Hz": "hertz",
    "kHz": "kilohertz", "MHz": "megahertz", "kJ": "kilojoule", "kW": "kilowatt", "Pa": "pascal",
    "kPa": "kilopascal",
}  # fmt: skip
# Upright letters that are units after a number; every other one is a variable, or i, or e.
LETTER_UNITS = frozenset("smhglLNJWVA")
# Short spellings are small: M is a million, not a meter.
CAPITALS = frozenset(
    ("L", "mL", "C", "F", "USD", "MPH", "AM", "PM", "Ft", "In", "Cm", "Km", "Kg", *SYMBOLS)
)
OTHER_UNITS = frozenset((
    "per", "percent", "unit", "celsius", "fahrenheit", "kelvin", "c", "f", "C", "F", "acre",
    "hectare", "calorie", "watt", "kilowatt", "volt", "ampere", "newton", "joule", "hertz", "byte",
    "bit", "knot", "st", "nd", "rd", "th", "am", "pm", "fluid", "nautical", "light",
    *SYMBOLS.values(),
))  # fmt: skip
# What answers most often count. Other nouns must be in the question.
COUNTED = frozenset((
    "apple", "orange", "banana", "egg", "cookie", "candy", "candies", "cake", "pizza", "slice",
    "people", "person", "student", "teacher", "child", "children", "kid", "boy", "girl", "man",
    "men", "woman", "women", "friend", "player", "team", "page", "book", "boxe", "bag", "bottle",
    "ball", "marble", "card", "coin", "ticket", "toy", "car", "bus", "tree", "flower", "bird",
    "fish", "dog", "cat", "animal", "piece", "item", "point", "way", "solution", "integer",
    "number", "value", "digit", "term", "outcome", "arrangement", "permutation", "combination",
    "triangle", "face", "edge", "side", "vertice", "vertex", "subset", "path", "pen", "pencil",
    "shirt", "house", "room", "game", "trip", "step", "mark",
))  # fmt: skip
# After a number these change its value, or say that it is no answer.
NOT_UNITS = frozenset((
    "hundred", "hundreds", "thousand", "thousands", "million", "millions", "billion", "trillion",
    "dozen", "dozens", "half", "halves", "third", "thirds", "quarter", "quarters", "pair", "pairs",
    "couple", "k", "less", "more", "than", "not", "and", "or", "to", "from", "minus", "plus",
    "times", "over", "divided", "between", "but", "if", "is", "are", "was", "squared", "cubed",
    "mod", "modulo", "remainder", "base", "power", "no", "none", "sin", "cos", "tan", "log", "ln",
    "exp", "sqrt", "pi", "frac", "cdot", "left", "right", "fourth", "fourths", "fifth", "fifths",
    "sixth", "sixths", "seventh", "sevenths", "eighth", "eighths", "ninth", "ninths", "tenth",
    "tenths", "hundredth", "hundredths", "thousandth", "thousandths", "millionth", "millionths",
    "ten", "tens", "score", "gross", "lakh", "crore", "mil", "factorial", "fewer", "below", "above",
    "under", "zero", "negative", "positive", "double", "doubled", "triple", "tripled", "halved",
    "twice", "thrice", "wrong", "incorrect", "false", "choose", "permute",
    "inverse", "reciprocal", "opposite", "short", "except", "without", "excluding", "about",
    "approximately", "almost", "nearly", "roughly", "at", "least", "most", "never", "infinity",
    "trillions", "bn", "mn",
))  # fmt: skip
ASKED_POWER = r"(?i)(?:how many|number of|in) (square|sq|cubic|cu)\.? "
WORDS = r"[A-Za-z][A-Za-z.'-]*(?:(?: |/| / )[A-Za-z][A-Za-z.'-]*){0,4}"
TRAILING = re.compile(
    rf"(?P<body>.*(?:[\d}})\]!]|\\pi(?= )|[A-Za-z](?= ?\\text))) ?"
    rf"(?:\\text ?\{{ ?(?P<upright>{WORDS}) ?\.?\}}|(?P<plain>{WORDS})\.?)"
    r" ?(?:\^ ?\{? ?(?P<power>[23]) ?\}?)?"
)
PERCENT_END = re.compile(r"(?P<body>.*\S) ?\\?%")
DEGREE_END = re.compile(r"(?P<body>.*\S) ?\^ ?\\circ ?(?P<scale>[CF]?)")
DEGREE_SUM = re.compile(r"\d+(?:\.\d+)? ?\^ ?\\circ(?: ?[-+] ?\d+(?:\.\d+)? ?\^ ?\\circ)+")
# With one of these before it, a degree sign belongs to a part of the expression.
IN_DEGREES = re.compile(r"\\circ|\\(?:arc)?(?:sin|cos|tan|cot|sec|csc|log|ln|exp)h?(?![A-Za-z])")
SUM = re.compile(r"(?<=[\w})\]]) ?[-+]|\\(?:pm|mp)(?![A-Za-z])")
UPRIGHT_LETTER = re.compile(r"\\text ?\{ ?([A-Za-z]) ?\}")
CURRENCY_START = re.compile(
    r"(?P<sign>-?) ?\\?(?P<symbol>[$\u20ac\u00a3\u00a5]) ?(?P<body>[-\d.].*)"
)

CURRENCY_END = re.compile(r"(?P<body>-?[\d.]+) ?\\?(?P<symbol>[$\u20ac\u00a3\u00a5])")


def split_unit(text: str) -> tuple[str, str]:
    """(number, unit), both as text; the unit is '' where there is none. A clean answer goes in."""
    text = re.sub(r"(?<=\d) ?([ap])\. ?m\.?$", r" \1m", text)
    match = CURRENCY_START.fullmatch(text)
    if match is not None:
        body, more = split_unit(match["body"])
        unit = CURRENCIES[match["symbol"]]
        if more in ("", unit):
            return match["sign"] + body, unit
        return text, ""
    match = CURRENCY_END.fullmatch(text)
    if match is not None:
        return match["body"].strip(), CURRENCIES[match["symbol"]]
    match = PERCENT_END.fullmatch(text)
    if match is not None and not _is_sum(match["body"]):
        return match["body"], PERCENT
    if DEGREE_SUM.fullmatch(text):
        return re.sub(r" ?\^ ?\\circ ?", "", text), DEGREE
    match = DEGREE_END.fullmatch(text)
    if match is not None and not (
        _is_sum(match["body"])
        or IN_DEGREES.search(match["body"])
        or not re.search(r"\d|\)", match["body"])  # a letter with a ring
    ):
        return match["body"], f"{DEGREE} {match['scale']}".strip()
    match = TRAILING.fullmatch(text)
    if match is None:
        return text, ""
    words = match["upright"] or match["plain"]
    if any(
        len(word) < 4 and word not in CAPITALS and word != word.lower()
        for word in re.split(r"[ /.-]+", words)
    ):
        return text, ""
    unit = canonical(words, match["power"])
    if unit is None or (match["upright"] is None and not _plain_unit(text, match)):
        return text, ""
    return match["body"], unit


def letter_taken_off(number: str, unit: str) -> str | None:
    """What is left of a number that ends in the letter of that unit (5N is 5 newtons beside
    something in newtons); None where it does not, or the unit is not one letter."""
    letter = next((short for short, name in SYMBOLS.items() if name == unit), None)
    match = re.fullmatch(rf"(.*[\d}})\]]) ?{letter}", number) if letter else None
    return match[1] if match else None


def _is_sum(text: str) -> bool:
    """Whether a sign at the end would be the last term's."""
    for _ in range(4):
        text = re.sub(r"\([^()]*\)|\{[^{}]*\}|\[[^\[\]]*\]", "0", text)
    return SUM.search(text) is not None


def with_plain_letters(text: str) -> str:
    """Upright single letters as variables, but for the letter of a unit at the end of a number."""

    def plain(match: re.Match[str]) -> str:
        before, after = text[: match.start()], text[match.end() :]
        if (
            match[1] in LETTER_UNITS
            and re.search(r"(?:[\d})\]]|\\pi) ?$", before)
            and not re.search(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", before))
            and re.fullmatch(r" ?(?:\^ ?\{? ?[23] ?\}?)?", after)
        ):
            return match[0]
        return f" {match[1]} " if before or after else match[0]

    return UPRIGHT_LETTER.sub(plain, text).strip()


def _plain_unit(text: str, match: re.Match[str]) -> bool:
    """Whether words without a font are a unit, and no product of variables: each one is a unit
    that is known, or, after a space, one that can be spoken."""
    words = [word.lower() for word in re.split(r"[ /.-]+", match["plain"]) if word]
    known = {name for names in FAMILIES.values() for name in names} | {"per", "square", "cubic"}
    known |= {"am", "pm", PERCENT}
    spaced = text[match.start("plain") - 1] == " "
    return bool(words) and all(
        (len(word) > 1 and SPELLINGS.get(word, _singular(word)) in known)
        or word in WHOLE_SPELLINGS
        or (spaced and len(word) > 2 and re.search(r"[aeiouy]", word) is not None)
        for word in words
    )


def canonical(words: str, power: str | None = None) -> str | None:
    """One spelling of a unit, such as "centimeter^2"; None for words that are not a unit."""
    spelled = re.sub(r"[A-Za-z]+", lambda match: SYMBOLS.get(match[0], match[0]), words)
    lowered = spelled.lower().replace(".", "").replace("/", " per ")
    parts = [word for word in re.split(r"[ -]+", lowered) if word]
    if any(part in NOT_UNITS for part in parts):
        return None
    parts = WHOLE_SPELLINGS.get(" ".join(parts), " ".join(parts)).split()
    singular = [SPELLINGS.get(part, _singular(part)) for part in parts]
    for prefix, value in (("square", "2"), ("cubic", "3")):
        if prefix in singular and len(singular) > 1:
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

    The units are known ones (`unknown_unit`). The same, or none in the answer, is acceptable. Where
    the gold answer has none, so is every unit but another power of a length than was asked for, and
    one of a family (time, length, mass, volume, money, angle) of which the question's last
    sentence names only others: "how many minutes" is not answered in hours.
    """
    if answer in ("", gold):
        return None
    if gold:
        return f"the unit is {answer}, not {gold}"
    family = next((names for names in FAMILIES.values() if _base(answer) in names), None)
    if family is None:
        return None
    powers = {
        {"s": "2", "c": "3"}[word[0].lower()]
        for word in re.findall(ASKED_POWER, _last_question(question))
    }
    if powers and family is FAMILIES["length"] and answer.partition("^")[2] not in powers:
        return f"the unit is {answer}, but the question asks for another power of it"
    asked = {name for name in family if name in _units_named(_last_question(question))}
    if asked and _base(answer) not in asked:
        return f"the unit is {answer}, but the question asks for {' or '.join(sorted(asked))}"
    return None


def unknown_unit(unit: str, question: str) -> str:
    """The first word of a unit that is neither known nor in the question, or ''. What it does to
    the number (5 hundredths, 5 score) is then anyone's guess."""
    known = {name for names in FAMILIES.values() for name in names} | OTHER_UNITS | COUNTED
    known |= {"square", "cubic", "pound sterling"}
    asked = {_singular(word) for word in re.findall(r"[a-z]+", question.lower())}
    if unit in known:
        return ""
    words = _base(unit).replace("'s", "").replace("'", "").split()
    return next((word for word in words if word not in known and word not in asked), "")


def asks_for_percent(question: str) -> bool:
    return re.search(r"%|\bpercent", question, re.IGNORECASE) is not None


def asks_for_degrees(question: str) -> bool:
    return DEGREE in _units_named(_last_question(question))


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
