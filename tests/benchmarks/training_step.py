"""Seconds a step and peak memory: our SFT and PRM beside TRL's SFTTrainer and RewardTrainer.

OMP_NUM_THREADS=1 python tests/benchmarks/training_step.py [--steps 30] [--repeats 5]

One model, optimizer, precision, batch and set of sequences for both sides. RewardTrainer takes
pairs: half as many of the same solutions, so that a step sees as many sequences. Each measurement
is a process of its own; the two sides alternate. A step's time is from the end of the step before;
the median of all but the first five counts. Memory is the most that the process held (CPU) or
allocated (GPU).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

WARM_UP = 5
ROWS = 512
KINDS = {"SFT": ("ours_sft", "trl_sft"), "reward model": ("ours_prm", "trl_reward")}
MODEL = {
    "model_type": "llama",
    "tie_word_embeddings": True,
    "max_position_embeddings": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}


def measure(side: str, options: argparse.Namespace) -> dict[str, float]:
    """In this process: the median step time, seconds, and the peak memory, bytes."""
    import torch
    from transformers import TrainerCallback

    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        SIDES[side](Path(folder), options, Clock())
    if len(times) != options.steps:
        raise RuntimeError(f"{side} made {len(times)} steps")
    seconds = [b - a for a, b in pairwise(times)][WARM_UP - 1 :]
    on_gpu = torch.cuda.is_available()
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    memory = torch.cuda.max_memory_allocated() if on_gpu else held
    return {"seconds": statistics.median(seconds), "memory": memory}


def inputs(options: argparse.Namespace) -> tuple[Any, Any, Any]:
    """A random policy, its tokenizer, and demonstrations with five numbers."""
    import torch

    from data.tasks.countdown import CountdownConfig
    from data.tasks.countdown_splits import make_splits
    from trainer.models.loading import build_policy

    config = CountdownConfig(
        num_numbers=5, min_number=1, max_number=30, max_value=99, min_target=10, max_target=99
    )
    splits = make_splits(config, 1, demonstrations=ROWS, train=0, validation=0, test=0)
    torch.manual_seed(1)
    sizes = {"hidden_size": options.hidden, "intermediate_size": 3 * options.hidden}
    model, tokenizer = build_policy(
        MODEL | sizes | {"num_hidden_layers": options.layers}, "numbers", 99
    )
    return model, tokenizer, splits.demonstrations


def arguments(kind: Any, folder: Path, options: argparse.Namespace, **more: Any) -> Any:
    import torch

    gpu = torch.cuda.is_available()
    fields = {
        "per_device_train_batch_size": options.batch,
        "gradient_accumulation_steps": options.accumulation,
        **more,
    }
    return kind(
        output_dir=str(folder), max_steps=options.steps, learning_rate=1e-3, bf16=gpu,
        gradient_checkpointing=False, report_to="none", save_strategy="no", logging_steps=10,
        disable_tqdm=True, use_cpu=not gpu, seed=1, **fields,
    )  # fmt: skip


def ours_sft(folder: Path, options: argparse.Namespace, clock: Any) -> None:
    from trl.trainer.sft_config import SFTConfig

    from trainer.training.token_rows import demonstration_rows, train_on_rows

    model, tokenizer, demonstrations = inputs(options)
    rows = demonstration_rows(demonstrations, tokenizer)
    with added(clock):
        train_on_rows(
            model, tokenizer, rows, arguments(SFTConfig, folder, options, max_length=None)
        )


def trl_sft(folder: Path, options: argparse.Namespace, clock: Any) -> None:
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    model, tokenizer, demonstrations = inputs(options)
    columns = {
        "prompt": [d.problem.prompt for d in demonstrations],
        "completion": [d.solution for d in demonstrations],
    }
    SFTTrainer(
        model=model,
        args=arguments(SFTConfig, folder, options, max_length=None),
        train_dataset=Dataset.from_dict(columns),
        processing_class=tokenizer,
        callbacks=[clock],
    ).train()


def ours_prm(folder: Path, options: argparse.Namespace, clock: Any) -> None:
    from transformers import TrainingArguments

    from data.types import StepLabels
    from trainer.models.loading import reward_model_from_policy, save_model
    from trainer.reward_models.step_labels import train_prm
    from trainer.training.token_rows import demonstration_rows

    model, tokenizer, demonstrations = inputs(options)
    save_model(model, tokenizer, folder / "policy")
    rows = [
        StepLabels(
            problem_id=d.problem.id, prompt=d.problem.prompt, prompt_ids=row.prompt_ids,
            completions=(d.solution,), completion_ids=(row.completion_ids,),
            labels=(i % 8 / 8,), counts=(8,), standard_errors=(0.1,),
        )
        for i, (d, row) in enumerate(
            zip(demonstrations, demonstration_rows(demonstrations, tokenizer), strict=True)
        )
    ]  # fmt: skip
    with added(clock):
        train_prm(
            reward_model_from_policy(str(folder / "policy")),
            tokenizer,
            rows,
            arguments(TrainingArguments, folder / "out", options),
        )


def trl_reward(folder: Path, options: argparse.Namespace, clock: Any) -> None:
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification
    from trl.trainer.reward_config import RewardConfig
    from trl.trainer.reward_trainer import RewardTrainer

    from trainer.models.loading import save_model
    from trainer.training.token_rows import demonstration_rows

    model, tokenizer, demonstrations = inputs(options)
    save_model(model, tokenizer, folder / "policy")
    ids = [
        [*row.prompt_ids, *row.completion_ids]
        for row in demonstration_rows(demonstrations, tokenizer)
    ]
    RewardTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(folder / "policy", num_labels=1),
        args=arguments(
            RewardConfig, folder / "out", options,
            per_device_train_batch_size=options.batch // 2, max_length=None,
        ),
        train_dataset=Dataset.from_dict({"chosen_ids": ids[::2], "rejected_ids": ids[1::2]}),
        processing_class=tokenizer,
        callbacks=[clock],
    ).train()  # fmt: skip


class added:
    """Our trainers take no callbacks: each that is built inside gets the clock."""

    def __init__(self, clock: Any) -> None:
        self.clock = clock

    def __enter__(self) -> None:
        from transformers import Trainer

        self.train = Trainer.train

        def train(trainer: Any, *args: Any, **keywords: Any) -> Any:
            trainer.add_callback(self.clock)
            return self.train(trainer, *args, **keywords)

        Trainer.train = train  # pyright: ignore[reportAttributeAccessIssue]

    def __exit__(self, *_: Any) -> None:
        from transformers import Trainer

        Trainer.train = self.train


SIDES: dict[str, Callable[[Path, argparse.Namespace, Any], None]] = {
    "ours_sft": ours_sft,
    "trl_sft": trl_sft,
    "ours_prm": ours_prm,
    "trl_reward": trl_reward,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in {
        "steps": 30, "repeats": 5, "batch": 16, "accumulation": 1, "hidden": 256, "layers": 4,
    }.items():  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--side", choices=SIDES, help="measure this one alone, as JSON")
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(options.side, options)))
        return
    print("| | ours, s a step | TRL | ratio (range) | ours, MB | TRL | ratio |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name, pair in KINDS.items():
        found: dict[str, list[dict[str, float]]] = {side: [] for side in pair}
        for i in range(options.repeats):
            for side in pair if i % 2 == 0 else pair[::-1]:
                words = [sys.executable, __file__, *sys.argv[1:], "--side", side]
                done = subprocess.run(
                    words, stdout=subprocess.PIPE, text=True, check=True, env=dict(os.environ)
                )
                found[side].append(json.loads(done.stdout.splitlines()[-1]))
        ours, theirs = found.values()
        ratios = [a["seconds"] / b["seconds"] for a, b in zip(ours, theirs, strict=True)]
        seconds = [statistics.median(row["seconds"] for row in rows) for rows in (ours, theirs)]
        memory = [statistics.median(row["memory"] for row in rows) / 1e6 for rows in (ours, theirs)]
        print(
            f"| {name} | {seconds[0]:.4f} | {seconds[1]:.4f} | {statistics.median(ratios):.3f} "
            f"({min(ratios):.3f} to {max(ratios):.3f}) | {memory[0]:.0f} | {memory[1]:.0f} | "
            f"{memory[0] / memory[1]:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
