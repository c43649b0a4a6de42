"""What a request asks, as problems that the bundle's policy can read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from data.types import Problem
from trainer.searching.bundles import Bundle
from trainer.searching.typed_problems import PLACE, TYPED_TASKS, typed_problem
from trainer.serving.errors import APIError
from trainer.serving.schema import Message

MOST_OF_A_MESSAGE = 500  # characters: it may quote the problem


def problem_of_chat(messages: Sequence[Message], bundle: Bundle, tokenizer: Any) -> Problem:
    """The problem of a conversation. The last turn is the user's, and gets the bundle's prompt.
    Earlier turns need a chat template. Raises APIError for a conversation that has no such form."""
    if messages[-1].role != "user":
        raise _wrong("the last message must be the user's")
    question = messages[-1].text()
    if not question.strip():
        raise _wrong("the last message has no text")
    try:
        if len(messages) == 1:
            return typed_problem(
                question,
                task=bundle.task,
                template=bundle.template,
                answer=None,
                chat=bundle.chat,
                thinking=bundle.thinking,
                tokenizer=tokenizer,
            )
    except ValueError as error:
        raise _wrong(str(error)) from None
    if bundle.chat is False or getattr(tokenizer, "chat_template", None) is None:
        raise _wrong("this policy has no chat template: send one message, the user's problem")
    turns = [{"role": _role(m.role), "content": m.text()} for m in messages]
    turns[-1]["content"] = bundle.template.replace(PLACE, question).strip()
    options = {} if bundle.thinking is None else {"enable_thinking": bundle.thinking}
    try:
        prompt = tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True, **options
        )
    except Exception as error:  # a template is a program, and may raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _wrong(f"the chat template refuses the conversation: {reason}") from None
    return Problem(id="", prompt=prompt, answer="")


def problem_of_text(prompt: str, bundle: Bundle) -> Problem:
    """The problem of a prompt that is continued as it is."""
    task = TYPED_TASKS.get(bundle.task or "")
    if task is not None and task.from_text is not None:
        try:
            return replace(task.from_text(prompt), prompt=prompt)
        except ValueError:
            pass  # its solutions are then compared as texts
    return Problem(id="", prompt=prompt, answer="")


def seeded(problem: Problem, seed: int, choice: int) -> Problem:
    """The problem with an id that decides its noise: that of the seed, the choice and the prompt,
    and of nothing else. An answer is no part of it."""
    digest = hashlib.sha256(problem.prompt.encode()).hexdigest()[:24]
    return replace(problem, id=f"seed {seed}, choice {choice}, prompt {digest}", answer="")


def _role(role: str) -> str:
    return "system" if role == "developer" else role


def _wrong(message: str) -> APIError:
    if len(message) > MOST_OF_A_MESSAGE:
        half = MOST_OF_A_MESSAGE // 2
        message = f"{message[:half]} ... {message[-half:]}"
    return APIError(400, message, code="invalid_value", param="messages")
