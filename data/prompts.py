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


def render(question: str, style: str, chat_model: str | None, thinking: bool | None = None) -> str:
    """The exact text that the policy continues. With `chat_model` (a folder or hub id), the text is
    a user's turn in the chat template of that model, followed by the beginning of the answer
    (`chat_prompt`).

    Raises ValueError for an unknown style, for `thinking` without `chat_model`, and for a model
    without a chat template.
    """
    if style not in PROMPTS:
        raise ValueError(f"prompt is {style!r}; allowed: {', '.join(PROMPTS)}")
    text = PROMPTS[style].replace("{question}", question.strip() if style != "as_is" else question)
    if chat_model is None:
        if thinking is not None:
            raise ValueError(f"thinking is {thinking}; it needs chat_model, whose template it sets")
        return text
    return chat_prompt(_tokenizer(chat_model), text.strip(), thinking=thinking)


def chat_prompt(tokenizer: Any, text: str, *, thinking: bool | None = None) -> str:
    """A user's turn in the tokenizer's chat template, followed by the beginning of the answer.
    `thinking` is the template's `enable_thinking`, as in Qwen3; None: the template's own choice.

    Raises ValueError for a tokenizer without a chat template, and for a template that raises.
    """
    if getattr(tokenizer, "chat_template", None) is None:
        raise ValueError(f"the tokenizer of {tokenizer.name_or_path!r} has no chat template")
    options = {} if thinking is None else {"enable_thinking": thinking}
    try:
        return tokenizer.apply_chat_template(
            [{"role": "user", "content": text}],
            tokenize=False,
            add_generation_prompt=True,
            **options,
        )
    except Exception as error:  # a template is a program, and may raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"the chat template of {tokenizer.name_or_path!r} refuses a user's turn: {reason}"
        ) from None


def question_of(prompt: str, tokenizer: Any) -> str:
    """The question that `render` put into a prompt.

    This removes the chat template of `tokenizer`, the policy's tokenizer, and the text of `PROMPTS`
    from the prompt. Reward models with their own templates read this question. A part that is not
    recognised stays in the question, so a prompt that `render` did not make is returned unchanged.
    """
    text = prompt
    if getattr(tokenizer, "chat_template", None) is not None:
        for thinking in (False, None):  # without a thought, the template may write an empty one
            frame = chat_prompt(tokenizer, _PLACE, thinking=thinking)
            before, _, after = frame.partition(_PLACE)
            # The ids of a prompt lose its beginning token where they are decoded.
            bare = before.removeprefix(getattr(tokenizer, "bos_token", None) or "")
            for start in (before, bare):
                if text.startswith(start) and text.endswith(after):
                    text = text[len(start) : len(text) - len(after)]
                    break
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
