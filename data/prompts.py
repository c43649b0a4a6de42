"""Prompts: turn a question into text that a base model continues, or into a turn of a chat."""

from __future__ import annotations

import importlib
from typing import Any

# "{question}" is replaced by the row's question.
PROMPTS = {
    "question": "Question: {question}\nAnswer:\n",
    "boxed": "{question}\nReason step by step, one step a line, and put the final answer in "
    "\\boxed{}.\n\n",
    "hash": "{question}\nReason step by step, one step a line, and end with a line that says #### "
    "and the final answer.\n\n",
    "as_is": "{question}",
}


def render(question: str, style: str, chat_model: str | None) -> str:
    """The exact text that the policy continues. With `chat_model` (a folder or hub id), the text is
    a user's turn in the chat template of that model, followed by the beginning of the answer.

    Raises ValueError for an unknown style and for a model without a chat template.
    """
    if style not in PROMPTS:
        raise ValueError(f"prompt is {style!r}; allowed: {', '.join(PROMPTS)}")
    text = PROMPTS[style].replace("{question}", question.strip() if style != "as_is" else question)
    if chat_model is None:
        return text
    tokenizer = _tokenizer(chat_model)
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": text.strip()}], tokenize=False, add_generation_prompt=True
    )


def question_of(prompt: str, tokenizer: Any) -> str:
    """The question that `render` put into a prompt.

    This removes the chat template of `tokenizer`, the policy's tokenizer, and the text of `PROMPTS`
    from the prompt. Reward models with their own templates read this question. A part that is not
    recognised stays in the question, so a prompt that `render` did not make is returned unchanged.
    """
    text = prompt
    if getattr(tokenizer, "chat_template", None) is not None:
        turns = [{"role": "user", "content": _PLACE}]
        frame: str = tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True
        )
        before, _, after = frame.partition(_PLACE)
        if text.startswith(before) and text.endswith(after):
            text = text[len(before) : len(text) - len(after)]
    for style in PROMPTS.values():
        before, _, after = style.partition("{question}")
        bare = text.rstrip()
        end = after.rstrip()
        if (before or end) and text.startswith(before) and bare.endswith(end):
            return bare[len(before) : len(bare) - len(end)].strip()
    return text


_PLACE = "\u2060question\u2060"
_tokenizers: dict[str, Any] = {}


def _tokenizer(name: str) -> Any:
    if name not in _tokenizers:
        transformers: Any = importlib.import_module("transformers")  # seconds: only for chats
        tokenizer = transformers.AutoTokenizer.from_pretrained(name)
        if tokenizer.chat_template is None:
            raise ValueError(f"chat_model {name!r} has no chat template")
        _tokenizers[name] = tokenizer
    return _tokenizers[name]
