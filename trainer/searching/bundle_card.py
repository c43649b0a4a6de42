"""The model card of a bundle: what it holds, what its levels cost and reach, and how to use it."""

from __future__ import annotations

from trainer.searching.bundles import DEFAULT_EFFORT, Bundle, EffortLevel

CARD = """---
library_name: thinktree
pipeline_tag: text-generation
tags: [reasoning, test-time-search]
---
# {name}
A policy that reasons, and the search that lets it think longer. It was trained by the run
`{run}` with seed {seed}.

| part | where |
|---|---|
| policy | `{policy}` |
| reward model | {reward_model} |
{judge}| answers | verifier `{verifier}`: {answer_format} |
| prompt | `{template}`{chat} |

## Effort levels
Accuracy is strict, with its 95 % interval. Tokens and FLOPs are means per problem and count every
sample of the policy; FLOPs include the reward models'.

| level | search | budget | stop score | accuracy | problems | tokens | tokens of thought | FLOPs |
|---|---|---|---|---|---|---|---|---|
{levels}

The levels were chosen by these accuracies. The accuracy of a chosen level is therefore a little
optimistic if it was chosen on the problems on which it was measured ({splits}).

## Use
```bash
python scripts/solve.py --bundle FOLDER --effort {effort} --problem "..."
python scripts/serve.py --bundle FOLDER
```
`bundle.json` holds everything above for programs; `trainer.searching.bundles.read_bundle` reads it.
"""


def card_of(bundle: Bundle) -> str:
    """The README.md of a bundle."""
    model, judge = bundle.reward_model, bundle.judge
    return CARD.format(
        name=bundle.name,
        run=bundle.run,
        seed=bundle.seed,
        policy=bundle.policy,
        reward_model="none" if model is None else _place(model, "reward_model"),
        judge=""
        if judge is None
        else f"| judge, which chooses the answer | {_place(judge, 'judge')} |\n",
        verifier=bundle.verifier,
        answer_format=bundle.answer_format,
        template=repr(bundle.template)[1:-1],
        chat=", in the chat template" if bundle.chat else "",
        levels="\n".join(_row(level) for level in bundle.levels),
        splits=", ".join(dict.fromkeys(f"split {level.split}" for level in bundle.levels)),
        effort=DEFAULT_EFFORT,
    )


def _place(model: str, folder: str) -> str:
    return f"`{model}`" + ("" if model == folder else " (not in this folder)")


def _row(level: EffortLevel) -> str:
    accuracy, low, high = (f"{100 * x:.1f}" for x in (level.accuracy, level.low, level.high))
    stop = level.search_settings().stop_score
    cells = (
        level.name,
        level.measured_as,
        f"{level.budget:,}",
        f"{stop:g}" if stop else "never",
        f"{accuracy} % [{low}, {high}]",
        f"{level.problems:,}",
        f"{level.generated_tokens:,.1f}",
        "not measured" if level.thinking_tokens is None else f"{level.thinking_tokens:,.1f}",
        f"{level.flops:.3g}",
    )
    return f"| {' | '.join(cells)} |"
