"""Verifications a second on one core, by verifier and kind of answer.

python tests/benchmarks/verifier_throughput.py [path/to/published/data]

By one process that asks and one that works, pinned to one core. No verdict comes from a cache;
where algebra is needed, each answer is new to the process that works, too.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from data.sources import take_in
from data.tasks.code import CodeConfig, humaneval_row
from data.types import Problem
from rewards.verifiers.math_answers import MathVerifier
from rewards.verifiers.programs import CodeVerifier

ROOT = Path(__file__).resolve().parents[2]


def rate(name: str, calls: list[Callable[[], object]], repeats: int = 3) -> None:
    """The best of `repeats`: other work on the machine only ever slows a run down."""
    calls[0]()  # processes start
    best = 0.0
    for _ in range(repeats):
        started = time.perf_counter()
        for call in calls:
            call()
        best = max(best, len(calls) / (time.perf_counter() - started))
    print(
        f"{name}: {best:,.0f} a second ({len(calls)} verifications, best of {repeats})", flush=True
    )


def maths(pairs: list[tuple[str, str]]) -> list[Callable[[], object]]:
    def call(gold: str, answer: str) -> Callable[[], object]:
        problem = Problem(id="p", prompt="", answer=gold)
        return lambda: MathVerifier(workers=1).verify(problem, f"\\boxed{{{answer}}}")

    return [call(gold, answer) for gold, answer in pairs]


def main() -> None:
    shared = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent / "shared" / "data"
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    gsm8k = [json.loads(line)["answer"] for line in (shared / "gsm8k_test.jsonl").open()]
    numbers = [row.split("#### ")[1] for row in gsm8k]
    golds = [json.loads(line)["answer"] for line in (shared / "math500_test.jsonl").open()]
    rate("GSM8K, right numbers", maths([(n, f"{n}.0") for n in numbers]))
    rate("GSM8K, wrong numbers", maths([(n, f"{n}.5") for n in numbers]))
    rate("MATH-500, as written", maths([(g, g) for g in golds]))
    symbolic = [g for g in golds if "\\sqrt" in g or "\\pi" in g or "x" in g]
    rate("MATH-500, algebra needed, right", maths([(g, f"1 \\cdot ({g})") for g in symbolic]), 1)
    rate("MATH-500, algebra needed, wrong", maths([(g, f"{g} + 1 + 1") for g in symbolic]), 1)
    rows, _ = take_in(
        str(shared / "HumanEval.jsonl.gz"), lambda row, n: humaneval_row(row, str(n), CodeConfig())
    )
    code = CodeVerifier()
    rate("HumanEval", [lambda d=d: code.verify(d.problem, d.solution) for d in rows], repeats=1)


if __name__ == "__main__":
    main()
