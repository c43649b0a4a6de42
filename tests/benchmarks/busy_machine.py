"""Training steps per second on a quiet and on a busy machine, by how threads wait for each other.

python tests/benchmarks/busy_machine.py [--seconds 8] [--repeats 3] [--loads quiet busy]
    [--only "one thread" launcher]

A process trains one small model in a loop. The settings take turns, first alone and then beside as
many processes as there are cores, which only compute. The median over the turns counts. `launcher`
is what trainer/pipeline/launch.py sets under this load. `processes` are as many processes as cores,
of one thread each, which divide the rows of an update (DDP, gloo): recipes/accelerate/cpu_ddp.yaml.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict

LOAD = "while True: pass"


def settings(cores: int) -> dict[str, dict[str, str]]:
    from trainer.pipeline.launch import waiting_environment

    threads = {"OMP_NUM_THREADS": str(cores)}
    return {
        "one thread": {"OMP_NUM_THREADS": "1"},
        "default": threads,
        "passive": threads | {"OMP_WAIT_POLICY": "PASSIVE"},
        **{
            f"spin {n}": threads | {"GOMP_SPINCOUNT": str(n)}
            for n in (0, 100, 1000, 10_000, 100_000)
        },
        "launcher": threads | waiting_environment(cores),
        "processes": {"OMP_NUM_THREADS": "1"},
    }


def steps_per_second(seconds: float, hidden: int, processes: int) -> float:
    """In this process: steps of a small language model's training, after a few to warm up."""
    import torch
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    if processes > 1:
        distributed.init_process_group("gloo")
    config = LlamaConfig(
        vocab_size=128, hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=4,
        num_attention_heads=4, max_position_embeddings=128,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    if processes > 1:
        model = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters())
    ids_BT = torch.randint(0, 128, (32 // processes, 48))
    steps, started = -3, 0.0
    going = torch.ones(1)
    while going:
        loss = model(input_ids=ids_BT, labels=ids_BT).loss
        assert loss is not None
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        steps += 1
        if steps == 0:
            started = time.perf_counter()
        if steps > 0:
            going.fill_(time.perf_counter() - started < seconds)
            if processes > 1:  # all end with the same step
                distributed.broadcast(going, 0)
    return steps / (time.perf_counter() - started)


def measure(choice: str, environment: dict[str, str], options: argparse.Namespace) -> float:
    words = ["--measure", "--seconds", str(options.seconds), "--hidden", str(options.hidden)]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    start = [sys.executable]
    if choice == "processes":
        cores = len(os.sched_getaffinity(0))
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(cores)]
        words += ["--processes", str(cores)]
    done = subprocess.run(
        [*start, __file__, *words],
        env=clean | environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--loads", nargs="+", default=["quiet", "busy"])
    parser.add_argument("--only", nargs="+", default=[], help="these settings instead of all")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--measure", action="store_true", help="one measurement, in this process")
    options = parser.parse_args()
    if options.measure:
        rate = steps_per_second(options.seconds, options.hidden, options.processes)
        if os.environ.get("RANK", "0") == "0":
            print(json.dumps(rate))
        return
    cores = len(os.sched_getaffinity(0))
    for name in options.loads:
        others = {"quiet": 0, "busy": cores}[name]
        rates: dict[str, list[float]] = defaultdict(list)
        load = [subprocess.Popen([sys.executable, "-c", LOAD]) for _ in range(others)]
        try:
            choices = settings(cores)  # the launcher's depends on the load
            for _ in range(options.repeats):
                for choice, environment in choices.items():
                    if options.only and choice not in options.only:
                        continue
                    rates[choice].append(measure(choice, environment, options))
                    print(f"{name} {choice}: {rates[choice][-1]:.2f}", file=sys.stderr, flush=True)
        finally:
            for process in load:
                process.kill()
        for choice, found in rates.items():
            print(f"{name:<6} {choice:<12} {statistics.median(found):6.2f} steps/s", flush=True)


if __name__ == "__main__":
    main()
