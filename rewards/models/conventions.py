"""The prompt conventions of published process reward models: one function of a tokenizer each.

- qwen_math_prm (2501.07301 and its model card): a chat of system prompt, problem and steps. The
  score is the softmax of 2 classes at the `<extra_0>` after each step.
- math_shepherd (2312.08935 and its model card): the problem, then lines `Step i: ... ки`. The score
  compares the next tokens `+` and `-` at each `ки`.
- rlhflow (RLHFlow/RLHF-Reward-Modeling, math): a chat in which each step is a turn with the answer
  `+`. The score compares the next tokens `+` and `-` before each answer.
- skywork (SkyworkAI/skywork-o1-prm-inference): the beginning-of-sequence token, the problem, then
  one step per line. The score is the sigmoid of a value head at the end of each line.
- trl (TRL's PRMTrainer, until 1.13): the problem, then the steps with a separator after each. The
  score is the softmax of 2 classes at the last token of each separator.
- outcome (TRL's RewardTrainer): the problem and the whole solution. The score is the sigmoid of one
  label at the last token that is not a padding token.

The steps are written without the white space around them. The convention trl removes only the white
space after them.
"""

from __future__ import annotations

import re
from typing import Any

from data.types import SteppedSolution
from rewards.models.rendering import (
    Render,
    Rendering,
    chat,
    encode_with_places,
    single_token,
    without_special_tokens,
)

# Published models were trained with exactly these texts, so they must not change.
QWEN_SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
QWEN_TAG = "<extra_0>"
SHEPHERD_TAG = "ки"
NUMBERED = re.compile(r"Step \d+\s*:")


def qwen_math_prm(tokenizer: Any) -> Render:
    """One chat. The tag token follows every step of the assistant's turn."""
    tag = single_token(tokenizer, QWEN_TAG)
    clean = without_special_tokens(tokenizer, QWEN_TAG)

    def render(solution: SteppedSolution) -> Rendering:
        steps = [clean(step).strip() for step in solution.steps]
        answer = "".join(step + QWEN_TAG for step in steps)
        turns = [
            ("system", QWEN_SYSTEM),
            ("user", clean(solution.prompt).strip()),
            ("assistant", answer),
        ]
        text = chat(tokenizer, turns)
        end = _start_of(answer, text)
        encoded = encode_with_places(tokenizer, text, add_special_tokens=False)
        positions: list[int] = []
        for step in steps:
            positions.append(encoded.at(end + len(step)))
            end += len(step) + len(QWEN_TAG)
        _check_tags(encoded.token_ids, positions, tag, QWEN_TAG)
        return Rendering(token_ids=encoded.token_ids, step_ends=tuple(positions))

    return render


def math_shepherd(tokenizer: Any) -> Render:
    """The problem, then one numbered line per step. A step without a number gets `Step i: `, as all
    steps have it in the training data."""
    tag = single_token(tokenizer, SHEPHERD_TAG)
    clean = without_special_tokens(tokenizer)

    def render(solution: SteppedSolution) -> Rendering:
        text = clean(solution.prompt).strip()
        ends: list[int] = []
        for i, step in enumerate(solution.steps):
            line = clean(step).strip()
            number = "" if NUMBERED.match(line) else f"Step {i + 1}: "
            text += f"{' ' if i == 0 else chr(10)}{number}{line} {SHEPHERD_TAG}"
            ends.append(len(text) - 1)
        encoded = encode_with_places(tokenizer, text, add_special_tokens=True)
        positions = [encoded.at(end) for end in ends]
        _check_tags(encoded.token_ids, positions, tag, SHEPHERD_TAG)
        return Rendering(token_ids=encoded.token_ids, step_ends=tuple(positions))

    return render


def rlhflow(tokenizer: Any) -> Render:
    """Each step is a user's turn, and the problem is before the first step. The assistant answers
    every step with `+`, whatever its score is. So each step is scored as if all steps before it
    were right."""
    plus = single_token(tokenizer, "+")
    clean = without_special_tokens(tokenizer)

    def render(solution: SteppedSolution) -> Rendering:
        turns: list[tuple[str, str]] = []
        answers: list[int] = []
        for i, step in enumerate(solution.steps):
            line = clean(step).strip()
            turns.append(("user", line if i else f"{clean(solution.prompt).strip()} {line}"))
            answers.append(len(chat(tokenizer, turns, answer_next=True)))
            turns.append(("assistant", "+"))
        text = chat(tokenizer, turns)
        encoded = encode_with_places(tokenizer, text, add_special_tokens=False)
        positions = [encoded.at(answer) for answer in answers]
        _check_tags(encoded.token_ids, positions, plus, "+")
        return Rendering(
            token_ids=encoded.token_ids, step_ends=tuple(position - 1 for position in positions)
        )

    return render


