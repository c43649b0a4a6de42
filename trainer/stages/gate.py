"""The gate stage keeps a new policy only if it is better than the policy before it.

It compares the greedy answers of the candidate and the incumbent on fresh validation problems with
a paired one-sided exact test. So every learner can have the gate that expert iteration has.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from rewards.verifiers.by_name import check_verifier
from trainer.evaluation.gate import run_gate_test
from trainer.models.compatibility import check_policy
from trainer.models.copying import copy_policy
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.gates import GateConfig
from trainer.runtime.processes import process_state
from trainer.runtime.stage import run_stage


@dataclass(frozen=True, kw_only=True)
class GateStageConfig:
    """The two policies of a gate, and their problems."""

    incumbent: str
    """Folder or hub id of the policy that stays if the candidate is not better."""
    candidate: str
    """Folder or hub id of the policy that must be better."""
    data: str
    """Folder of the data stage, with one JSONL file per split."""
    verifier: str
    """Verifier that judges solutions: math, countdown, code, reasoning_gym, ..."""

    def __post_init__(self) -> None:
        check_verifier(self.verifier)
        if self.candidate == self.incumbent:
            raise ValueError(
                f"candidate and incumbent are both {self.candidate!r}: name two policies"
            )


def run_gate(runtime: RuntimeConfig, config: GateStageConfig, gate: GateConfig) -> None:
    """Write the policy that won: the candidate, or the incumbent if the candidate is not better.

    Nothing is trained, so the folder records 0 updates. Raises the errors of `check_policy` for
    each policy, and those of `GateConfig.problems`."""
    inputs: dict[str, str | None] = {
        "incumbent": config.incumbent,
        "candidate": config.candidate,
        "data": config.data,
    }

    def check() -> None:
        check_policy(config.incumbent)
        check_policy(config.candidate)

    with run_stage("gate", runtime, [config, gate], inputs, check) as record:
        folder = Path(runtime.output_dir)
        result, spent = run_gate_test(
            config.incumbent,
            config.candidate,
            gate.problems(config.data, [config.incumbent, config.candidate]),
            folder / "gate",
            verifier=config.verifier,
            seed=runtime.seed,
            max_new_tokens=gate.max_new_tokens,
            p_value_below=gate.gate_p_value,
        )
        for usage in spent:
            record.search(usage)
        record.metrics |= {"gate": asdict(result), "updates": 0}
        state = process_state()
        if state.is_main_process:
            copy_policy(config.candidate if result.accepted else config.incumbent, folder)
        state.wait_for_everyone()
