"""One process, DDP, ZeRO-2 and ZeRO-3 train the same model; killed runs end as whole ones do.

python tests/benchmarks/distribution.py                  # everything: about 20 minutes on a core
python tests/benchmarks/distribution.py --trainers prm --launches cpu_zero3 --kills

For each trainer, one process that accumulates 4 batches is compared with two processes that
accumulate 2 under each launcher config: the loss of every step and the final weights (fp32, dropout
0, 6 steps). Then runs under DDP and ZeRO-3 are killed by SIGKILL and started again:
  one      one rank, after the first checkpoint; the others must end by themselves
  all      launcher and ranks, after the first checkpoint
  saving   all of them, while the second checkpoint is being written
  fewer    all of them; one process goes on, or where that cannot be, says so
The first three must end with the same weights, bit for bit, and the same losses as a run that was
not killed. Prints a Markdown table; exit status 1 if a row is not as it should be.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from safetensors.torch import load_file

from data.problems import write_demonstrations
from data.tasks.countdown import CountdownConfig
from data.tasks.countdown_splits import make_splits
from data.token_text import TokenText
from trainer.models.loading import build_policy, save_model
from trainer.training.checkpoints import is_whole

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-4
ROWS = 96
MODEL = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "max_position_embeddings": 256,
}
COMMON = (
    *("--seed", "5", "--wandb", "false", "--disable_tqdm", "true", "--logging_steps", "1"),
    *("--max_steps", "6", "--save_steps", "2", "--save_total_limit", "2"),
    *("--per_device_train_batch_size", "4", "--global_batch_size", "16", "--warmup_steps", "0"),
)
TRAINERS = ("sft", "sft_lora", "prm", "prm_lora")
LAUNCHES = ("cpu_ddp", "cpu_zero2", "cpu_zero3")
KILLED = ("cpu_ddp", "cpu_zero3")
KILLS = ("one", "all", "saving", "fewer")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison; `losses` and `weights` are the largest differences."""

    trainer: str
    launch: str
    kill: str
    losses: float
    weights: float
    allowed: float
    said: str = ""

    @property
    def good(self) -> bool:
        return max(self.losses, self.weights) <= self.allowed


