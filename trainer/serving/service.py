"""Runs the searches that requests ask for, with the levels of one bundle."""

from __future__ import annotations

import asyncio
import secrets
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace
from typing import Any

from data.token_text import TokenText
from data.types import Problem, Verdict
from rewards.verifiers.by_name import VERIFIERS
from rewards.verifiers.final_answers import FINAL_ANSWERS, EqualAnswers, whole_text
from search.base import Scorer, SearchResult
from search.live import LiveSearches
from search.running import FinalAnswer
from search.settings import SearchSettings
from search.strategies.by_name import bind
from search.strategies.solutions import SolutionsConfig
from trainer.runtime.manifests import hash_input
from trainer.searching.bundles import DEFAULT_EFFORT, Bundle, EffortLevel, read_bundle
from trainer.searching.engines import SearchEngine, check_guidance
from trainer.searching.models import load_models
from trainer.searching.server_engines import SearchEngineConfig
from trainer.serving.access import KeyRing, Places
from trainer.serving.answers import Answer, answer_of
from trainer.serving.config import SearchServerConfig
from trainer.serving.errors import APIError
from trainer.serving.prompts import seeded
from trainer.serving.schema import SearchBody
from trainer.serving.traces import TraceStore

KEEP_ALIVE_SECONDS = 10.0  # between two signs of life of a stream


@dataclass(frozen=True, kw_only=True)
class Job:
    """An accepted request. `problems` has one entry per answer, in the order of the choices.
    `deadline` is a time of the event loop's clock. `prompt_tokens` counts each prompt once."""

    id: str
    trace_id: str
    owner: str
    created: int
    model: str
    fingerprint: str
    seed: int
    level: EffortLevel
    problems: tuple[Problem, ...]
    prompt_tokens: int
    token_limit: int
    deadline: float
    with_reasoning: bool


