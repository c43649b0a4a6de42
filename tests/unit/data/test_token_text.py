"""Text to ids and back with the tokenizers of published families, against transformers' own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data.token_text import TokenText
from rewards.models.folders import load_tokenizer

from ..families import CHAT_ML, FAMILIES, LINES, family_folder, generated_texts

TEXTS = generated_texts(1000)
BEGIN = {
    "llama_2": "<s>", "llama_2_with_end": "<s>", "mistral": "<s>", "llama_3": "<|begin_of_text|>",
    "gemma_3": "<bos>",
}  # fmt: skip
# The end token to write: that of a turn, where the chat template has one.
END = {
    "llama_2": "</s>", "llama_2_with_end": "</s>", "mistral": "</s>", "llama_3": "<|eot_id|>",
    "qwen_2.5": "<|im_end|>", "qwen_3": "<|im_end|>", "gemma_3": "<end_of_turn>",
    "smollm_2": "<|im_end|>", "phi": "<|endoftext|>",
}  # fmt: skip


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: Any, tmp_path_factory: Any) -> tuple[str, Any]:
    folder = family_folder(request.param, tmp_path_factory.mktemp("family"))
    return request.param, load_tokenizer(str(folder))


def test_a_prompt_is_encoded_as_transformers_does(family: tuple[str, Any]) -> None:
    name, tokenizer = family
    text = TokenText(tokenizer)
    begin = [BEGIN[name]] if name in BEGIN else []
    assert tokenizer.convert_ids_to_tokens(text.begin_ids) == begin
    ids = [text.encode_prompt(prompt) for prompt in TEXTS]
    whole = [tuple(row) for row in tokenizer(TEXTS)["input_ids"]]
    if name == "llama_2_with_end":
        assert {row[-1] for row in whole} == {tokenizer.eos_token_id}
        whole = [row[:-1] for row in whole]
    assert ids == whole
    for prompt, row in zip(TEXTS, ids, strict=True):
        # The tokenizers that put a space before a text take a leading space for their own.
        assert text.decode_prompt(row) in (prompt, prompt.removeprefix(" "))


def test_a_part_has_its_ids_in_the_whole_and_decodes_to_what_it_adds(
    family: tuple[str, Any],
) -> None:
    name, tokenizer = family
    text = TokenText(tokenizer)
    before = tokenizer("Question: 7;", add_special_tokens=False)["input_ids"]
    wholes = tokenizer([f"Question: 7;{part}" for part in TEXTS], add_special_tokens=False)
    apart = 0
    for part, whole in zip(TEXTS, wholes["input_ids"], strict=True):
        ids = text.encode(part)
        assert text.decode(ids) == part
        assert tokenizer.decode([*before, *ids], clean_up_tokenization_spaces=False) == (
            f"Question: 7;{part}"
        )
        apart += tuple(whole[len(before) :]) != ids
    # Only a line break at the start of a part can merge with the ";" before it.
    assert apart <= sum(part.startswith("\n") for part in TEXTS)
    assert apart == 0 or name in ("llama_3", "qwen_2.5", "qwen_3")


def test_steps_join_to_the_whole(family: tuple[str, Any]) -> None:
    _, tokenizer = family
    text = TokenText(tokenizer)
    merged = 0
    for solution in TEXTS[:300]:
        steps = solution.splitlines(keepends=True)
        ids = text.encode_steps(steps)
        assert "".join(map(text.decode, ids)) == solution
        joined = tuple(token for step in ids for token in step)
        merged += joined != text.encode(solution)
        assert all(ids)
    # Two line breaks in one token leave a step without a token: such solutions go step by step.
    assert merged <= sum("\n\n" in solution for solution in TEXTS[:300])


def test_code_in_steps_keeps_its_indents(family: tuple[str, Any]) -> None:
    _, tokenizer = family
    text = TokenText(tokenizer)
    steps = ["def add(a, b):\n", "    total = a\n", "\treturn total + b\n", "print(add(1, 2))"]
    ids = text.encode_steps(steps)
    assert tuple(token for step in ids for token in step) == text.encode("".join(steps))
    assert [text.decode(step).strip() for step in ids] == [step.strip() for step in steps]
    assert "".join(text.decode(step) for step in ids) == "".join(steps)


def test_end_tokens(family: tuple[str, Any]) -> None:
    name, tokenizer = family
    text = TokenText(tokenizer)
    ends = set(tokenizer.convert_tokens_to_ids(list(FAMILIES[name].ends)))
    assert text.end_token_ids == ends
    assert tokenizer.convert_ids_to_tokens(text.end_token_id) == END[name]
    for end in ends:
        assert text.decode((*text.encode("= 7"), end)) == "= 7"


def test_a_chat_has_its_beginning_token_once(family: tuple[str, Any]) -> None:
    name, tokenizer = family
    if tokenizer.chat_template is None:
        pytest.skip("a base model")
    turns = [{"role": "user", "content": "1 + 1 = ?"}]
    prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    ids = TokenText(tokenizer).encode_prompt(prompt)
    own = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)
    assert list(ids) == own["input_ids"]
    if name in BEGIN:
        assert ids.count(tokenizer.bos_token_id) == 1


def test_a_template_can_turn_thinking_off(family: tuple[str, Any]) -> None:
    name, tokenizer = family
    if name != "qwen_3":
        pytest.skip("no thinking")
    assert tokenizer.chat_template == CHAT_ML
    text = TokenText(tokenizer)
    opened = text.encode("<think>\nadd\n</think>\n\n2")
    assert opened[0] == tokenizer.convert_tokens_to_ids("<think>")  # one token, and no special one
    assert text.decode(opened) == "<think>\nadd\n</think>\n\n2"


def test_half_a_character_decodes_with_its_other_half(family: tuple[str, Any]) -> None:
    _, tokenizer = family
    text = TokenText(tokenizer)
    ids = text.encode("ok 🙂")
    assert text.decode(ids[:-1]).startswith("ok")
    assert text.decode(ids) == "ok 🙂"


def test_special_tokens_in_the_text_of_a_base_model_are_refused(tmp_path: Path) -> None:
    text = TokenText(load_tokenizer(str(family_folder("llama_2", tmp_path))))
    with pytest.raises(ValueError, match="special token '</s>'"):
        text.encode("one</s>two")
    assert text.encode_prompt("<s>" + LINES[0])[:1] == text.begin_ids


def test_steps_that_end_within_a_token_keep_their_texts(family: tuple[str, Any]) -> None:
    _, tokenizer = family
    text = TokenText(tokenizer)
    whole = "x def return for the answer"
    ids = text.encode(whole)
    parts = [text.decode([token]) for token in ids]
    at = next(i for i, part in enumerate(parts) if len(part.strip()) > 1)
    end = len("".join(parts[: at + 1])) - 1  # before the last letter of a token of several
    steps = [whole[:end], whole[end:]]
    assert [text.decode(step) for step in text.encode_steps(steps)] == steps
