"""The verifiers of whole solutions by name, as recipes call them."""

from __future__ import annotations

from collections.abc import Callable

from rewards.base import Verifier
from rewards.countdown_verifier import CountdownVerifier
from rewards.math_verifier import MathVerifier

__all__ = ["VERIFIERS", "CountdownVerifier", "MathVerifier"]

VERIFIERS: dict[str, Callable[[], Verifier]] = {
    "countdown": CountdownVerifier,
    "math": MathVerifier,
}
