"""Answers as the objects of OpenAI's API. Keys that OpenAI does not have: `reasoning_content` and
`thinktree` of a choice, `policy` and `reward_model` of the usage, `trace_id` and `seed`."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict
from typing import Any

from data.types import Usage
from trainer.serving.answers import Answer
from trainer.serving.errors import APIError, failure
from trainer.serving.service import Job, RunningJob

SIGN_OF_LIFE = ": searching\n\n"
DONE = "data: [DONE]\n\n"


def usage_of(job: Job, answers: Sequence[Answer]) -> dict[str, Any]:
    """What the request cost. `completion_tokens` are all sampled tokens of all searches, those of
    failed branches too; `reasoning_tokens` are those that no answer shows."""
    total = sum((answer.usage for answer in answers), Usage())
    generated = total.policy.generated_tokens
    shown = sum(answer.answer_tokens for answer in answers)
    return {
        "prompt_tokens": job.prompt_tokens,
        "completion_tokens": generated,
        "total_tokens": job.prompt_tokens + generated,
        "completion_tokens_details": {"reasoning_tokens": max(0, generated - shown)},
        "policy": asdict(total.policy),
        "reward_model": asdict(total.reward),
    }


def whole_response(job: Job, answers: Sequence[Answer], *, chat: bool) -> dict[str, Any]:
    choices: list[dict[str, Any]] = []
    for answer in answers:
        choice: dict[str, Any] = {
            "index": answer.index,
            "finish_reason": answer.finish_reason,
            "logprobs": None,
            "thinktree": _details(answer),
        }
        if chat:
            message: dict[str, Any] = {
                "role": "assistant",
                "content": answer.content,
                "refusal": None,
            }
            if job.with_reasoning:
                message["reasoning_content"] = answer.reasoning
            choice["message"] = message
        else:
            choice["text"] = answer.thought.answer or ""
        choices.append(choice)
    kind = "chat.completion" if chat else "text_completion"
    return _head(job, kind) | {"choices": choices, "usage": usage_of(job, answers)}


async def stream(running: RunningJob, *, chat: bool, with_usage: bool) -> AsyncGenerator[str]:
    """The answers as server-sent events. The text of a choice comes when its search is finished,
    because the search chooses among whole solutions. Until then comments keep the connection."""
    job = running.job
    usage = {"usage": None} if with_usage else {}
    head = _head(job, "chat.completion.chunk" if chat else "text_completion") | usage
    found: list[Answer] = []
    try:
        if chat:
            for index in range(len(job.problems)):
                yield _event(head, _chunk(index, {"role": "assistant", "content": ""}))
        async for answer in running.answers():
            if answer is None:
                yield SIGN_OF_LIFE
                continue
            found.append(answer)
            for choice in _chunks(job, answer, chat=chat):
                yield _event(head, choice)
        if with_usage:
            yield f"data: {json.dumps(head | {'choices': [], 'usage': usage_of(job, found)})}\n\n"
        yield DONE
    except APIError as error:
        yield f"data: {json.dumps(error.content())}\n\n"
    except Exception as error:  # the status is sent already
        yield f"data: {json.dumps(failure(error).content())}\n\n"


def _chunks(job: Job, answer: Answer, *, chat: bool) -> list[dict[str, Any]]:
    """The chunks of one choice: the reasoning step by step, the content, and the end."""
    end = {"finish_reason": answer.finish_reason, "thinktree": _details(answer)}
    if not chat:
        text = answer.thought.answer or ""
        return [{"index": answer.index, "text": text, "logprobs": None} | end]
    parts = answer.reasoning.splitlines(keepends=True) if job.with_reasoning else []
    chunks = [_chunk(answer.index, {"reasoning_content": part}) for part in parts]
    chunks.append(_chunk(answer.index, {"content": answer.content}))
    return [*chunks, _chunk(answer.index, {}) | end]


def _chunk(index: int, delta: dict[str, Any]) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}


def _event(head: dict[str, Any], choice: dict[str, Any]) -> str:
    return f"data: {json.dumps(head | {'choices': [choice]})}\n\n"


def _head(job: Job, kind: str) -> dict[str, Any]:
    return {
        "id": job.id,
        "object": kind,
        "created": job.created,
        "model": job.model,
        "system_fingerprint": job.fingerprint,
        "trace_id": job.trace_id,
        "seed": job.seed,
    }


def _details(answer: Answer) -> dict[str, Any]:
    """What the search says of its answer (`trainer.searching.solve.Thought`)."""
    thought = answer.thought
    steps = zip(thought.steps, thought.step_scores, strict=True)
    return {
        "confidence": thought.confidence,
        "agreeing": thought.agreeing,
        "solutions": thought.solutions,
        "end": thought.end,
        "steps": [{"text": text, "score": score} for text, score in steps],
    }
