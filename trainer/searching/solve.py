"""Solves one problem, or a file of problems, with a given strategy and budget."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from data.problems import read_problems
from data.types import Problem, Verdict
from rewards.base import verdict_of
from rewards.verifiers.by_name import VERIFIERS
from rewards.verifiers.final_answers import FINAL_ANSWERS, EqualAnswers, whole_text
from search.base import Node, SearchResult, path_to, solution_text
from search.batcher import run_searches
from search.engines.transformers_engine import TransformersEngine
from search.settings import SearchSettings
from search.strategies.by_name import bind, entry
from search.strategies.thinking import ThinkingConfig, ThoughtCounts, thought_counts
from trainer.searching.engines import SearchEngine, check_guidance
from trainer.searching.models import SearchModels, load_models
from trainer.searching.server_engines import IN_PROCESS, SearchEngineConfig
from trainer.searching.typed_problems import PLACE, TYPED_TASKS, typed_problem
from trainer.searching.watching import Watched


@dataclass(frozen=True, kw_only=True)
class SolveConfig:
    """What is solved: one `problem`, or a `file` of problems with the columns of
    data/problems.py."""

    model: str
    """Folder or hub id of the policy; a bundle gives it."""
    bundle: str | None = None
    """Folder of a bundle, with its models, prompt and effort levels; null: none."""
    effort: str | None = None
    """Effort level of the bundle: low, medium or high; null: medium."""
    reward_model: str | None = None
    """Folder, hub id, http address or YAML description of the reward model; null: none."""
    judge: str | None = None
    """Second reward model, which chooses the answer with answer_guidance: judge; null: none."""
    strategy: str = "mcts"
    """Search strategy: a key of STRATEGIES in search/strategies/by_name.py."""
    problem: str | None = None
    """Text of the problem; it replaces {problem} in the template."""
    file: str | None = None
    """File of problems."""
    task: str | None = None
    """Task of the typed problem: math or countdown; its verifier compares answers; null: none."""
    right_answer: str | None = None
    """Right answer of the typed problem, to check the answer against; null: not known."""
    template: str | None = None
    """Prompt of the typed problem, with {problem} in it; null: the task's, else the text alone."""
    chat: bool | None = None
    """Put the typed problem into the chat template; null: where the tokenizer has one."""
    thinking: bool | None = None
    """enable_thinking of the chat template, as in Qwen3; null: the template's own choice."""
    verifier: str | None = None
    """Verifier that checks the answers of a file's problems; null: none."""
    output: str | None = None
    """File of results: one JSON line as soon as a problem is finished; null: none."""
    seed: int = 0
    """Seed of all random numbers."""
    bit_identical: bool = False
    """Make a problem's samples on a CPU independent of the file's other problems; slower."""
    bf16: bool = False
    """Weights of the policy in bf16: faster and less exact, also on CPUs with bf16 instructions."""
    quiet: bool = False
    """Print only the answer."""

    def __post_init__(self) -> None:
        if (self.problem is None) == (self.file is None):
            raise ValueError("give either problem (its text) or file (a file of problems)")
        if self.template is not None and PLACE not in self.template:
            raise ValueError(f"template is {self.template!r}; it must hold {PLACE}")
        if self.task is not None and self.task not in TYPED_TASKS:
            raise ValueError(f"task is {self.task!r}; allowed: {', '.join(TYPED_TASKS)}")
        if self.file is not None and (self.task or self.right_answer is not None):
            raise ValueError("task and right_answer belong to a typed problem, not to file")
        if self.right_answer is not None and self.task is None:
            raise ValueError("right_answer needs task, whose verifier compares answers")
        if self.verifier is not None and self.verifier not in VERIFIERS:
            raise ValueError(f"verifier is {self.verifier!r}; allowed: {', '.join(VERIFIERS)}")
        if self.verifier is not None and self.file is None:
            raise ValueError(
                "verifier needs file; for a typed problem, give its task and right_answer"
            )

    @property
    def checker(self) -> str | None:
        """The verifier that compares answers."""
        return TYPED_TASKS[self.task].verifier if self.task else self.verifier


