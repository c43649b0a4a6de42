"""Accuracy of a bundle's effort levels behind the search server, beside that of the bundle's card.

python tests/benchmarks/serve_accuracy.py outputs/bundle outputs/countdown-demo/data/test.jsonl
    [--problems 300] [--skip 0] [--clients 32]

Problems are those of the file after the first `--skip`; skip those that the card's accuracies were
measured on for an estimate that they have no part in. Prints a JSON line per level.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from data.problems import read_problems
from data.types import Outcome, Problem
from rewards.verifiers.by_name import VERIFIERS
from tests.benchmarks.serve_load import Served
from trainer.measures.statistics import accuracy
from trainer.searching.bundles import EffortLevel, read_bundle


async def measure(
    served: Served, level: EffortLevel, problems: list[Problem], options: Any, verifier: str
) -> dict[str, Any]:
    client = served.client(retries=20)  # a full server says when to ask again
    places = asyncio.Semaphore(options.clients)
    judge = VERIFIERS[verifier]()

    async def one(problem: Problem) -> tuple[bool, int]:
        message: Any = {"role": "user", "content": problem.prompt.strip()}
        async with places:
            reply = await client.chat.completions.create(
                model=served.model, messages=[message], reasoning_effort=level.name, seed=1
            )
        text = reply.choices[0].message.content or ""
        right = judge.verify(problem, text).outcome is Outcome.CORRECT
        finished = reply.choices[0].finish_reason == "stop"
        return right and finished, reply.usage.completion_tokens if reply.usage else 0

    started = time.monotonic()
    answers = await asyncio.gather(*(one(problem) for problem in problems))
    seconds = time.monotonic() - started
    groups = [str(problem.group) for problem in problems]
    served_here = accuracy([right for right, _ in answers], groups)
    return {
        "effort": level.name,
        "search": f"{level.measured_as}:{level.budget}",
        "problems": len(problems),
        "accuracy": [round(x, 3) for x in (served_here.value, served_here.low, served_here.high)],
        "card": [round(x, 3) for x in (level.accuracy, level.low, level.high)],
        "card_problems": level.problems,
        "tokens": round(sum(tokens for _, tokens in answers) / len(answers), 1),
        "card_tokens": round(level.generated_tokens, 1),
        "answers_per_second": round(len(answers) / seconds, 1),
    }


async def run(options: Any) -> None:
    bundle = read_bundle(options.bundle)
    rows = islice(read_problems(options.test), options.skip, options.skip + options.problems)
    problems = list(rows)
    if not problems:
        raise SystemExit(f"{options.test} has no problem after the first {options.skip}")
    served = Served(options.bundle, options.test, [])
    try:
        await served.ready()
        for level in bundle.levels:
            row = await measure(served, level, problems, options, bundle.verifier)
            print(json.dumps(row), flush=True)
    finally:
        served.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("test", type=Path, help="problems that the policy reads: test.jsonl")
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument("--skip", type=int, default=0)
    parser.add_argument("--clients", type=int, default=32)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parents[2])
    main()
