"""PPO's losses and final weights in one process and in two, under DDP, ZeRO-2 and ZeRO-3, from one
recorded file of rollouts: a tiny random policy and reward model, fp32, no dropout, 8 steps.

python tests/benchmarks/distribution_ppo.py outputs/distribution-ppo
python tests/benchmarks/distribution_ppo.py outputs/distribution-ppo --only accumulation zero3

Each kind of training (all parameters, adapters) is run once in one process with whole minibatches;
the others are compared with that run. Exits with 1 where a difference is above 1e-4.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from data.problems import write_problems
from data.settings import ROOT
from data.tasks.countdown import make_problem
from trainer.models.loading import build_policy, reward_model_from_policy, save_model
from trainer.pipeline.launch import child_environment, launcher_words
from trainer.rollouts.files import ROLLOUTS

MODEL = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True,
    "max_position_embeddings": 128, "initializer_range": 0.2,
}  # fmt: skip
OPTIONS = {
    "problems_per_cycle": 8, "samples_per_problem": 4, "max_new_tokens": 24, "cycles": 2,
    "epochs": 2, "minibatches": 2, "learning_rate": 2e-4, "critic_learning_rate": 1e-3,
    "kl_coefficient": 0.05, "shape": "step", "critic": "reward_model", "evaluate_every": 1,
    "evaluation_problems": 8, "truncated_reward": -0.5, "save_every": 1, "wandb": "false",
}  # fmt: skip
LOSSES = ("policy_loss", "value_loss", "kl", "entropy", "grad_norm")
TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Setup:
    """`micro` of a minibatch's 16 rollouts are in a micro-batch; `kind` is what is trained."""

    name: str
    kind: str
    launch: str
    micro: int
    more: tuple[str, ...] = ()


LORA = ("--lora_rank", "4")
CHECKPOINTED = ("--gradient_checkpointing", "true")
WHOLE = [
    Setup(name="full", kind="full", launch="cpu", micro=16),
    Setup(name="lora", kind="lora", launch="cpu", micro=16, more=LORA),
]
SETUPS = [
    Setup(name="accumulation", kind="full", launch="cpu", micro=4),
    Setup(name="ddp", kind="full", launch="cpu_ddp", micro=4),
    Setup(name="zero2", kind="full", launch="cpu_zero2", micro=4),
    Setup(name="zero3", kind="full", launch="cpu_zero3", micro=4),
    Setup(name="checkpointed", kind="full", launch="cpu", micro=16, more=CHECKPOINTED),
    Setup(name="zero3-checkpointed", kind="full", launch="cpu_zero3", micro=4, more=CHECKPOINTED),
    Setup(name="lora-ddp", kind="lora", launch="cpu_ddp", micro=4, more=LORA),
    Setup(name="lora-zero2", kind="lora", launch="cpu_zero2", micro=4, more=LORA),
    Setup(name="lora-zero3", kind="lora", launch="cpu_zero3", micro=4, more=LORA),
    Setup(
        name="lora-zero3-checkpointed", kind="lora", launch="cpu_zero3", micro=4,
        more=(*LORA, *CHECKPOINTED),
    ),
]  # fmt: skip


def make_inputs(folder: Path) -> None:
    """`policy`, `prm` and `data`, from fixed seeds."""
    torch.manual_seed(3)
    policy, tokenizer = build_policy(MODEL, "numbers", 40)
    save_model(policy, tokenizer, folder / "policy")
    save_model(reward_model_from_policy(str(folder / "policy")), tokenizer, folder / "prm")
    problems = [make_problem((1 + i % 5, 2 + i, 3), 6 + i) for i in range(16)]
    (folder / "data").mkdir()
    write_problems(folder / "data" / "train.jsonl", problems)
    held_out = [make_problem((1 + i % 5, 2 + i, 4), 7 + i) for i in range(16)]
    write_problems(folder / "data" / "validation.jsonl", held_out)


def run(folder: Path, setup: Setup, more: tuple[str, ...] = ()) -> float:
    """Launch one run into `folder/<name>`; returns its seconds. Raises RuntimeError if it fails."""
    launcher, _ = launcher_words(f"recipes/accelerate/{setup.launch}.yaml")
    words = [word for name, value in OPTIONS.items() for word in (f"--{name}", str(value))]
    inputs = {"policy": "policy", "reward_model": "prm", "data": "data", "output_dir": setup.name}
    words += [w for name, place in inputs.items() for w in (f"--{name}", str(folder / place))]
    words += ["--micro_batch_size", str(setup.micro), *setup.more, *more]
    started = time.monotonic()
    done = subprocess.run(
        [
            *(*launcher, "scripts/train_ppo.py"),
            *("--config", "recipes/countdown/stages/ppo.yaml", *words),
        ],
        cwd=ROOT, env=child_environment(2) | {"WANDB_MODE": "disabled"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    (folder / f"{setup.name}.log").write_text(done.stdout)
    if done.returncode != 0:
        raise RuntimeError(f"{setup.name} failed:\n{done.stdout[-4000:]}")
    return time.monotonic() - started


def metrics_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def differences(one: Path, two: Path) -> dict[str, float]:
    """The largest absolute differences of two runs: of each loss over the cycles, and of the
    policy's and the critic's weights."""
    rows = list(zip(metrics_of(one), metrics_of(two), strict=True))
    found = {name: max(abs(a[name] - b[name]) for a, b in rows) for name in LOSSES}
    for part in (".", "critic"):
        first, second = (load_file(f / part / "model.safetensors") for f in (one, two))
        if first.keys() != second.keys():
            raise RuntimeError(f"{one} and {two} hold other weights")
        gaps = [float((first[name] - second[name]).abs().max()) for name in first]
        found["policy" if part == "." else part] = max(gaps)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", choices=[setup.name for setup in SETUPS])
    arguments = parser.parse_args()
    folder: Path = arguments.folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    make_inputs(folder)
    setups = [s for s in SETUPS if arguments.only is None or s.name in arguments.only]
    recorded = Setup(name="recorded", kind="full", launch="cpu", micro=16)
    run(folder, recorded, ("--record_rollouts", "true"))
    replay = ("--replay", str(folder / "recorded" / ROLLOUTS))
    for base in WHOLE:
        if any(setup.kind == base.kind for setup in setups):
            run(folder, base, replay)
    columns = [*LOSSES, "policy", "critic"]
    print("| run | " + " | ".join(columns) + " | seconds |")
    print("|---" * (len(columns) + 2) + "|")
    worst = 0.0
    for setup in setups:
        seconds = run(folder, setup, replay)
        found = differences(folder / setup.kind, folder / setup.name)
        worst = max(worst, *found.values())
        cells = [f"{found[column]:.1e}" for column in columns]
        print(f"| {setup.name} | " + " | ".join(cells) + f" | {seconds:.0f} |", flush=True)
    sys.exit(worst > TOLERANCE)


if __name__ == "__main__":
    main()
