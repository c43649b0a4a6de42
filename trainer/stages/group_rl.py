"""GRPO and RLOO: TRL's trainers with our problems, verifiers and process rewards.

Both sample a group of solutions per problem and use the group as the baseline. Neither has a critic
or knows steps, so the process reward is one number per solution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from data.held_out import check_problems_held_out
from data.types import Problem
from rewards.verifiers.by_name import VERIFIERS
from trainer.models.loading import load_policy
from trainer.rollouts.group_filter import check_filtering, filtering_trainer
from trainer.rollouts.held_out import HeldOut, HeldOutConfig
from trainer.rollouts.judging import Judges
from trainer.rollouts.solution_reward import GroupRLConfig, KeepsCounts, SolutionReward
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.processes import process_state
from trainer.runtime.stage import run_stage
from trainer.searching.engines import open_engine
from trainer.training.checkpoints import CheckpointManifest, train_to_the_end
from trainer.training.step_progress import StepProgress
from trainer.training.trained import save_trained


def run_group_rl(
    algorithm: str,
    runtime: RuntimeConfig,
    config: GroupRLConfig,
    evaluation: HeldOutConfig,
    arguments: Any,
) -> None:
    """Train `config.policy` by "grpo" or "rloo" and save it as a Hugging Face folder. `arguments`
    is TRL's config of that trainer. An interrupted run continues from its last checkpoint."""
    from datasets import Dataset

    arguments.max_completion_length = evaluation.max_new_tokens  # one limit, by our name of it
    check_filtering(config.filter_rounds, arguments)
    inputs: dict[str, str | None] = {
        "policy": config.policy,
        "data": config.data,
        "reward_model": config.reward_model,
        "problems": config.problems,
    }
    with run_stage(algorithm, runtime, [config, evaluation, arguments], inputs) as record:
        record.check_start(config.policy)
        problems = config.chosen_problems()
        model, tokenizer = load_policy(config.policy)
        reward = _open_reward(config, model, tokenizer, problems, runtime.seed)
        rows = [{"prompt": p.prompt, "problem_id": p.id} for p in problems]
        counts = KeepsCounts(reward, process_state().process_index)
        held_out = HeldOut(
            evaluation,
            reward.engine,
            reward.judges.verifier,
            data=config.data,
            folder=Path(runtime.output_dir),
            sampled=lambda: reward.usage.policy.generated_tokens,
        )
        check_problems_held_out(held_out.problems, problems)
        trainer = _trainer_type(algorithm, reward, config.filter_rounds, runtime.seed)(
            model=model.train(),
            reward_funcs=[reward],
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            # CheckpointManifest comes last: it lists the files that the other callbacks wrote.
            callbacks=[StepProgress(), held_out, counts, CheckpointManifest()],
        )
        # The reward counts the tokens as they are sampled.
        train_to_the_end(trainer, count_tokens=False, restore=counts.restore)
        spent = _spent(reward, trainer.accelerator)
        save_trained(trainer, tokenizer, Path(runtime.output_dir))
        record.metrics |= {
            "problems": len(problems),
            "updates": trainer.state.global_step,
            "sampled_tokens": spent.usage.policy.generated_tokens,
        }
        record.search(spent.usage)
        record.search(held_out.usage())
        learnt = spent.positions - spent.unlearnt_positions
        record.training(
            "policy", learnt * arguments.num_iterations, training_flops(spent, arguments)
        )


def _trainer_type(algorithm: str, reward: SolutionReward, filter_rounds: int, seed: int) -> Any:
    """TRL's trainer of the algorithm, with or without online filtering."""
    from trl.trainer.grpo_trainer import GRPOTrainer
    from trl.trainer.rloo_trainer import RLOOTrainer

    trainer = {"grpo": GRPOTrainer, "rloo": RLOOTrainer}[algorithm]
    return filtering_trainer(trainer, reward, filter_rounds, seed) if filter_rounds else trainer


def _open_reward(
    config: GroupRLConfig, model: Any, tokenizer: Any, problems: Sequence[Problem], seed: int
) -> SolutionReward:
    engine, scorer = open_engine(
        model, tokenizer, config.reward_model, seed=seed, device=model.device
    )
    return SolutionReward(
        engine=engine,
        judges=Judges(engine=engine, verifier=VERIFIERS[config.verifier](), scorer=scorer),
        config=config,
        problems={problem.id: problem for problem in problems},
    )


def _spent(reward: SolutionReward, accelerator: Any) -> SolutionReward:
    """The reward with the counts of all processes together."""
    total = torch.tensor(reward.counts(), dtype=torch.float64, device=accelerator.device)
    everyone = replace(reward)
    everyone.restore(accelerator.reduce(total, reduction="sum").tolist())
    return everyone


def training_flops(spent: SolutionReward, arguments: Any) -> float:
    """All passes over the samples that are learnt from, and over the others those without a
    backward pass."""
    passes = training_passes(arguments)
    forward = passes - 3 * arguments.num_iterations
    unlearnt = spent.unlearnt_flops
    return passes * (spent.flops - unlearnt) + forward * unlearnt


def training_passes(arguments: Any) -> int:
    """Forward passes over the samples. A forward and backward pass cost three. The reference costs
    one more, and so do the old log-probabilities if a sample is used after an optimizer step."""
    steps = arguments.steps_per_generation * arguments.num_iterations
    old = arguments.gradient_accumulation_steps % steps != 0
    return 3 * arguments.num_iterations + (arguments.beta > 0) + old