def skywork(tokenizer: Any) -> Render:
    """The problem and each step are encoded separately. The end of a line is a separate token."""
    line_end: int = tokenizer.encode("\n", add_special_tokens=False)[-1]
    clean = without_special_tokens(tokenizer)

    def render(solution: SteppedSolution) -> Rendering:
        start = f"{tokenizer.bos_token or ''}{clean(solution.prompt).strip()}\n"
        ids: list[int] = list(tokenizer.encode(start, add_special_tokens=False))
        ends: list[int] = []
        for step in solution.steps:
            ids += [*tokenizer.encode(clean(step).strip(), add_special_tokens=False), line_end]
            ends.append(len(ids) - 1)
        return Rendering(token_ids=tuple(ids), step_ends=tuple(ends))

    return render


def trl(tokenizer: Any, step_separator: str = "\n") -> Render:
    """The problem, each step and each separator are encoded separately. A beginning-of-sequence
    token, if the tokenizer has one, comes first. Raises ValueError for an empty separator."""
    separator: list[int] = tokenizer.encode(step_separator, add_special_tokens=False)
    if not separator:
        raise ValueError("step_separator is empty; a step is scored at the separator's last token")
    clean = without_special_tokens(tokenizer)
    begin = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]

    def render(solution: SteppedSolution) -> Rendering:
        prompt: list[int] = tokenizer.encode(clean(solution.prompt), add_special_tokens=False)
        ids = [*begin, *prompt]
        ends: list[int] = []
        for step in solution.steps:
            ids += tokenizer.encode(clean(step).rstrip(), add_special_tokens=False)
            ids += separator
            ends.append(len(ids) - 1)
        return Rendering(token_ids=tuple(ids), step_ends=tuple(ends))

    return render


def outcome(tokenizer: Any, pad_token_id: int | None = None) -> Render:
    """The input of a preference model: the problem and the whole solution. It is a chat when the
    tokenizer has a chat template, else text with the end token.

    The last step is scored at the last token that is not the model's padding token. The sequence
    classifiers of transformers do the same, also in training. When the end token is also the
    padding token, this is the token before the end token. An earlier step is scored at the end of
    its text, but the model was not trained for this.
    """
    clean = without_special_tokens(tokenizer)
    end_token = "" if tokenizer.eos_token is None else str(tokenizer.eos_token)

    def render(solution: SteppedSolution) -> Rendering:
        prompt = clean(solution.prompt)
        steps = [clean(step) for step in solution.steps]
        written = "".join(steps)
        answer = written.rstrip()
        if tokenizer.chat_template is None:
            text, start = f"{prompt}{answer}{end_token}", len(prompt)
        else:
            said = answer.lstrip()
            text = chat(tokenizer, [("user", prompt.strip()), ("assistant", said)])
            start = _start_of(said, text) - (len(answer) - len(said))
        # A chat template writes the beginning-of-sequence token. For plain text, the tokenizer
        # must add it.
        in_text = tokenizer.chat_template is None
        encoded = encode_with_places(tokenizer, text, add_special_tokens=in_text)
        ends: list[int] = []
        length = 0
        for step in steps:
            length += len(step)
            ends.append(max(0, encoded.at(start + min(length, len(answer)) - 1)))
        kept = [i for i, token in enumerate(encoded.token_ids) if token != pad_token_id]
        ends[-1] = kept[-1] if kept else 0
        return Rendering(token_ids=encoded.token_ids, step_ends=tuple(ends))

    return render


def _start_of(answer: str, text: str) -> int:
    """The offset of the assistant's turn in the text of a chat. Raises ValueError when the template
    changed the turn."""
    start = text.rfind(answer)
    if start < 0:
        raise ValueError(
            "the chat template of the reward model's tokenizer changes the text of a turn"
        )
    return start


def _check_tags(token_ids: tuple[int, ...], positions: list[int], tag: int, text: str) -> None:
    for step, position in enumerate(positions):
        if token_ids[position] != tag:
            raise ValueError(
                f"step {step}: the tokenizer made token {token_ids[position]} of {text!r}, not "
                f"{tag}, so the reward model would be read at the wrong position"
            )
