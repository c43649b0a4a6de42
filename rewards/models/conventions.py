"""How published process reward models are asked: one function of a tokenizer for each.

- qwen_math_prm (2501.07301 and its model card): a chat of system prompt, problem and steps; read at
  the `<extra_0>` after each step, softmax of 2 classes.
- math_shepherd (2312.08935 and its model card): the problem, then lines `Step i: ... ки`; read at
  each `ки`, the next token `+` against `-`.
- rlhflow (RLHFlow/RLHF-Reward-Modeling, math): a chat in which each step is a turn that is answered
  `+`; read before each answer, the next token `+` against `-`.
- skywork (SkyworkAI/skywork-o1-prm-inference): beginning-of-sequence, problem, a step a line; read
  at each line's end, sigmoid of a value head.
- trl (TRL's PRMTrainer, until 1.13): problem, steps, a separator after each; read at each
  separator's last token, softmax of 2 classes.
- outcome (TRL's RewardTrainer): problem and whole solution; sigmoid of one label at the last token
  that is no padding token.

Steps are asked without the white space around them (trl: that after them).
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

# Published models know these words by heart, so they stay as they are.
QWEN_SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
QWEN_TAG = "<extra_0>"
SHEPHERD_TAG = "ки"
NUMBERED = re.compile(r"Step \d+\s*:")


def qwen_math_prm(tokenizer: Any) -> Render:
    """One chat; the tag token stands right after every step of the assistant's turn."""
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
    """A step that is not numbered yet gets its `Step i: `, as all have in the training data."""
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
    """The problem stands before the first step. Each step is a user's turn that the assistant
    answers with `+`, whatever it would have said: the next turn is asked as after right steps."""
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
    """Problem and steps are encoded apart, and the line's end is a token of its own."""
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
    """Problem, steps and separators are encoded apart; a beginning-of-sequence token, if there is
    one, comes first. Raises ValueError for an empty separator."""
    separator: list[int] = tokenizer.encode(step_separator, add_special_tokens=False)
    if not separator:
        raise ValueError("step_separator is empty; each step is read at its last token")
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
    """A preference model's conversation: the problem and the whole solution, as a chat where the
    tokenizer has a template, else as text with the end token.

    The last step is read where transformers' sequence classifiers are, in training too: at the last
    token that is not the model's padding token, which is before the end token where one token is
    both. An earlier step is read where its text ends: the model was not trained for it."""
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
        # A template writes the beginning-of-sequence token itself; to text the tokenizer adds it.
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
    """Where the assistant's turn stands in a chat. Raises ValueError when the template changed
    it."""
    start = text.rfind(answer)
    if start < 0:
        raise ValueError("the chat template of the reward model's tokenizer changes what is said")
    return start


def _check_tags(token_ids: tuple[int, ...], positions: list[int], tag: int, text: str) -> None:
    for step, position in enumerate(positions):
        if token_ids[position] != tag:
            raise ValueError(
                f"step {step}: the tokenizer made token {token_ids[position]} of {text!r}, not "
                f"{tag}: the reward model would be read in the wrong place"
            )
