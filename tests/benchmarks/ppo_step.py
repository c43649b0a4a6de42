"""Where a PPO cycle's time goes, and model FLOPs a second against TRL's GRPOTrainer.

taskset -c 1 python tests/benchmarks/ppo_step.py [--rounds 5] [--problems 64] [--tokens 32] ...

One process, both trainers from one new actor (a Llama of 2.0 million parameters), the same reward
model, as many solutions of as many tokens, as many epochs and optimizer steps, the KL to the
reference in both. PPO has a critic of the actor's size beside it. They alternate, PPO inside a
callback after each of GRPO's generations and the steps on it; the first round is not counted. FLOPs
are `data.flops.FlopModel`'s of what both ledgers count: sampling, scoring, log-probabilities of
old policy and reference, forward and backward passes. A vocabulary of 1,000 numbers makes an end
by chance rare, so that nearly all solutions are cut at `--tokens`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback

from data.problems import write_problems
from data.tasks.countdown import make_problem
from data.types import Problem
from rewards.verifiers.by_name import VERIFIERS
from trainer.models.loading import build_policy, load_policy, reward_model_from_policy, save_model
from trainer.ppo.config import PPOConfig
from trainer.ppo.loop import PPORun
from trainer.rollouts.collect import RewardConfig
from trainer.rollouts.judging import Judges
from trainer.rollouts.solution_reward import GroupRLConfig, SolutionReward
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.row_files import METRICS
from trainer.runtime.tracking import Run
from trainer.searching.engines import open_engine
from trainer.stages.group_rl import training_passes

ACTOR = {
    "model_type": "llama",
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "tie_word_embeddings": True,
    "max_position_embeddings": 256,
}
SEED = 7


@dataclass(frozen=True, kw_only=True)
class Load:
    problems: int
    samples: int
    tokens: int
    epochs: int
    minibatches: int

    @property
    def solutions(self) -> int:
        return self.problems * self.samples


@dataclass(frozen=True, kw_only=True)
class Timed:
    seconds: float
    flops: float
    tokens: int  # generated

    @property
    def rate(self) -> float:
        return self.flops / self.seconds


class PPOSide:
    """Our trainer, a cycle at a time; the scorer's seconds are told apart from the sampling's."""

    def __init__(self, root: Path, load: Load, cycles: int) -> None:
        from accelerate import Accelerator

        config = PPOConfig(
            policy=str(root / "policy"), data=str(root), reward_model=str(root / "prm"),
            verifier="countdown",
            critic="reward_backbone", cycles=cycles, problems_per_cycle=load.problems,
            samples_per_problem=load.samples, max_new_tokens=load.tokens, epochs=load.epochs,
            minibatches=load.minibatches, micro_batch_size=load.solutions // load.minibatches,
            evaluation_problems=0, save_every=cycles + 1, learning_rate=1e-6,
        )  # fmt: skip
        (root / "ppo").mkdir()
        runtime = RuntimeConfig(output_dir=str(root / "ppo"), seed=SEED, wandb=False)
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=config.micro_steps(1))
        self.run = PPORun(runtime, config, RewardConfig(shape="potential"), accelerator, Run())
        self.metrics = root / "ppo" / METRICS
        self.scoring = 0.0
        scorer: Any = self.run.sampling.judges.scorer
        scorer.score_batch = self._timed(scorer.score_batch)

    def _timed(self, score: Callable[..., Any]) -> Callable[..., Any]:
        def scored(items: Any) -> Any:
            started = time.perf_counter()
            found = score(items)
            self.scoring += time.perf_counter() - started
            return found

        return scored

    def spent(self) -> tuple[float, int]:
        progress = self.run.progress
        flops = progress.usage.flops + progress.trained_flops
        return flops, progress.usage.policy.generated_tokens

    def cycle(self) -> tuple[Timed, dict[str, float]]:
        """A cycle and its parts' seconds."""
        before, self.scoring, started = self.spent(), 0.0, time.perf_counter()
        self.run._cycle()
        seconds = time.perf_counter() - started
        row = json.loads(self.metrics.read_text().splitlines()[-1])
        parts = {
            "generation": row["seconds_rollout"] - self.scoring,
            "scoring": self.scoring,
            "old and reference log-probs": row["seconds_logprobs"],
            "update": row["seconds_update"],
        }
        parts["the rest"] = seconds - sum(parts.values())
        flops, tokens = (now - then for now, then in zip(self.spent(), before, strict=True))
        return Timed(seconds=seconds, flops=flops, tokens=int(tokens)), parts


