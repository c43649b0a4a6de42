"""The PPO stage: reads a policy, problems and a reward model; writes the next policy."""

from __future__ import annotations

from trainer.models.sharding import open_accelerator
from trainer.ppo.config import PPOConfig
from trainer.ppo.critic_folders import is_critic_folder
from trainer.ppo.loop import SAMPLE_WITH_TRANSFORMERS, PPORun
from trainer.rollouts.collect import RewardConfig
from trainer.rollouts.vllm import RolloutEngineConfig, check_vllm
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.processes import process_state
from trainer.runtime.stage import numbered_inputs, run_stage


def run_ppo(
    runtime: RuntimeConfig,
    config: PPOConfig,
    rewards: RewardConfig,
    rollout_engine: RolloutEngineConfig = SAMPLE_WITH_TRANSFORMERS,
) -> None:
    """Train `config.policy` with PPO, and write the new policy and its critic.

    Raises ValueError if the shape needs a reward model and none is given, and if the rollouts
    cannot be divided evenly among the processes. Also raises the errors of `check_vllm`.
    """
    if rewards.shape != "outcome" and config.reward_model is None:
        raise ValueError(f"shape is {rewards.shape!r}, but no reward_model is given")
    if config.value_rollouts:
        _check_value_rollouts(rewards, rollout_engine)
    inputs: dict[str, str | None] = {
        "policy": config.policy,
        "data": config.data,
        "reward_model": config.reward_model,
        "problems": config.problems,
        "reference": config.reference,
        "critic": config.critic if is_critic_folder(config.critic) else None,
        "replay": config.replay,
    }
    inputs |= numbered_inputs("trajectories", config.trajectories)
    processes = process_state().num_processes
    micro_steps = config.micro_steps(processes)
    check_vllm(rollout_engine, processes)
    with run_stage("ppo", runtime, [config, rewards, rollout_engine], inputs) as record:
        record.check_start(config.policy)
        accelerator = open_accelerator(
            micro_steps=micro_steps,
            micro_batch_size=config.micro_batch_size,
            max_grad_norm=config.max_grad_norm,
            bf16=config.bf16,
        )
        run = PPORun(runtime, config, rewards, accelerator, record.run, rollout_engine)
        if run.sampling.vllm is not None:
            record.closing.append(run.sampling.vllm.close)
        run.train()
        run.save()
        progress = run.progress
        record.search(progress.usage)
        record.training("policy", progress.trained_tokens, progress.trained_flops)
        record.metrics |= {
            "cycles": progress.cycle,
            "updates": progress.cycle * config.epochs * config.minibatches,
            "stopped": progress.stopped,
        }
        if config.trajectories:
            record.metrics["imitated_trajectories"] = len(run.inputs.imitation)
        if progress.evaluations:
            record.metrics |= {
                "held_out_first": progress.evaluations[0].accuracy,
                "held_out_last": progress.evaluations[-1].accuracy,
                "held_out_problems": len(run.inputs.held_out),
            }


def _check_value_rollouts(rewards: RewardConfig, engine: RolloutEngineConfig) -> None:
    if rewards.shape != "outcome" or rewards.step_discount != 1:
        raise ValueError(
            f"value_rollouts needs shape outcome (not {rewards.shape!r}) and a step_discount of 1 "
            f"(not {rewards.step_discount}): its rollouts return their outcome"
        )
    if engine.rollout_engine != "transformers":
        raise ValueError(
            f"value_rollouts needs rollout_engine transformers (not {engine.rollout_engine!r})"
        )
