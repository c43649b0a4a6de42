"""How busy searches keep a vLLM server: generated tokens/s of each strategy as a share of what the
same server gives plain clients that ask for as many samples of the same lengths.

python tests/benchmarks/engine_busy.py --policy FOLDER --url http://127.0.0.1:8000 --problems 64
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from typing import Any

import torch

from data.types import Outcome, Problem, Verdict
from search.base import SearchResult
from search.batcher import run_searches
from search.engines.vllm_server import VLLMServerEngine
from search.settings import SearchSettings
from search.strategies.beam import BeamConfig
from search.strategies.by_name import bind
from search.strategies.mcts.config import MCTSConfig
from search.strategies.particles import ParticleConfig
from trainer.searching.engines import load_engine
from trainer.searching.server_engines import SearchEngineConfig

STRATEGIES: dict[str, Any] = {
    "mcts": MCTSConfig(budgets=(32,), proposals=4),
    "beam": BeamConfig(budgets=(16,)),
    "particles": ParticleConfig(budgets=(16,)),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--policy", required=True)
    parser.add_argument("--url", required=True)
    parser.add_argument("--problems", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    config = SearchEngineConfig(engine="vllm_server", engine_url=options.url)
    cpu = torch.device("cpu")
    engine, _ = load_engine(options.policy, None, seed=1, device=cpu, engine=config)
    assert isinstance(engine, VLLMServerEngine)
    prompts = [f"{3 + i % 17} {4 + i % 13} {7 + i % 11}" for i in range(options.problems)]
    problems = [
        Problem(id=str(i), prompt=f"{prompt} -> {10 + i % 40}\n", answer="")
        for i, prompt in enumerate(prompts)
    ]
    for turn in range(options.rounds):
        for name, strategy in STRATEGIES.items():
            report(name, engine, problems, strategy, turn)


def report(
    name: str, engine: VLLMServerEngine, problems: Sequence[Problem], strategy: Any, turn: int
) -> None:
    """Run a strategy, then plain clients with the same lengths, and print both rates."""
    started = time.perf_counter()
    settings = SearchSettings(guidance="likelihood", max_new_tokens=96, max_step_tokens=32)
    results = list(
        run_searches(
            problems,
            bind(strategy),
            engine=engine,
            scorer=None,
            verify=lambda problem, solution: Verdict(outcome=Outcome.UNVERIFIABLE),
            settings=settings,
        )
    )
    seconds = time.perf_counter() - started
    tokens = sum(result.usage.policy.generated_tokens for result in results)
    lengths = lengths_of(results, tokens)
    started = time.perf_counter()
    asyncio.run(plain(engine, problems, lengths))
    plain_rate = sum(lengths) / (time.perf_counter() - started)
    served = [result.served for result in results if result.served is not None]
    computed = sum(s.computed_tokens for s in served) + tokens
    distinct = sum(
        len(engine.encode_prompt(r.problem.prompt)) + sum(len(n.token_ids) for n in r.nodes)
        for r in results
    )
    print(
        f"{turn} {name:10} {tokens:7,} tokens {tokens / seconds:7.0f} tokens/s, plain clients "
        f"{plain_rate:7.0f} tokens/s: {tokens / seconds / plain_rate:5.1%} busy; "
        f"{computed / distinct:.2f} tokens computed per distinct tree token",
        flush=True,
    )


def lengths_of(results: Sequence[SearchResult], tokens: int) -> list[int]:
    """The lengths of the samples of some searches. Proposals that were merged are repeated."""
    lengths = [
        len(node.token_ids)
        for result in results
        for node in result.nodes
        if node.token_ids
        for _ in range(max(1, node.proposals))
    ]
    while sum(lengths) < tokens:
        lengths.append(min(lengths[len(lengths) // 2], tokens - sum(lengths)))
    return lengths


async def plain(
    engine: VLLMServerEngine, problems: Sequence[Problem], lengths: Sequence[int]
) -> None:
    async def one(i: int, length: int) -> None:
        problem = problems[i % len(problems)]
        fields = {
            "prompt": list(engine.encode_prompt(problem.prompt)),
            "max_tokens": length,
            "temperature": 1.0,
            "seed": i,
        }
        await engine.servers.of(problem.id).complete(fields)

    try:
        await asyncio.gather(*(one(i, length) for i, length in enumerate(lengths)))
    finally:
        await engine.close()


if __name__ == "__main__":
    main()
