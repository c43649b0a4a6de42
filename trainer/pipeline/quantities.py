"""Numbers and durations in words, rounded."""

from __future__ import annotations


def human(value: float | None, unit: str = "") -> str:
    """Three digits and a unit prefix, for example 1.8 M; '?' for None."""
    if value is None:
        return "?"
    for prefix in ("", "k", "M", "G", "T", "P", "E"):
        if value < 1000 or prefix == "E":
            return f"{value:.3g} {prefix}{unit}".rstrip()
        value /= 1000
    return f"{value:.3g}"


def rough_duration(seconds: float | None) -> str:
    """'40 s', '12 minutes', '3.4 hours'; '?' for None."""
    if seconds is None:
        return "?"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