@dataclass(frozen=True, kw_only=True)
class Thought:
    """The result for one problem. `confidence` is the value by which the answer was chosen.
    `agreeing` of the `solutions` finished solutions give the same final answer. Token counts are
    the sums over both models. `seconds` counts from the start of the first problem. `verdict` is
    None without a verifier. `budgeted` is what the strategy thinking did to the thought; None with
    another strategy."""

    problem: str
    answer: str | None
    finished: bool
    steps: tuple[str, ...]
    step_scores: tuple[float | None, ...]
    confidence: float | None
    agreeing: int
    solutions: int
    end: str
    verdict: str | None
    generated_tokens: int
    positions: int
    flops: float
    seconds: float
    budgeted: ThoughtCounts | None = None


def solve(
    config: SolveConfig,
    settings: SearchSettings,
    strategy: Any,
    sampling: SearchEngineConfig = IN_PROCESS,
) -> list[Thought]:
    """Solve every problem with the engine that `sampling` names, print each result when it is
    finished, and return the results in order."""
    from accelerate import Accelerator

    models = load_models(
        config.model,
        config.reward_model,
        config.judge,
        seed=config.seed,
        device=Accelerator().device,
        bit_identical=config.bit_identical,
        bf16=config.bf16,
        kept_prefixes_mib=settings.kept_prefixes_mib,
        engine=sampling,
    )
    engine = models.engine
    _check(config, settings, strategy, models)
    problems = _problems(config, engine)
    if config.output is not None:
        Path(config.output).write_text("")
    watched: Any = engine
    if isinstance(engine, TransformersEngine) and not config.quiet:
        watched = Watched(engine, sys.stderr)
    started = time.monotonic()
    final_answer = _final_answer(config)
    checked = config.checker is not None and (config.task is None or bool(problems[0].answer))
    thoughts: dict[str, Thought] = {}
    for result in run_searches(
        problems,
        bind(strategy),
        engine=watched,
        scorer=models.scorer,
        judge=models.judge,
        verify=_verify(config),
        settings=settings,
        final_answer=final_answer,
    ):
        thought = think_over(
            result,
            engine,
            final_answer,
            _verify(config) if checked else None,
            time.monotonic() - started,
        )
        thoughts[result.problem.id] = thought
        scored_by = settings.choosing_guidance if settings.needs_scores else settings.guidance
        print(console_text(thought, scored_by))
        if config.output is not None:
            with Path(config.output).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"id": result.problem.id} | asdict(thought)) + "\n")
    return [thoughts[problem.id] for problem in problems]


def _check(
    config: SolveConfig, settings: SearchSettings, strategy: Any, models: SearchModels
) -> None:
    """Raises ValueError for a search that its models cannot do, or that would use the verifier."""
    check_guidance(models.engine, settings)
    if getattr(strategy, "use_verifier", False):
        raise ValueError("use_verifier must be false here: it is only for making training data")
    for key, guidance in _asked_guidances(config.strategy, settings).items():
        if models.scorer is None and guidance in ("prm", "outcome"):
            raise ValueError(
                f"{key} is {guidance!r}, which needs a reward_model; without one choose "
                "another guidance, such as likelihood"
            )


def _asked_guidances(strategy: str, settings: SearchSettings) -> dict[str, str]:
    """The guidances that a search asks for values, by their keys."""
    known, asked = entry(strategy), dict[str, str]()
    if settings.needs_scores:
        key = "answer_guidance" if settings.answer_guidance else "guidance"
        asked[key] = settings.choosing_guidance
    if known.granularity == "step" or (settings.needs_scores and not known.values_only_choose):
        asked["guidance"] = settings.guidance
    return asked


def _problems(config: SolveConfig, engine: SearchEngine) -> list[Problem]:
    if config.file is not None:
        return read_problems(Path(config.file))
    assert config.problem is not None
    return [
        typed_problem(
            config.problem,
            task=config.task,
            template=config.template,
            answer=config.right_answer,
            chat=config.chat,
            thinking=config.thinking,
            tokenizer=engine.tokenizer,
        )
    ]


def _final_answer(config: SolveConfig) -> Callable[[Problem, str], str]:
    if config.checker == "math":
        return EqualAnswers(VERIFIERS["math"]().verify)
    return FINAL_ANSWERS.get(config.checker or "", whole_text)


