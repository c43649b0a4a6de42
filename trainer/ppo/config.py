"""What a PPO recipe says. The rewards' part is `trainer.rollouts.collect.RewardConfig`."""

from __future__ import annotations

from dataclasses import dataclass, field

from rewards.server.client import is_address
from trainer.ppo.critic_folders import STARTS, is_folder


@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """A cycle: `problems_per_cycle` x `samples_per_problem` rollouts, then `epochs` passes over
    them in `minibatches` optimizer steps each, in micro-batches of `micro_batch_size` rollouts a
    process. `problems` is a file of problems (those of the export stage by solve rate), else
    `<data>/<split>.jsonl`; they are taken in a shuffled order, again and again.

    `critic`: what the critic starts from (trainer/ppo/critic_folders.py), or the `critic` folder of
    an earlier run. KL penalties to the `reference` (null: the starting policy) cost
    `kl_coefficient` a nat, which moves towards `kl_target` nats a solution (0: fixed).
    `imitation_coefficient` weighs the mean negative log-likelihood of the verified trajectories in
    `trajectories` (folders of the search stage): off-policy, so it is a term of its own and never
    in the clipped ratio.

    Every `evaluate_every` cycles the greedy policy solves `evaluation_problems` validation problems
    (0: none). Training stops where the reward model's mean score is above, and the accuracy below,
    that of the best evaluation so far, the latter with a one-sided p under `stop_p_value` (0:
    never); the policy is then that of the best evaluation.

    `importance_cap`: the most that a token may weigh where another engine sampled it
    (`trainer.ppo.losses.importance_corrections`).

    `lora_rank` 0: all parameters are trained, in fp32 or from fp32 copies; above, adapters of actor
    and critic. `bf16`: sampling, scoring and training compute in bfloat16 (a launcher's
    mixed_precision does the same). `num_checkpoints` are kept.

    `record_rollouts` keeps all rollouts with their rewards in `rollouts.jsonl`; with `replay`, such
    a file, nothing is sampled and each cycle learns from what it recorded.
    """

    policy: str
    data: str
    reward_model: str | None = None
    critic: str = "policy"
    reference: str | None = None
    problems: str | None = None
    split: str = "train"
    skip: int = 0
    num_problems: int = 0  # 0: all
    trajectories: list[str] = field(default_factory=list[str])
    imitation_coefficient: float = 0.0
    verifier: str = "countdown"
    cycles: int = 60
    problems_per_cycle: int = 256
    samples_per_problem: int = 4
    max_new_tokens: int = 64
    temperature: float = 1.0
    epochs: int = 2
    minibatches: int = 4
    micro_batch_size: int = 256
    learning_rate: float = 1e-5
    critic_learning_rate: float = 1e-5
    warmup_cycles: int = 0
    decay: bool = True  # learning rates fall linearly to 0
    weight_decay: float = 0.0
    adam_beta2: float = 0.99
    max_grad_norm: float = 1.0
    clip: float = 0.2
    value_clip: float = 0.2
    value_coefficient: float = 1.0
    importance_cap: float = 2.0
    gae_lambda: float = 0.95
    kl_coefficient: float = 0.02
    kl_target: float = 0.0
    evaluate_every: int = 10
    evaluation_problems: int = 500
    evaluation_skip: int = 0
    stop_p_value: float = 0.01
    save_every: int = 10
    num_checkpoints: int = 2
    logged_completions: int = 8
    lora_rank: int = 0
    gradient_checkpointing: bool = False
    bf16: bool = False
    record_rollouts: bool = False
    replay: str | None = None

    def __post_init__(self) -> None:
        for name in (
            "cycles", "problems_per_cycle", "samples_per_problem", "max_new_tokens", "epochs",
            "minibatches", "micro_batch_size", "evaluate_every", "save_every", "num_checkpoints",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in (
            "learning_rate", "critic_learning_rate", "kl_coefficient", "kl_target", "value_clip",
            "imitation_coefficient", "lora_rank", "skip", "num_problems", "evaluation_problems",
            "evaluation_skip", "stop_p_value", "warmup_cycles", "logged_completions",
        ):  # fmt: skip
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}; PPO samples, so it is above 0")
        if not 0 < self.clip < 1:
            raise ValueError(f"clip is {self.clip}; it must be in (0, 1)")
        if not self.importance_cap >= 1:
            raise ValueError(f"importance_cap is {self.importance_cap}; it must be at least 1")
        if not 0 <= self.gae_lambda <= 1:
            raise ValueError(f"gae_lambda is {self.gae_lambda}; it must be in [0, 1]")
        self._check_critic()
        if self.lora_rank and self.reference is not None:
            raise ValueError(
                "reference is given, but with lora_rank above 0 it is the policy without adapters"
            )
        if self.imitation_coefficient > 0 and not self.trajectories:
            raise ValueError("imitation_coefficient is above 0, but no trajectories are given")

    def _check_critic(self) -> None:
        if self.critic not in STARTS and not is_folder(self.critic):
            raise ValueError(
                f"critic is {self.critic!r}; allowed: {', '.join(STARTS)}, or the path of a "
                "critic's folder (with a /)"
            )
        if self.critic in STARTS[1:] and self.reward_model is None:
            raise ValueError(f"critic is {self.critic!r}, but no reward_model is given")
        if self.critic in STARTS[1:] and is_address(self.reward_model or ""):
            raise ValueError(
                f"critic is {self.critic!r}, which needs the reward model's weights: "
                f"{self.reward_model} only serves its scores"
            )

    def micro_steps(self, processes: int) -> int:
        """Micro-batches an optimizer step, on each of `processes`.

        Raises ValueError where the rollouts of a cycle cannot be dealt evenly.
        """
        problems, parts = self.problems_per_cycle, self.minibatches
        by_problem = problems % (processes * parts) == 0
        by_sample = problems % processes == 0 and self.samples_per_problem % parts == 0
        if not (by_problem or by_sample):
            raise ValueError(
                f"problems_per_cycle is {problems}: it must be a multiple of processes x "
                f"minibatches ({processes * parts}), or of the {processes} processes while "
                f"samples_per_problem ({self.samples_per_problem}) is one of minibatches ({parts})"
            )
        rows = problems * self.samples_per_problem // processes // parts
        return -(-rows // self.micro_batch_size)
