"""GRPO and RLOO: TRL's trainers with our problems, verifiers and process rewards.

Both sample a group of solutions a problem and take the group as the baseline; neither has a critic
or knows steps, so a process reward enters as one number a solution.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from data.held_out import check_problems_held_out
from rewards.verifiers.by_name import VERIFIERS
from trainer.models.loading import load_policy
from trainer.rollouts.held_out import HeldOut, HeldOutConfig
from trainer.rollouts.solution_reward import GroupRLConfig, KeepsCounts, SolutionReward
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.processes import process_state
from trainer.runtime.row_files import usage_numbers, usage_of
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
    is TRL's config of that trainer. A run that was cut off goes on from its last checkpoint."""
    from datasets import Dataset
    from trl.trainer.grpo_trainer import GRPOTrainer
    from trl.trainer.rloo_trainer import RLOOTrainer

    trainers = {"grpo": GRPOTrainer, "rloo": RLOOTrainer}
    arguments.max_completion_length = evaluation.max_new_tokens  # one limit, by our name of it
    inputs: dict[str, str | None] = {
        "policy": config.policy,
        "data": config.data,
        "reward_model": config.reward_model,
        "problems": config.problems,
    }
    with run_stage(algorithm, runtime, [config, evaluation, arguments], inputs) as record:
        problems = config.chosen_problems()
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
        check_problems_held_out(held_out.problems, problems)
        trainer = trainers[algorithm](
            model=model.train(),
            reward_funcs=[reward],
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            # The manifest lists what is there before it.
            callbacks=[StepProgress(), held_out, counts, CheckpointManifest()],
        )
        train_to_the_end(trainer, count_tokens=False, restore=counts.restore)  # counted as sampled
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