class RunningJob:
    """The searches of a job, which run from now on."""

    def __init__(self, job: Job, service: SearchService) -> None:
        self.job = job
        self._service = service
        self._tasks = [
            asyncio.create_task(service.answer(job, index)) for index in range(len(job.problems))
        ]
        for task in self._tasks:
            task.add_done_callback(lambda _: service.places.leave(1))

    async def answers(self) -> AsyncGenerator[Answer | None]:
        """Each answer when its search is finished. None is a sign of life in between. When the
        generator is closed, searches that still run are withdrawn; the trees are kept at the end.

        Raises APIError."""
        found: list[Answer] = []
        waiting = set(self._tasks)
        try:
            while waiting:
                done, waiting = await asyncio.wait(
                    waiting,
                    timeout=KEEP_ALIVE_SECONDS,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    found.append(task.result())
                    yield found[-1]
                if not done:
                    yield None
            found.sort(key=lambda answer: answer.index)
            trees = [answer.tree for answer in found]
            self._service.traces.add(self.job.trace_id, self.job.owner, trees)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def all_answers(self) -> list[Answer]:
        """The answers in the order of the choices. Raises APIError."""
        found = [answer async for answer in self.answers() if answer is not None]
        return sorted(found, key=lambda answer: answer.index)


class SearchService:
    """A bundle that is loaded, and what clients share: places, keys and search trees."""

    def __init__(
        self,
        config: SearchServerConfig,
        bundle: Bundle,
        engine: SearchEngine,
        scorer: Scorer | None,
        *,
        judge: Scorer | None = None,
        fingerprint: str = "",
    ) -> None:
        """Raises ValueError for levels that the engine or the bundle's models do not serve."""
        self.config, self.bundle, self.engine = config, bundle, engine
        self.fingerprint = fingerprint
        self.keys = KeyRing(config.api_keys)
        for level in bundle.levels:
            settings = level.search_settings()
            check_guidance(engine, settings)
            if settings.needs_judge and judge is None:
                raise ValueError(f"level {level.name} needs a judge, but the bundle has none")
            if getattr(level.strategy_config(), "use_verifier", False) or "oracle" in (
                settings.guidance,
                settings.answer,
            ):
                raise ValueError(f"level {level.name} sees the truth, which no request has")
        self.places = Places(most=config.max_running, waiting=config.max_waiting)
        self.traces = TraceStore(most=config.max_traces, bytes=config.traces_mib * 2**20)
        self.searches = LiveSearches(engine, scorer, judge=judge, max_rows=config.max_rows)
        self._verify = VERIFIERS["math"]().verify if bundle.verifier == "math" else None
        texts = TokenText(engine.tokenizer).token_texts()
        self._most_characters = max(map(len, texts)) * engine.context_length

    async def close(self) -> None:
        await self.searches.close()

    async def job(
        self, kind: str, body: SearchBody, problems: list[Problem], owner: str, arrived: float
    ) -> Job:
        """The job of a request that arrived at `arrived`, a time of the event loop's clock.

        Raises APIError for a request that the server cannot answer."""
        if body.model != self.bundle.name:
            raise APIError(
                404,
                f"there is no model {body.model[:100]!r}; this server has {self.bundle.name!r}",
                code="model_not_found",
                param="model",
            )
        choices = body.n or 1
        if max(choices, len(problems)) > self.config.max_choices:
            raise APIError(
                400,
                f"{len(problems)} prompts with n {choices}; this server allows "
                f"{self.config.max_choices} of each",
                code="invalid_value",
                param="n" if choices > self.config.max_choices else "prompt",
            )
        lengths = [await self._prompt_length(problem.prompt) for problem in problems]
        seed = secrets.randbits(48) if body.seed is None else body.seed
        most = self.config.deadline_seconds
        return Job(
            id=f"{kind}-{uuid.uuid4().hex}",
            trace_id=f"trace-{uuid.uuid4().hex}",
            owner=owner,
            created=int(time.time()),
            model=self.bundle.name,
            fingerprint=self.fingerprint,
            seed=seed,
            level=self.bundle.level(body.reasoning_effort or DEFAULT_EFFORT),
            problems=tuple(seeded(p, seed, i) for p in problems for i in range(choices)),
            prompt_tokens=sum(lengths),
            token_limit=body.token_limit,
            deadline=arrived + min(body.deadline_seconds or most, most),
            with_reasoning=bool(body.include_reasoning),
        )

    def start(self, job: Job) -> RunningJob:
        """Start the searches of a job. Raises APIError if there is no place for them."""
        self.places.enter(len(job.problems))
        return RunningJob(job, self)

    async def answer(self, job: Job, index: int) -> Answer:
        """Search one of the problems of a job. Raises APIError for a deadline that passed before
        the search began."""
        async with self.places.running_search(job.deadline):
            left = job.deadline - asyncio.get_running_loop().time()
            settings, strategy = limited(job.level, job.token_limit, max(left, 0.001))
            final_answer = self._final_answer()
            result = await self.searches.search(
                job.problems[index],
                bind(strategy),
                settings,
                verify=_no_truth,
                final_answer=final_answer,
                token_limit=job.token_limit,
            )
            return await self.searches.call(self._reading(job, index, result, final_answer))

    def _reading(
        self, job: Job, index: int, result: SearchResult, final_answer: FinalAnswer
    ) -> Callable[[], Answer]:
        return lambda: answer_of(
            result,
            self.engine,
            final_answer,
            index=index,
            policy=job.model,
            with_reasoning=job.with_reasoning,
        )

    def _final_answer(self) -> FinalAnswer:
        if self._verify is not None:
            return EqualAnswers(self._verify)
        return FINAL_ANSWERS.get(self.bundle.verifier, whole_text)

    async def _prompt_length(self, prompt: str) -> int:
        """The number of tokens of a prompt. Raises APIError for one that cannot be searched."""
        limit = self.engine.context_length
        length = limit
        if len(prompt) <= self._most_characters:
            try:
                ids = await self.searches.call(lambda: self.engine.encode_prompt(prompt))
            except ValueError as error:
                raise APIError(400, str(error)[:500], code="invalid_prompt") from None
            length = len(ids)
        if length >= limit:
            raise APIError(
                400,
                f"the prompt fills the model's context of {limit:,} tokens",
                code="context_length_exceeded",
            )
        if length < 2:
            raise APIError(400, "the prompt has fewer than 2 tokens", code="invalid_prompt")
        return length


def limited(level: EffortLevel, token_limit: int, seconds: float) -> tuple[SearchSettings, Any]:
    """A level's settings and strategy within a request's limits. Of independent samples as many are
    left as surely fit into `token_limit`, but at least one."""
    settings, strategy = level.search_settings(), level.strategy_config()
    settings = replace(settings, max_seconds=min(settings.max_seconds or seconds, seconds))
    if not token_limit:
        return settings, strategy
    own = settings.max_generated_tokens or token_limit
    settings = replace(settings, max_generated_tokens=min(own, token_limit))
    if isinstance(strategy, SolutionsConfig):
        fitting = max(1, token_limit // settings.max_new_tokens)
        strategy = replace(strategy, budgets=(min(strategy.budgets[-1], fitting),))
    return settings, strategy


def _no_truth(problem: Problem, solution: str) -> Verdict:
    raise AssertionError("a level that sees the truth is refused when the server starts")


def load_service(config: SearchServerConfig, sampling: SearchEngineConfig) -> SearchService:
    """Load the models of the bundle. Raises ValueError for a bundle that cannot be served, and the
    errors of `load_models`."""
    from accelerate import Accelerator

    bundle = read_bundle(config.bundle)
    models = load_models(
        bundle.policy,
        bundle.reward_model,
        bundle.judge,
        seed=config.seed,
        device=config.device or Accelerator().device,
        max_rows=config.max_rows,
        kept_prefixes_mib=config.kept_prefixes_mib,
        engine=sampling,
    )
    fingerprint = "fp_" + hash_input(config.bundle)["fingerprint"][:16]
    return SearchService(
        config, bundle, models.engine, models.scorer, judge=models.judge, fingerprint=fingerprint
    )
