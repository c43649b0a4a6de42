"""Runs searches over problems. Each rank searches its share and writes every finished result; the
results are merged in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from data.progress import reported
from data.types import Problem, ServedTokens, Usage
from rewards.base import verdict_of
from rewards.verifiers.by_name import VERIFIERS
from rewards.verifiers.final_answers import FINAL_ANSWERS, whole_text
from rewards.verifiers.tally import TALLY
from search.base import SearchResult, Strategy
from search.batcher import run_searches
from search.journal import Journal
from search.measurements.prefix_success import (
    ProbeConfig,
    RelabelConfig,
    probe_prefixes,
    relabel_prefixes,
)
from search.measurements.scored_solutions import GivenConfig, PoolConfig, sample_pool, score_given
from search.running import SearchProgress
from search.settings import SearchSettings
from search.strategies.by_name import bind
from search.trees.files import append_trees, read_trees
from trainer.runtime.progress import Progress
from trainer.searching.engines import check_guidance
from trainer.searching.models import load_models
from trainer.searching.server_engines import SearchEngineConfig

# Measurements run like a strategy but do not choose an answer.
MEASUREMENTS: dict[type, Callable[..., Any]] = {
    ProbeConfig: probe_prefixes,
    RelabelConfig: relabel_prefixes,
    PoolConfig: sample_pool,
    GivenConfig: score_given,
}


def bound(config: Any) -> Strategy:
    """The function of a strategy or of a measurement, bound to its config."""
    if type(config) in MEASUREMENTS:
        return partial(MEASUREMENTS[type(config)], config=config)
    return bind(config)


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """The place of this process among the processes that share a stage."""

    rank: int
    world_size: int

    def shard(self, problems: Sequence[Problem]) -> list[Problem]:
        return list(problems[self.rank :: self.world_size])

    def progress(self, name: str, problems: int) -> Progress:
        """The progress of this process's share; only the first process shows it."""
        share = f", process 1 of {self.world_size}" if self.world_size > 1 else ""
        return Progress(name + share, problems, shown=self.rank == 0)


class Workbench:
    """The loaded models and the verifier of a stage, and its processes. `usage` is the cost of all
    its searches on all ranks, in this run of the stage and in its earlier interrupted runs.
    `judge` is the reward model of `answer_guidance: judge`.
    `served` is what the servers of the policy did for them; None with an engine in this process."""

    def __init__(
        self,
        *,
        policy: str,
        reward_model: str | None,
        verifier: str,
        seed: int,
        accelerator: Any,
        judge: str | None = None,
        max_rows: int = 512,
        kept_prefixes_mib: int = 0,
        engine: SearchEngineConfig | None = None,
    ) -> None:
        self.accelerator = accelerator
        self.ranks = Ranks(rank=accelerator.process_index, world_size=accelerator.num_processes)
        models = load_models(
            policy,
            reward_model,
            judge,
            seed=seed,
            device=accelerator.device,
            max_rows=max_rows,
            kept_prefixes_mib=kept_prefixes_mib,
            engine=engine,
        )
        self.engine, self.scorer, self.judge = models.engine, models.scorer, models.judge
        if verifier not in VERIFIERS:
            raise ValueError(f"verifier is {verifier!r}; allowed: {', '.join(VERIFIERS)}")
        self.verifier = VERIFIERS[verifier]()
        self.final_answer = FINAL_ANSWERS.get(verifier, whole_text)
        self.usage = Usage()
        self.served: ServedTokens | None = None

    def search(
        self,
        problems: Sequence[Problem],
        config: Any,
        settings: SearchSettings,
        *,
        folder: Path,
        name: str,
        policy_name: str,
        max_concurrent: int = 512,
    ) -> list[SearchResult]:
        """Search all problems with the strategy of `config`. Every rank gets the results in the
        order of the problems. Raises the errors of `check_guidance`.

        At the end, `<folder>/<name>.jsonl` holds the results of all problems. An interrupted run
        continues from its per-rank files and journals, even in the middle of a tree.
        """
        merged = folder / f"{name}.jsonl"
        if merged.exists():
            if self.accelerator.is_main_process:
                _remove_parts(folder, name)
                _count_verdicts(read_trees(merged))
        else:
            check_guidance(self.engine, settings)
            folder.mkdir(parents=True, exist_ok=True)
            strategy = bound(config)
            self._search_shard(
                problems, strategy, settings, folder, name, policy_name, max_concurrent
            )
            self.accelerator.wait_for_everyone()
            if self.accelerator.is_main_process:
                self._merge(problems, folder, name, policy_name)
        self.accelerator.wait_for_everyone()
        results = read_trees(merged)
        self.usage += total_usage(results)
        for result in results:
            if result.served is not None:
                self.served = (self.served or ServedTokens()) + result.served
        return results

    def _search_shard(
        self,
        problems: Sequence[Problem],
        strategy: Strategy,
        settings: SearchSettings,
        folder: Path,
        name: str,
        policy_name: str,
        max_concurrent: int,
    ) -> None:
        part = folder / f"{name}.rank{self.ranks.rank}.jsonl"
        finished = read_trees(part)
        _count_verdicts(finished)
        done = {result.problem.id for result in finished}
        journal = Journal(folder / f"{name}.journal{self.ranks.rank}.jsonl")
        waiting = [p for p in self.ranks.shard(problems) if p.id not in done]
        with self.ranks.progress(name, len(waiting)) as progress:
            results = run_searches(
                waiting,
                strategy,
                engine=self.engine,
                scorer=self.scorer,
                judge=self.judge,
                verify=self.verifier.verify,
                settings=settings,
                final_answer=self.final_answer,
                max_concurrent=max_concurrent,
                journal=journal,
                on_progress=showing(progress),
            )
            append_trees(part, results, policy_name)
        journal.close()

    def _merge(
        self, problems: Sequence[Problem], folder: Path, name: str, policy_name: str
    ) -> None:
        parts = sorted(folder.glob(f"{name}.rank*.jsonl"))
        found = {r.problem.id: r for part in parts for r in read_trees(part)}
        temporary = folder / f"{name}.merging"
        temporary.unlink(missing_ok=True)
        append_trees(temporary, (found[problem.id] for problem in problems), policy_name)
        temporary.replace(folder / f"{name}.jsonl")
        _remove_parts(folder, name)


