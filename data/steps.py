"""Steps as runs of token ids. A step ends at a token that contains the delimiter in its text.

Real tokenizers merge the delimiter with the text before it (".\\n\\n" is one token). So the ends of
steps are read from the texts of single tokens. Decoded text is never split. A delimiter that a
tokenizer spreads over several tokens is not recognised.
"""

from __future__ import annotations

from collections.abc import Sequence


def step_ends(token_texts: Sequence[str], delimiter: str = "\n") -> list[int]:
    """The offset of each step's last token, in ascending order. [] for no tokens.

    `token_texts[i]` is token i decoded alone. The last token always ends a step. It is the end
    token of a finished solution, or the last token of a truncated one. Raises ValueError when
    `delimiter` is empty.
    """
    if not delimiter:
        raise ValueError("delimiter is ''; it must have at least one character")
    last = len(token_texts) - 1
    return [i for i, text in enumerate(token_texts) if delimiter in text or i == last]


def split_steps(
    token_ids: Sequence[int], token_texts: Sequence[str], delimiter: str = "\n"
) -> list[tuple[int, ...]]:
    """The token ids of each step. Joined, they are `token_ids` again.

    Raises ValueError when the numbers of texts and ids differ.
    """
    if len(token_ids) != len(token_texts):
        raise ValueError(
            f"token_texts has {len(token_texts)} texts; it must have one text per token id, "
            f"{len(token_ids)}"
        )
    steps: list[tuple[int, ...]] = []
    start = 0
    for end in step_ends(token_texts, delimiter):
        steps.append(tuple(token_ids[start : end + 1]))
        start = end + 1
    return steps