def _verify(config: SolveConfig) -> Callable[[Problem, str], Verdict]:
    needs_answer = config.task == "math" and config.right_answer is None
    if config.checker is None or needs_answer:

        def unknown(problem: Problem, solution: str) -> Verdict:
            raise ValueError(
                "the oracle needs a file of problems with their answers and a verifier, or a task "
                "and its right_answer"
            )

        return unknown
    return VERIFIERS[config.checker]().verify


def think_over(
    result: SearchResult,
    engine: SearchEngine,
    final_answer: Callable[[Problem, str], str],
    verify: Callable[[Problem, str], Verdict] | None,
    seconds: float,
) -> Thought:
    """The result of a finished search."""
    nodes, problem = result.nodes, result.problem
    snapshot = result.snapshots[-1] if result.snapshots else None
    answer = snapshot.answer if snapshot else None
    steps: list[str] = []
    scores: list[float | None] = []
    node = snapshot.answer_node if snapshot else None
    if node is not None:
        for id in path_to(nodes, node):
            ids = nodes[id].token_ids
            ends = engine.step_ends(ids)
            texts = [engine.decode(ids[a + 1 : b + 1]) for a, b in zip([-1, *ends], ends)]  # noqa: B905
            steps += texts
            scores += [None] * (len(texts) - 1) + [nodes[id].score]
    elif answer:
        steps = answer.splitlines(keepends=True)
        scores = [None] * len(steps)
    finished = [solution_text(nodes, n.id) for n in nodes if n.finished]
    agreeing = 0
    if answer is not None:
        chosen = final_answer(problem, answer)
        agreeing = sum(final_answer(problem, text) == chosen for text in finished)
    complete = snapshot is not None and not snapshot.truncated
    verdict: str | None = None
    if verify is not None and answer is not None:
        judged = verdict_of(partial(verify, problem), answer, finished=complete)
        verdict = judged.outcome.value
    usage = result.usage
    return Thought(
        problem=problem.prompt,
        answer=answer,
        finished=complete,
        steps=tuple(steps),
        step_scores=tuple(scores),
        confidence=_confidence(nodes[node]) if node is not None else None,
        agreeing=agreeing,
        solutions=len(finished),
        end=result.end.value,
        verdict=verdict,
        generated_tokens=usage.policy.generated_tokens,
        positions=usage.policy.positions + usage.reward.positions,
        flops=usage.flops,
        seconds=seconds,
        budgeted=(
            thought_counts(nodes, node)
            if node is not None and entry(result.strategy).config is ThinkingConfig
            else None
        ),
    )


def _confidence(node: Node) -> float | None:
    return node.score if node.answer_score is None else node.answer_score


def console_text(thought: Thought, guidance: str) -> str:
    """The result as text for the console."""
    lines = ["", f"problem     {thought.problem.strip()}"]
    for step, score in zip(thought.steps, thought.step_scores, strict=True):
        said = "" if score is None else f"{score:.2f}"
        lines.append(f"  {said:>8}  {step.rstrip()}")
    if thought.answer is None:
        lines.append(f"answer      none: {thought.end}")
    elif not thought.finished:
        lines.append("answer      unfinished: nothing above is a whole solution")
    else:
        known = thought.confidence is not None
        confidence = f"{thought.confidence:.2f} by {guidance}" if known else "unknown"
        lines.append(f"answer      {thought.steps[-1].strip() if thought.steps else ''}")
        lines.append(
            f"confidence  {confidence}; {thought.agreeing} of {thought.solutions} solutions agree"
        )
    if thought.budgeted is not None:
        lines.append(f"thought     {_budgeted_text(thought.budgeted)}")
    if thought.verdict is not None:
        lines.append(f"verdict     {thought.verdict}")
    lines.append(
        f"spent       {thought.generated_tokens:,} tokens generated, {thought.positions:,} "
        f"positions, {thought.flops / 1e9:.2f} GFLOPs, {thought.seconds:.1f} s ({thought.end})"
    )
    return "\n".join(lines)


def _budgeted_text(counts: ThoughtCounts) -> str:
    extended = f", extended {counts.extensions} times" if counts.extensions else ""
    return f"{counts.tokens:,} tokens{', cut at its budget' if counts.cut else ''}{extended}"