class Alternates(TrainerCallback):
    """Times TRL's steps on each generation, and runs a cycle of PPO after them."""

    def __init__(self, ppo: PPOSide, reward: SolutionReward, arguments: Any) -> None:
        self.ppo, self.reward, self.passes = ppo, reward, training_passes(arguments)
        self.steps = arguments.steps_per_generation * arguments.num_iterations
        self.rounds: list[tuple[Timed, Timed, dict[str, float]]] = []

    def spent(self) -> tuple[float, int]:
        flops = self.reward.usage.flops + self.passes * self.reward.flops
        return flops, self.reward.usage.policy.generated_tokens

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.before, self.started = self.spent(), time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.steps:
            return
        seconds = time.perf_counter() - self.started
        flops, tokens = (now - then for now, then in zip(self.spent(), self.before, strict=True))
        grpo = Timed(seconds=seconds, flops=flops, tokens=int(tokens))
        ppo, parts = self.ppo.cycle()
        self.rounds.append((ppo, grpo, parts))
        print(
            f"round {len(self.rounds)}: PPO {ppo.seconds:.2f} s, {ppo.rate / 1e9:.2f} GFLOP/s, "
            f"{ppo.tokens} tokens; GRPO {grpo.seconds:.2f} s, {grpo.rate / 1e9:.2f} GFLOP/s, "
            f"{grpo.tokens} tokens",
            flush=True,
        )
        self.before, self.started = self.spent(), time.perf_counter()


def run(root: Path, load: Load, rounds: int) -> Alternates:
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    problems = _folders(root, load)
    ppo = PPOSide(root, load, rounds + 1)
    model, tokenizer = load_policy(str(root / "policy"))
    engine, scorer = open_engine(
        model, tokenizer, str(root / "prm"), seed=SEED, device=torch.device("cpu")
    )
    config = GroupRLConfig(
        policy="", data="", reward_model=str(root / "prm"), process_weight=1.0,
        verifier="countdown",
    )  # fmt: skip
    reward = SolutionReward(
        engine=engine, config=config, problems={p.id: p for p in problems},
        judges=Judges(engine=engine, verifier=VERIFIERS["countdown"](), scorer=scorer),
    )  # fmt: skip
    arguments = GRPOConfig(
        output_dir=str(root / "grpo"), max_steps=(rounds + 1) * load.epochs * load.minibatches,
        per_device_train_batch_size=load.solutions // load.minibatches,
        steps_per_generation=load.minibatches, num_iterations=load.epochs,
        num_generations=load.samples, max_completion_length=load.tokens, temperature=1.0,
        learning_rate=1e-6, beta=0.01, bf16=False, gradient_checkpointing=False, use_cpu=True,
        report_to=[], disable_tqdm=True, save_strategy="no", logging_strategy="no", seed=SEED,
    )  # fmt: skip
    alternates = Alternates(ppo, reward, arguments)
    trainer = GRPOTrainer(
        model=model.train(), reward_funcs=[reward], args=arguments, processing_class=tokenizer,
        train_dataset=Dataset.from_list(
            [{"prompt": p.prompt, "problem_id": p.id} for p in problems]
        ),
        callbacks=[alternates],
    )  # fmt: skip
    trainer.train()
    return alternates


def _folders(root: Path, load: Load) -> list[Problem]:
    """`policy`, `prm` and train.jsonl with prompts of one length."""
    torch.manual_seed(SEED)
    save_model(*build_policy(ACTOR, "numbers", 1000), root / "policy")
    model, tokenizer = load_policy(str(root / "policy"))
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    save_model(reward_model_from_policy(str(root / "policy")), tokenizer, root / "prm")
    problems = [make_problem((1, 2, 3, 4 + i), 100 + i) for i in range(load.problems)]
    write_problems(root / "train.jsonl", problems)
    held_out = [make_problem((1, 2, 2, 4 + i), 100 + i) for i in range(load.problems)]
    write_problems(root / "validation.jsonl", held_out)
    return problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="after the first, uncounted one")
    parser.add_argument("--problems", type=int, default=64)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--minibatches", type=int, default=4)
    options = vars(parser.parse_args())
    rounds = options.pop("rounds")
    load = Load(**options)
    print(f"{load.solutions} solutions of {load.tokens} tokens; {load}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        counted = run(Path(folder), load, rounds).rounds[1:]
    total = sum(ppo.seconds for ppo, _, _ in counted)
    print("PPO's time:")
    for part in counted[0][2]:
        seconds = sum(parts[part] for _, _, parts in counted)
        print(f"  {part:<28}{seconds / rounds:7.2f} s a cycle {100 * seconds / total:5.1f} %")
    ratios = sorted(ppo.rate / grpo.rate for ppo, grpo, _ in counted)
    print(
        f"model FLOPs a second, PPO over GRPO: median {statistics.median(ratios):.2f}, from "
        f"{ratios[0]:.2f} to {ratios[-1]:.2f} in {len(ratios)} rounds"
    )


if __name__ == "__main__":
    main()