def open_workbench(
    *,
    policy: str,
    reward_model: str | None,
    verifier: str,
    seed: int,
    judge: str | None = None,
    kept_prefixes_mib: int = 0,
    engine: SearchEngineConfig | None = None,
) -> Workbench:
    """The workbench of a stage, on the processes that share the stage."""
    from accelerate import Accelerator

    return Workbench(
        policy=policy,
        reward_model=reward_model,
        verifier=verifier,
        seed=seed,
        accelerator=Accelerator(),
        judge=judge,
        kept_prefixes_mib=kept_prefixes_mib,
        engine=engine,
    )


def _count_verdicts(results: Sequence[SearchResult]) -> None:
    """Count the verdicts of searches that an interrupted attempt finished."""
    for result in results:
        TALLY.add(result.verdicts)


def _remove_parts(folder: Path, name: str) -> None:
    """Remove the per-rank files that led to a merged file."""
    for pattern in (f"{name}.rank*.jsonl", f"{name}.journal*.jsonl"):
        for path in folder.glob(pattern):
            path.unlink()


def showing(progress: Progress) -> Callable[[SearchProgress], None]:
    """A function that shows the progress of searches in `progress`."""

    def show(now: SearchProgress) -> None:
        progress.update(now.done, finished=now.finished, note=f"{now.running:,} running")

    return show


def correct_at(workbench: Workbench, results: Sequence[SearchResult], budget: int) -> list[bool]:
    """Whether the answer at `budget` is correct, per problem."""
    correct: list[bool] = []
    for result in reported(results, "checked answers"):
        snapshot = result.at(budget)
        text = snapshot.answer
        verify = partial(workbench.verifier.verify, result.problem)
        finished = text is not None and not snapshot.truncated
        correct.append(verdict_of(verify, text or "", finished=finished).correct)
    return correct


def total_usage(results: Sequence[SearchResult]) -> Usage:
    return sum((result.usage for result in results), Usage())


def ends_of(results: Sequence[SearchResult]) -> Counter[str]:
    """How many searches ended in which way (`SearchEnd`)."""
    return Counter(result.end.value for result in results)


def paths_of(results: Sequence[SearchResult]) -> Counter[str]:
    """How many paths of all searches ended in which way (`StopReason`)."""
    return sum((result.terminals for result in results), Counter[str]())
