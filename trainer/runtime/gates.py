"""The validation problems of a gate, which no earlier gate on the way to its policies has used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.slices import Choice, Slice, validation_problems
from data.types import Problem
from trainer.runtime.manifests import MANIFEST, hash_input, read_json

# The inputs of a stage that its policy comes from.
POLICIES = ("policy", "model", "incumbent", "candidate")


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """When a new policy is kept: its greedy answers must be better than those of the policy before
    it. The gate uses the first `gate_problems` validation problems of `gate_slice`, or those from
    `gate_skip` on. No earlier gate may have used them.
    """

    gate_problems: int = 2000
    """Validation problems of the gate."""
    gate_skip: int = 0
    """Validation problems left out at the start, because other rounds use them."""
    gate_slice: str | None = None
    """Named slice of validation that the gate uses, in place of gate_skip; null: none."""
    gate_p_value: float = 0.05
    """The new policy is kept if the one-sided p value of its gain is below this."""
    max_new_tokens: int
    """Limit of one solution at the gate, in tokens after the prompt."""

    def __post_init__(self) -> None:
        if self.gate_problems < 1:
            raise ValueError(f"gate_problems is {self.gate_problems}; it must be at least 1")
        if not 0 < self.gate_p_value <= 1:
            raise ValueError(f"gate_p_value is {self.gate_p_value}; allowed: above 0, up to 1")

    def problems(self, data: str, policies: Sequence[str]) -> list[Problem]:
        """The gate's problems, from the data stage's folder. `policies` are the policies that are
        compared, or that the candidate is trained from.

        Raises ValueError where the validation problems are too few, and where one of them was used
        by an earlier gate on the way to a policy."""
        problems = validation_problems(data, self.gate_skip, self.gate_problems, self.gate_slice)
        if len(problems) < self.gate_problems:
            place = f"slice {self.gate_slice!r}" if self.gate_slice else f"{self.gate_skip} on"
            raise ValueError(
                f"the gate wants {self.gate_problems} validation problems from {place}, but there "
                f"are only {len(problems)}"
            )
        own = _slice(self.gate_skip, self.gate_problems, self.gate_slice, data)
        for folder, used in earlier_gates(policies, data):
            if own.overlaps(used):
                raise ValueError(
                    f"the gate uses validation problems {own.start}..{own.end - 1}; the gate of "
                    f"{str(folder)!r}, which made the policy, used {used.start}..{used.end - 1}. "
                    "Give each round a gate_slice of its own"
                )
        return problems


def earlier_gates(policies: Sequence[str], data: str) -> Iterator[tuple[Path, Slice]]:
    """The folders behind `policies` whose stage had a gate on the same data, and the problems that
    this gate used. A policy that an earlier gate refused led to the result too, so its gates are
    among them."""
    here = hash_input(data).get("fingerprint")
    waiting, seen = [Path(policy) for policy in policies], set[Path]()
    while waiting:
        folder = waiting.pop(0)
        manifest = read_json(folder / MANIFEST)
        if manifest is None or folder.resolve() in seen:
            continue
        seen.add(folder.resolve())
        recipe, inputs = manifest["recipe"], manifest["inputs"]
        same_data = inputs.get("data", {}).get("fingerprint") == here
        if recipe.get("gate_problems") and same_data:
            skip, name = recipe["gate_skip"], recipe.get("gate_slice")
            yield folder, _slice(skip, recipe["gate_problems"], name, data)
        waiting += [folder / inputs[name]["source"] for name in POLICIES if name in inputs]


def _slice(skip: int, size: int, name: str | None, data: str) -> Slice:
    return Choice(split="validation", skip=skip, size=size, name=name).resolve(Path(data))
