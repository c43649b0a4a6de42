"""The settings of PPO. The settings of the rewards are `trainer.rollouts.collect.RewardConfig`."""

from __future__ import annotations

from dataclasses import dataclass, field

from data.slices import Choice, check_file_or_slice, validation_problems
from data.types import Problem
from rewards.server.client import is_address
from rewards.verifiers.by_name import check_verifier
from trainer.ppo.critic_folders import STARTS, is_critic_folder

BASELINES = ("critic", "group")


@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """How PPO trains. A cycle samples `problems_per_cycle` x `samples_per_problem` rollouts, then
    makes `epochs` passes over them in `minibatches` optimizer steps each.

    Training stops early if an evaluation shows two things compared with the best evaluation so far:
    the reward model's mean score is higher, and the accuracy is lower with a one-sided p below
    `stop_p_value`. The policy of the best evaluation is then kept. The imitation loss is
    off-policy, so it is a separate term and never part of the clipped ratio.
    """

    policy: str
    """Folder or hub id of the policy."""
    data: str
    """Folder of the data stage, with one JSONL file per split."""
    reward_model: str | None = None
    """Folder, hub id, http address or YAML description of the reward model; null: none."""
    critic: str = "policy"
    """What the critic starts from: policy, reward_model, or the critic folder of an earlier run."""
    reference: str | None = None
    """Model that the KL penalty is measured against; null: the starting policy."""
    problems: str | None = None
    """File of problems to train on; null: those of the split."""
    split: str = "train"
    """Split whose problems are used: train, validation or test."""
    skip: int = 0
    """Problems left out at the start of the split."""
    slice: str | None = None
    """Named slice of the data stage's problems, in place of split and skip; null: none."""
    num_problems: int = 0
    """Problems trained on, again and again in shuffled order; 0: all."""
    trajectories: list[str] = field(default_factory=list[str])
    """Folders of the search stage whose verified solutions the policy also imitates."""
    imitation_coefficient: float = 0.0
    """Weight of the mean negative log-likelihood of these solutions; 0: none."""
    verifier: str
    """Verifier that judges solutions: math, countdown, code, reasoning_gym, ..."""
    cycles: int = 60
    """Cycles of sampling and updating."""
    problems_per_cycle: int = 256
    """Problems per cycle."""
    samples_per_problem: int = 4
    """Rollouts per problem and cycle."""
    max_new_tokens: int
    """Limit of one solution, in tokens after the prompt."""
    first_max_new_tokens: int | None = None
    """Limit in the first cycle; it grows evenly to max_new_tokens; null: it does not grow."""
    growth_cycles: int = 0
    """Cycles until the limit is max_new_tokens, with first_max_new_tokens."""
    limits: list[int] = field(default_factory=list[int])
    """Limits that the cycles take in turn, in place of max_new_tokens; empty: they do not."""
    mask_truncated: bool = False
    """Learn nothing from truncated solutions (overlong filtering, DAPO)."""
    filter_rounds: int = 0
    """Times per cycle that problems whose samples have one outcome are replaced; 0: never."""
    temperature: float = 1.0
    """Sampling temperature, above 0."""
    epochs: int = 2
    """Passes over the rollouts of a cycle."""
    minibatches: int = 4
    """Optimizer steps per pass."""
    micro_batch_size: int = 256
    """Rollouts per process in one forward and backward pass."""
    learning_rate: float = 1e-5
    """Peak learning rate of the policy."""
    critic_learning_rate: float = 1e-5
    """Peak learning rate of the critic."""
    warmup_cycles: int = 0
    """First cycles in which the learning rates rise linearly to their peaks."""
    critic_warmup_cycles: int = 0
    """First cycles in which the critic learns and the policy does not."""
    learning_rate_decay: bool = True
    """Lower the learning rates linearly to 0."""
    weight_decay: float = 0.0
    """Weight decay of AdamW."""
    adam_beta2: float = 0.99
    """Second-moment coefficient beta2 of AdamW, in [0, 1)."""
    max_grad_norm: float = 1.0
    """Largest norm of the gradients of policy and critic together; larger ones are clipped."""
    clip: float = 0.2
    """Clip range of the policy's ratio: [1 - clip, 1 + clip]."""
    clip_high: float | None = None
    """Upper clip range, 1 + clip_high (clip-higher, DAPO: 0.28); null: that of clip."""
    value_clip: float = 0.2
    """Largest change of a value since the sampling, in value clipping; 0: no clipping."""
    value_coefficient: float = 1.0
    """Weight of the value loss."""
    baseline: str = "critic"
    """What the returns are compared with: critic, or group (a problem's other samples, RLOO)."""
    value_rollouts: int = 0
    """Rollouts per step that give its state's value, as in VinePPO; 0: the critic gives it."""
    importance_cap: float = 2.0
    """Largest importance weight of a token that another engine sampled."""
    gae_lambda: float = 0.95
    """Lambda of generalised advantage estimation, in [0, 1]."""
    critic_gae_lambda: float | None = None
    """Lambda of the returns that the critic learns, as in VC-PPO (1: all rewards); null: equal."""
    kl_coefficient: float = 0.02
    """Penalty per nat of KL divergence from the reference."""
    kl_target: float = 0.0
    """Target KL in nats per solution, to which the penalty adapts; 0: the penalty is fixed."""
    evaluate_every: int = 10
    """Cycles between two greedy evaluations."""
    evaluation_problems: int = 500
    """Validation problems per evaluation; 0: no evaluation."""
    evaluation_skip: int = 0
    """Validation problems left out at the start."""
    evaluation_slice: str | None = None
    """Named slice of validation that evaluations use, in place of evaluation_skip; null: none."""
    stop_p_value: float = 0.01
    """Probability of a false stop by the guard against reward hacking; 0: it never stops."""
    save_every: int = 10
    """Cycles between two checkpoints."""
    num_checkpoints: int = 2
    """Checkpoints kept."""
    logged_completions: int = 8
    """Solutions per cycle that are logged as text."""
    lora_rank: int = 0
    """Rank of LoRA adapters of policy and critic; 0: all weights are trained."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory."""
    bf16: bool = False
    """Sample, score and train in bfloat16, like the launcher's mixed_precision."""
    record_rollouts: bool = False
    """Keep all rollouts with their rewards in rollouts.jsonl."""
    replay: str | None = None
    """A rollouts.jsonl to learn from instead of sampling; null: sample."""

    def __post_init__(self) -> None:
        check_verifier(self.verifier)
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
            "critic_warmup_cycles", "filter_rounds", "value_rollouts",
        ):  # fmt: skip
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}; it must be above 0 for sampling")
        if not self.importance_cap >= 1:
            raise ValueError(f"importance_cap is {self.importance_cap}; it must be at least 1")
        if not 0 <= self.gae_lambda <= 1:
            raise ValueError(f"gae_lambda is {self.gae_lambda}; it must be in [0, 1]")
        if self.critic_gae_lambda is not None and not 0 <= self.critic_gae_lambda <= 1:
            raise ValueError(
                f"critic_gae_lambda is {self.critic_gae_lambda}; it must be in [0, 1] or null"
            )
        self._check_critic()
        self._check_samples()
        self._check_baseline()
        self._check_limits()
        self._check_clip()
        if self.lora_rank and self.reference is not None:
            raise ValueError(
                "reference is given, but with lora_rank above 0 the policy without adapters is the "
                "reference: leave reference out"
            )
        if self.imitation_coefficient > 0 and not self.trajectories:
            raise ValueError("imitation_coefficient is above 0, but no trajectories are given")
        check_file_or_slice(self.problems, self.slice)

    def chosen_problems(self) -> list[Problem]:
        """The problems to train on, in order."""
        size = self.num_problems or None
        choice = Choice(split=self.split, skip=self.skip, size=size, name=self.slice)
        return choice.read_file(self.problems) if self.problems else choice.read(self.data)

    def held_out_problems(self) -> list[Problem]:
        """The validation problems of the evaluations."""
        return validation_problems(
            self.data, self.evaluation_skip, self.evaluation_problems, self.evaluation_slice
        )

    def _check_clip(self) -> None:
        if not 0 < self.clip < 1:
            raise ValueError(f"clip is {self.clip}; it must be in (0, 1)")
        if not self.upper_clip() >= self.clip:
            raise ValueError(
                f"clip_high is {self.clip_high}; it must be at least clip, {self.clip}, or null"
            )

    def _check_baseline(self) -> None:
        if self.baseline not in BASELINES:
            raise ValueError(f"baseline is {self.baseline!r}; allowed: {', '.join(BASELINES)}")
        if self.baseline == "critic":
            return
        if self.value_coefficient or self.value_rollouts or self.samples_per_problem < 2:
            raise ValueError(
                "baseline is 'group', so no critic is used: set value_coefficient and "
                "value_rollouts to 0, and samples_per_problem to at least 2"
            )

    @property
    def uses_critic(self) -> bool:
        """Whether the critic's values count."""
        return self.baseline == "critic" and not self.value_rollouts

    def upper_clip(self) -> float:
        """The largest ratio minus 1 that the loss rewards."""
        return self.clip if self.clip_high is None else self.clip_high

    def limit_in(self, cycle: int) -> int:
        """The most tokens of a solution in a cycle, counted from 0. The growing limit is that of
        DeepScaleR (Luo et al. 2025), in small steps. Limits in turn train for many budgets, as
        AnytimeReasoner does (Qi et al. 2025, arXiv 2505.13438), here with one in each cycle."""
        if self.limits:
            return self.limits[cycle % len(self.limits)]
        if self.first_max_new_tokens is None or cycle >= self.growth_cycles:
            return self.max_new_tokens
        span = self.max_new_tokens - self.first_max_new_tokens
        return self.first_max_new_tokens + span * cycle // self.growth_cycles

    def _check_limits(self) -> None:
        first, most = self.first_max_new_tokens, self.max_new_tokens
        if (first is None) != (self.growth_cycles == 0):
            raise ValueError(
                f"first_max_new_tokens is {first} and growth_cycles is {self.growth_cycles}: give "
                "both, or leave both out"
            )
        if first is not None and not (1 <= first <= most and self.growth_cycles > 0):
            raise ValueError(
                f"first_max_new_tokens is {first} and growth_cycles is {self.growth_cycles}; they "
                f"must be at least 1, and the first at most max_new_tokens, {most}"
            )

        if self.limits and first is not None:
            raise ValueError("limits and first_max_new_tokens are given: leave one of them out")
        if any(not 1 <= limit <= most for limit in self.limits):
            raise ValueError(
                f"limits is {self.limits}: each must be at least 1, and at most max_new_tokens, "
                f"{most}"
            )

    def _check_samples(self) -> None:
        if self.filter_rounds and (self.replay is not None or self.samples_per_problem < 2):
            raise ValueError(
                f"filter_rounds is {self.filter_rounds}: it needs at least 2 samples_per_problem, "
                "and no replay"
            )
        if self.value_rollouts and (self.value_coefficient or self.replay is not None):
            raise ValueError(
                f"value_rollouts is {self.value_rollouts}, so no critic is used and the policy "
                "samples: set value_coefficient to 0, and leave replay out"
            )

    def _check_critic(self) -> None:
        if self.critic not in STARTS and not is_critic_folder(self.critic):
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
        """Micro-batches per optimizer step on each of `processes` processes.

        Raises ValueError if the rollouts of a cycle cannot be divided evenly.
        """
        problems, parts = self.problems_per_cycle, self.minibatches
        by_problem = problems % (processes * parts) == 0
        by_sample = problems % processes == 0 and self.samples_per_problem % parts == 0
        if not (by_problem or by_sample):
            raise ValueError(
                f"problems_per_cycle is {problems}: it must be a multiple of processes x "
                f"minibatches ({processes * parts}); or, if samples_per_problem "
                f"({self.samples_per_problem}) is a multiple of minibatches ({parts}), a multiple "
                f"of the {processes} processes"
            )
        rows = problems * self.samples_per_problem // processes // parts
        return -(-rows // self.micro_batch_size)
