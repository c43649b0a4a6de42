"""What a reward model with its own template is asked about: the prompt's question and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.prompts import PROMPTS, question_of, render

from ..families import FAMILIES

QUESTIONS = st.text(min_size=1).map(str.strip).filter(bool)


class Chat:
    """A tokenizer's chat template, by hand."""

    chat_template = "there is one"
    name_or_path = "chat"

    def apply_chat_template(
        self,
        messages: list[dict[str, str]],
        *,
        tokenize: bool,
        add_generation_prompt: bool,
        enable_thinking: bool = True,
    ) -> str:
        assert not tokenize and add_generation_prompt
        [message] = messages
        return f"<s>system: be good</s><s>{message['role']}: {message['content']}</s><s>assistant: "


class Plain:
    chat_template = None


@pytest.mark.parametrize("style", [style for style in PROMPTS if style != "as_is"])
@pytest.mark.parametrize("tokenizer", [Chat(), Plain()])
@given(question=QUESTIONS)
def test_what_render_put_in_comes_out(style: str, tokenizer: Any, question: str) -> None:
    text = PROMPTS[style].replace("{question}", question)
    if tokenizer.chat_template is not None:  # as data.prompts.render does
        turn = [{"role": "user", "content": text.strip()}]
        text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    assert question_of(text, tokenizer) == question


@pytest.mark.parametrize("text", ["3 5 7 -> 24\n", "What is 2 + 2?", "", "Question: why?"])
def test_other_prompts_are_their_own_questions(text: str) -> None:
    assert question_of(text, Plain()) == text
    assert question_of(text, Chat()) == text
    [turn] = [[{"role": "user", "content": text}]]
    chat = Chat().apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    assert question_of(chat, Chat()) == text


def test_a_prompt_without_a_thought(tmp_path: Path) -> None:
    """Qwen3's template writes an empty thought where thinking is off."""
    FAMILIES["qwen_3"].tokenizer().save_pretrained(tmp_path)
    on = render("1 + 1?", "as_is", str(tmp_path))
    assert on == "<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n"
    assert render("1 + 1?", "as_is", str(tmp_path), True) == on
    assert render("1 + 1?", "as_is", str(tmp_path), False) == on + "<think>\n\n</think>\n\n"
    with pytest.raises(ValueError, match="thinking is False; it needs chat_model"):
        render("1 + 1?", "as_is", None, False)
