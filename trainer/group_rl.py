"""GRPO and RLOO: TRL's trainers with our problems, verifiers and process rewards.

Both sample a group of solutions a problem and take the group as the baseline; neither has a critic
or knows steps, so a process reward enters as one number a solution.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from data.problems import read_problems
from data.types import ModelUsage, Problem, Usage
from rewards.aggregate import AGGREGATES
from rewards.verifiers import VERIFIERS
from search.base import ScoreRequest
from search.engines.transformers_engine import TransformersEngine
from trainer.checkpoints import CheckpointManifest, latest_checkpoint
from trainer.held_out import HeldOut, HeldOutConfig
from trainer.manifests import write_json
from trainer.models import load_policy
from trainer.ppo_metrics import usage_numbers, usage_of
from trainer.rollouts import OUTCOMES, outcome_reward
from trainer.runtime import RuntimeConfig, process_state
from trainer.searching import open_engine
from trainer.sft import save_trained
from trainer.stage import run_stage
from trainer.step_progress import StepProgress


@dataclass(frozen=True, kw_only=True)
class GroupRLConfig:
    """`problems` is a file of problems, else `<data>/<split>.jsonl`. A solution earns its
    `outcome` (trainer/rollouts.py) plus `process_weight` times its process rewards, aggregated by
    `aggregate`; 0 needs no reward model."""

    policy: str
    data: str
    reward_model: str | None = None
    problems: str | None = None
    split: str = "train"
    skip: int = 0
    num_problems: int = 0  # 0: all
    verifier: str = "countdown"
    outcome: str = "verifier"
    process_weight: float = 0.0
    aggregate: str = "min"

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise ValueError(f"outcome is {self.outcome!r}; allowed: {', '.join(OUTCOMES)}")
        if self.aggregate not in AGGREGATES:
            raise ValueError(f"aggregate is {self.aggregate!r}; allowed: {', '.join(AGGREGATES)}")
        if self.process_weight and self.reward_model is None:
            raise ValueError("process_weight is not 0, but no reward_model is given")


@dataclass(slots=True, kw_only=True)
class SolutionReward:
    """A reward function as TRL calls it, on token ids as they were sampled. `usage` counts the
    sampling and the scoring of this process, `positions` and `flops` one forward pass over all that
    was sampled, for what training costs."""

    engine: TransformersEngine  # for its tokenizer, its steps and its counting alone
    scorer: Any
    config: GroupRLConfig
    problems: dict[str, Problem]
    verifier: Any
    usage: Usage = field(default_factory=Usage)
    positions: int = 0
    flops: float = 0.0
    __name__: str = "reward"

    def __call__(
        self, *, completion_ids: Sequence[Sequence[int]], problem_id: Sequence[str], **_: Any
    ) -> list[float]:
        rewards = [
            self._outcome(self.problems[id], tuple(ids))
            for id, ids in zip(problem_id, completion_ids, strict=True)
        ]
        prompts = [self.engine.encode(self.problems[id].prompt) for id in problem_id]
        for prompt, ids in zip(prompts, completion_ids, strict=True):
            self.usage += Usage(policy=self.engine.sample_usage(len(prompt), [len(ids)]))
            self.positions += len(prompt) + len(ids)
            self.flops += self.engine.flops.forward(0, len(prompt) + len(ids))
        if self.config.process_weight:
            aggregate = AGGREGATES[self.config.aggregate]
            scored = self.scorer.score_batch(
                [
                    (
                        id,
                        ScoreRequest(
                            node=0,
                            sequence=prompt + tuple(ids),
                            prompt_length=len(prompt),
                            step_ends=tuple(
                                len(prompt) + end for end in self.engine.step_ends(ids)
                            ),
                        ),
                    )
                    for id, prompt, ids in zip(problem_id, prompts, completion_ids, strict=True)
                ]
            )
            self.usage += Usage(reward=sum((s.usage for s in scored), ModelUsage()))
            rewards = [
                reward + self.config.process_weight * aggregate(s.scores)
                for reward, s in zip(rewards, scored, strict=True)
            ]
        return rewards

    def _outcome(self, problem: Problem, ids: tuple[int, ...]) -> float:
        if not ids or ids[-1] != self.engine.end_token_id:
            return 0.0  # truncated: no verifier is asked
        text = self.engine.decode(ids)
        coin = f"{self.engine.seed} {problem.id} {ids}"
        return outcome_reward(self.config.outcome, self.verifier, problem, text, coin)[0]


class KeepsCounts(TrainerCallback):
    """Puts what was spent into each checkpoint, so that a resumed run counts all of it."""

    def __init__(self, reward: SolutionReward, rank: int) -> None:
        self.reward = reward
        self.name = f"spent.rank{rank}.json"

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        spent = [*usage_numbers(self.reward.usage), self.reward.positions, self.reward.flops]
        write_json(folder / self.name, spent)

    def restore(self, checkpoint: Path) -> None:
        """Raises ValueError where the run had fewer processes."""
        if not (checkpoint / self.name).exists():
            raise ValueError(
                f"{checkpoint} was written by fewer processes than this run has: start it with as "
                "many as before"
            )
        *numbers, positions, flops = json.loads((checkpoint / self.name).read_text())
        self.reward.usage = usage_of(numbers)
        self.reward.positions, self.reward.flops = int(positions), flops


def run_group_rl(
    algorithm: str,
    runtime: RuntimeConfig,
    config: GroupRLConfig,
    evaluation: HeldOutConfig,
    arguments: Any,
) -> None:
    """Train `config.policy` by "grpo" or "rloo" and save it as a Hugging Face folder. `arguments`
    is TRL's config of that trainer. A run that was cut off goes on from its last checkpoint."""
    from datasets import Dataset
    from trl.trainer.grpo_trainer import GRPOTrainer
    from trl.trainer.rloo_trainer import RLOOTrainer

    trainers = {"grpo": GRPOTrainer, "rloo": RLOOTrainer}
    inputs: dict[str, str | None] = {
        "policy": config.policy,
        "data": config.data,
        "reward_model": config.reward_model,
        "problems": config.problems,
    }
    with run_stage(algorithm, runtime, [config, evaluation, arguments], inputs) as record:
        path = Path(config.problems or Path(config.data) / f"{config.split}.jsonl")
        problems = read_problems(path)[config.skip :]
        problems = problems[: config.num_problems or len(problems)]
        model, tokenizer = load_policy(config.policy)
        engine, scorer = open_engine(
            model, tokenizer, config.reward_model, seed=runtime.seed, device=model.device
        )
        reward = SolutionReward(
            engine=engine,
            scorer=scorer,
            config=config,
            problems={problem.id: problem for problem in problems},
            verifier=VERIFIERS[config.verifier](),
        )
        rows = [{"prompt": p.prompt, "problem_id": p.id} for p in problems]
        counts = KeepsCounts(reward, process_state().process_index)
        held_out = HeldOut(
            evaluation,
            engine,
            reward.verifier,
            data=config.data,
            folder=Path(runtime.output_dir),
            sampled=lambda: reward.usage.policy.generated_tokens,
        )
        trainer = trainers[algorithm](
            model=model.train(),
            reward_funcs=[reward],
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            # The manifest lists what is there before it.
            callbacks=[StepProgress(), held_out, counts, CheckpointManifest()],
        )
        checkpoint = latest_checkpoint(Path(arguments.output_dir))
        if checkpoint is not None:
            counts.restore(checkpoint)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        own = [*usage_numbers(reward.usage), float(reward.positions), reward.flops]
        total = torch.tensor(own, dtype=torch.float64, device=trainer.accelerator.device)
        *spent, positions, flops = trainer.accelerator.reduce(total, reduction="sum").tolist()
        save_trained(trainer, tokenizer, Path(runtime.output_dir))
        record.metrics |= {"problems": len(problems), "steps": trainer.state.global_step}
        usage = usage_of(spent)
        record.metrics["sampled_tokens"] = usage.policy.generated_tokens
        record.search(usage)
        record.search(held_out.usage())
        tokens = round(positions) * arguments.num_iterations
        record.training("policy", tokens, training_passes(arguments) * flops)


def training_passes(arguments: Any) -> int:
    """Forward passes over what was sampled: forward and backward cost three, the reference's is
    one more, and so are the old log-probabilities where a sample is learnt from after a step."""
    steps = arguments.steps_per_generation * arguments.num_iterations
    old = arguments.gradient_accumulation_steps % steps != 0
    return 3 * arguments.num_iterations + (arguments.beta > 0) + old
