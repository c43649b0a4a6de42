"""The model card of our reward models: their inputs, and the meaning of their scores."""

from __future__ import annotations

SCORES = {
    "steps": (
        "step labels of its policy's own solutions",
        "P is the estimated probability that the solution, continued by the policy from there, "
        "ends\n  correct.",
    ),
    "outcome": (
        "the outcomes of its policy's own finished solutions",
        "At the end token P is the estimated probability that the solution is correct. It was "
        "trained at\n  no other place: what it says of an unfinished solution is an extrapolation.",
    ),
    "pairs": (
        "preference pairs of steps and of solutions (rStar-Math, 2501.04519)",
        "P ranks steps with the same preceding ones, and solutions to one problem. Its level is "
        "left open\n  by the training: P is a probability only after calibration (a bias other "
        "than 0 says that there\n  was one), and then on average.",
    ),
}
PROCESS_MODEL_CARD = """---
library_name: transformers
pipeline_tag: token-classification
tags: [{tag}]
---
A reward model, trained with thinktree on {data}.

- Asked with the policy's token ids: the prompt as the policy gets it, then the solution as sampled,
  with its end token. A step ends at a token whose text has a line break, or at the last token.
- Read at every step's last token: with the logits of label 0, "incorrect", and label 1, "correct",
  P = sigmoid((logit 1 - logit 0) / T + b), in [0, 1]. T and b are `thinktree_temperature` and
  `thinktree_bias` in config.json, 1 and 0 where they are absent.
- {meaning}
- `thinktree_convention` in config.json is "thinktree", `thinktree_targets` is "{targets}". It loads
  in plain transformers:

```python
from transformers import AutoModelForTokenClassification

model = AutoModelForTokenClassification.from_pretrained(folder)
logits = model(input_ids=ids).logits
scores = ((logits[..., 1] - logits[..., 0]) / temperature + bias).sigmoid()
```
"""


WITH_POLICY = """
The folder `policy` holds the policy with the same decoder: only the heads differ. A search with
both computes keys and values once (docs/reward-models.md).
"""


def model_card(targets: str, *, with_policy: bool = False) -> str:
    """The README.md of a model trained on `targets`, one of `SCORES`. `with_policy`: its folder
    also holds the policy on its trunk."""
    data, meaning = SCORES[targets]
    tag = "outcome-reward-model" if targets == "outcome" else "process-reward-model"
    card = PROCESS_MODEL_CARD.format(tag=tag, data=data, meaning=meaning, targets=targets)
    return card + WITH_POLICY if with_policy else card