class Bench:
    """Inputs and runs in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "labels").mkdir(parents=True, exist_ok=True)
        torch.manual_seed(1)
        model, tokenizer = build_policy(MODEL, "numbers", 40)
        save_model(model, tokenizer, folder / "policy")
        config = CountdownConfig(
            num_numbers=3, min_number=1, max_number=20, max_value=40, min_target=5, max_target=40
        )
        splits = make_splits(config, 3, demonstrations=ROWS, train=0, validation=0, test=0)
        demonstrations = splits.demonstrations
        (folder / "data").mkdir(exist_ok=True)
        write_demonstrations(folder / "data" / "demonstrations.jsonl", demonstrations)
        chance, text = random.Random(2), TokenText(tokenizer)
        with (folder / "labels" / "labels.jsonl").open("w", encoding="utf-8") as file:
            for row in demonstrations:
                steps = row.solution.splitlines(keepends=True)
                line = {
                    "problem_id": row.problem.id,
                    "prompt": row.problem.prompt,
                    "prompt_ids": text.encode_prompt(row.problem.prompt),
                    "completions": steps,
                    "completion_ids": text.encode_steps(steps),
                    "labels": [round(chance.random(), 3) for _ in steps],
                    "counts": [8] * len(steps),
                    "standard_errors": [0.1] * len(steps),
                }
                file.write(json.dumps(line) + "\n")

    def words(self, trainer: str, launch: str, folder: Path, *more: str) -> list[str]:
        kind, _, lora = trainer.partition("_")
        inputs = {
            "sft": ("--data", str(self.folder / "data")),
            "prm": ("--labels", str(self.folder / "labels")),
        }[kind]
        if kind == "prm" or lora:
            inputs += ("--model", str(self.folder / "policy"))
        else:
            inputs += ("--model_config", json.dumps(MODEL), "--max_number", "40")
        inputs += ("--lora_rank", "4") if lora else ()
        config = f"recipes/accelerate/{launch}.yaml"
        return [
            *(sys.executable, "-m", "accelerate.commands.launch", "--config_file", config),
            *more,
            *(f"scripts/train_{kind}.py", "--config", f"recipes/countdown/stages/{kind}.yaml"),
            *("--output_dir", str(folder), *COMMON, *inputs),
        ]

    def start(self, words: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        fixed = {
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }
        with log.open("ab") as sink:
            return subprocess.Popen(
                words, cwd=ROOT, env={**os.environ, **fixed}, stdout=sink, stderr=sink
            )

    def run(self, trainer: str, launch: str, folder: Path) -> Path:
        """Train to the end, unless `folder` has been; raises RuntimeError with what was said."""
        log = self.folder / f"{folder.name}.log"
        done = (folder / "manifest.json").exists()
        if not done and self.start(self.words(trainer, launch, folder), log).wait(timeout=300):
            raise RuntimeError(f"{folder.name} failed:\n{log.read_text()[-5000:]}")
        return folder

    def equality(self, trainer: str, launch: str) -> Row:
        one = self.run(trainer, "cpu", self.folder / f"{trainer}-cpu")
        two = self.run(trainer, launch, self.folder / f"{trainer}-{launch}")
        ledgers = [json.loads((f / "manifest.json").read_text())["usage"] for f in (one, two)]
        said = "" if ledgers[0] == ledgers[1] else f"ledgers differ: {ledgers}"
        return compared(trainer, launch, "", one, two, TOLERANCE, said)

    def kill(self, trainer: str, launch: str, kind: str) -> Row:
        whole = self.run(trainer, launch, self.folder / f"{trainer}-{launch}")
        cut = self.folder / f"{trainer}-{launch}-{kind}"
        log = self.folder / f"{cut.name}.log"
        child = self.start(self.words(trainer, launch, cut), log)
        if kind == "saving":
            torn = cut / "checkpoint-4"
            wait_until(child, lambda: torn.is_dir() and any(torn.iterdir()))
            kill_family(child)
            if is_whole(torn):
                raise RuntimeError(f"{cut.name}: the checkpoint was whole before the kill")
        else:
            wait_until(child, lambda: is_whole(cut / "checkpoint-2"))
            (kill_rank if kind == "one" else kill_family)(child)
        if (cut / "manifest.json").exists():
            raise RuntimeError(f"{cut.name}: training was over before the kill")
        if kind != "fewer":
            self.run(trainer, launch, cut)
            said = restored(log)
            if kind == "saving" and f"checkpoint-4 in {cut} was not written to its end" not in said:
                raise RuntimeError(f"{cut.name}: the torn checkpoint was not named: {said}")
            return compared(trainer, launch, kind, whole, cut, 0.0, said)
        again = "cpu" if launch == "cpu_ddp" else launch
        words = self.words(trainer, again, cut, "--num_processes", "1")
        status = self.start(words, log).wait(timeout=300)
        if launch == "cpu_ddp":
            return compared(trainer, launch, kind, whole, cut, TOLERANCE, restored(log))
        lines = log.read_text().splitlines()
        refusals = [line for line in lines if "cannot continue with 1" in line]
        if not status or not refusals:
            raise RuntimeError(f"{cut.name} went on:\n{log.read_text()[-3000:]}")
        refusal = "refused: " + refusals[0].partition("ValueError: ")[2].replace(str(cut), "…")
        return Row(
            trainer=trainer, launch=launch, kill=kind, losses=0, weights=0, allowed=0, said=refusal
        )


def compared(
    trainer: str, launch: str, kill: str, one: Path, two: Path, allowed: float, said: str
) -> Row:
    losses = [
        [row["loss"] for row in json.loads((f / "trainer_state.json").read_text())["log_history"]
         if "loss" in row]
        for f in (one, two)
    ]  # fmt: skip
    weights = [load_file(f / "model.safetensors") for f in (one, two)]
    if len(losses[0]) != 6 or len(losses[1]) != 6 or weights[0].keys() != weights[1].keys():
        raise RuntimeError(f"{one.name} and {two.name} cannot be compared: {losses}")
    return Row(
        trainer=trainer,
        launch=launch,
        kill=kill,
        losses=max(abs(a - b) for a, b in zip(*losses, strict=True)),
        weights=max(
            float((tensor.float() - weights[1][name].float()).abs().max())
            for name, tensor in weights[0].items()
        ),
        allowed=allowed,
        said=said.replace(str(two), "…"),
    )


def wait_until(child: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 200
    while not condition():
        if child.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"what was waited for never came (exit status {child.poll()})")
        time.sleep(0.001)


def kill_family(child: subprocess.Popen[bytes]) -> None:
    family = [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]
    for process in family:
        process.kill()
    psutil.wait_procs(family, timeout=30)
    child.wait()


def kill_rank(child: subprocess.Popen[bytes]) -> None:
    """Rank 1 alone; the launcher has to notice and end the rest."""
    family = psutil.Process(child.pid).children(recursive=True)
    next(p for p in family if p.environ().get("RANK") == "1").kill()
    if child.wait(timeout=120) == 0:
        raise RuntimeError("the launcher did not notice that a rank had died")
    _, alive = psutil.wait_procs(family, timeout=30)
    if alive:
        raise RuntimeError(f"still running after a rank had died: {alive}")


def restored(log: Path) -> str:
    said = [line for line in log.read_text().splitlines() if "resumed after" in line]
    said = [line for line in log.read_text().splitlines() if "to its end" in line] + said
    if not said or "resumed after step 2" not in said[-1]:
        raise RuntimeError(f"{log.name}: not resumed after step 2: {said}")
    return "; ".join(said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trainers", nargs="*", default=TRAINERS, choices=TRAINERS)
    parser.add_argument("--launches", nargs="*", default=LAUNCHES, choices=LAUNCHES)
    parser.add_argument("--kills", nargs="*", default=KILLS, choices=KILLS)
    parser.add_argument("--folder", type=Path, help="kept, and gone on from; else a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(options.folder or Path(temporary))
        print("| trainer | launch | killed | losses differ by | weights differ by | |")
        print("|---|---|---|---|---|---|", flush=True)
        bad = 0
        for trainer in options.trainers:
            rows = [(bench.equality, (trainer, launch)) for launch in options.launches]
            rows += [
                (bench.kill, (trainer, launch, kind))
                for launch in options.launches
                if launch in KILLED
                for kind in options.kills
            ]
            for make, arguments in rows:
                row = make(*arguments)
                bad += not row.good
                print(
                    f"| {row.trainer} | {row.launch} | {row.kill} | {row.losses:.1e} | "
                    f"{row.weights:.1e} | {row.said if row.good else 'WRONG ' + row.said} |",
                    flush=True,
                )
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
