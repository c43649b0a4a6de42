"""Steps as runs of token ids. A step ends at a token whose own text contains the delimiter.

Real tokenizers merge the delimiter with what precedes it (".\\n\\n" is one token), so steps are
found in token texts, never by splitting decoded text. A delimiter that a tokenizer spreads over
several tokens is not seen.
"""

from __future__ import annotations

from collections.abc import Sequence


def step_ends(token_texts: Sequence[str], delimiter: str = "\n") -> list[int]:
    """Offsets of each step's last token, ascending; [] for no tokens.

    `token_texts[i]` is token i decoded alone. The last token always ends a step: it is the end
    token of a finished solution, or where a truncated one was cut. Raises ValueError when
    `delimiter` is empty.
    """
    if not delimiter:
        raise ValueError("delimiter is ''; it must have at least one character")
    last = len(token_texts) - 1
    return [i for i, text in enumerate(token_texts) if delimiter in text or i == last]


def split_steps(
    token_ids: Sequence[int], token_texts: Sequence[str], delimiter: str = "\n"
) -> list[tuple[int, ...]]:
    """The ids of each step; joined they are `token_ids` again.

    Raises ValueError when there is not one text per id.
    """
    if len(token_ids) != len(token_texts):
        raise ValueError(
            f"token_texts has {len(token_texts)} texts; it must have one for each of the "
            f"{len(token_ids)} token_ids"
        )
    steps: list[tuple[int, ...]] = []
    start = 0
    for end in step_ends(token_texts, delimiter):
        steps.append(tuple(token_ids[start : end + 1]))
        start = end + 1
    return steps
