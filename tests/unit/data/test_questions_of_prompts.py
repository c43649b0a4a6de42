"""What a reward model with its own template is asked about: the prompt's question and no more."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.prompts import PROMPTS, question_of

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
