"""PPO with process rewards (1707.06347; with reward models: InstructGPT 2203.02155, Math-Shepherd
2312.08935): rollouts by the search engine, rewards by verifier and reward model, then clipped
updates of actor and critic.

Everything random is keyed by (seed, cycle), so what a cycle does depends on the weights before it
alone: a run that is cut off goes on from its last whole checkpoint and ends the same to the bit.
"""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object

from data.problems import read_problems
from data.types import Problem, Usage
from rewards.bit_identity import use_plain_attention_on_cpu
from rewards.verifiers import VERIFIERS
from search.flops import flop_model
from search.tree import usage_from_json
from trainer.actor_critic import ActorCritic, build_critic, token_logprobs
from trainer.advantages import KLController
from trainer.checkpoints import latest_checkpoint, mark_whole, remove_partial_checkpoints
from trainer.making_trees import read_trajectories
from trainer.models import load_policy, save_model
from trainer.ppo_batch import Batch, make_batch
from trainer.ppo_config import PPOConfig
from trainer.ppo_guards import Evaluation, dead_signals, stop_reason
from trainer.ppo_metrics import (
    Stopwatch,
    append_rows,
    completion_rows,
    cycle_metrics,
    keep_before,
    usage_numbers,
    usage_of,
)
from trainer.ppo_update import Learner
from trainer.rollouts import RewardConfig, Rollout, SamplingConfig, collect
from trainer.runtime import Run, RuntimeConfig, process_state
from trainer.searching import open_engine
from trainer.stage import run_stage

METRICS, COMPLETIONS = "metrics.jsonl", "completions.jsonl"
EVALUATIONS, BEST = "evaluations.jsonl", "best"


@dataclass(slots=True, kw_only=True)
class Progress:
    """What a run that goes on must know beside weights and optimizer."""

    kl: KLController
    cycle: int = 0
    evaluations: list[Evaluation] = field(default_factory=list[Evaluation])
    usage: Usage = field(default_factory=Usage)
    trained_tokens: int = 0
    trained_flops: float = 0.0
    stopped: str = ""  # why training ended early

    def state_dict(self) -> dict[str, Any]:
        """As JSON: checkpoints are read back as weights only."""
        return {"json": json.dumps(asdict(self))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        values = json.loads(state["json"])
        self.kl = KLController(**values.pop("kl"))
        self.usage = usage_from_json(values.pop("usage"))
        self.evaluations = [
            Evaluation(cycle=row["cycle"], correct=tuple(row["correct"]), proxy=row["proxy"])
            for row in values.pop("evaluations")
        ]
        for name, value in values.items():
            setattr(self, name, value)


def problem_order(problems: Sequence[Problem], cycle: int, size: int, seed: int) -> list[Problem]:
    """The `size` problems of a cycle: all problems are gone through in a shuffled order before any
    comes again. Raises ValueError for more than there are."""
    if size > len(problems):
        raise ValueError(f"problems_per_cycle is {size}, but there are {len(problems)} problems")
    chosen: list[Problem] = []
    position = cycle * size
    while len(chosen) < size:
        pass_number, offset = divmod(position + len(chosen), len(problems))
        order = list(range(len(problems)))
        random.Random(f"{seed} problems {pass_number}").shuffle(order)
        chosen += [problems[i] for i in order[offset : offset + size - len(chosen)]]
    return chosen


class PPORun:
    """The models, and the cycles over them. Every method is called on all processes."""

    def __init__(
        self,
        runtime: RuntimeConfig,
        config: PPOConfig,
        rewards: RewardConfig,
        accelerator: Any,
        log: Run,
    ) -> None:
        self.config, self.rewards, self.accelerator, self.log = config, rewards, accelerator, log
        self.seed, self.folder = runtime.seed, Path(runtime.output_dir)
        from trl.trainer.utils import disable_dropout_in_model

        policy, self.tokenizer = load_policy(config.policy)
        disable_dropout_in_model(policy)
        critic = build_critic(config.critic, config.policy, config.reward_model)
        if config.lora_rank:
            from peft import get_peft_model

            policy, critic.backbone = (
                get_peft_model(model, _lora(config.lora_rank))
                for model in (policy, critic.backbone)
            )
        if config.gradient_checkpointing:
            policy.gradient_checkpointing_enable()
            critic.backbone.gradient_checkpointing_enable()
        use_plain_attention_on_cpu(policy)
        use_plain_attention_on_cpu(critic.backbone)
        self.reference = None if config.lora_rank else frozen(config.policy, accelerator.device)
        model = ActorCritic(policy, critic)
        groups = [
            {"params": _trainable(policy), "lr": config.learning_rate},
            {"params": _trainable(critic), "lr": config.critic_learning_rate},
        ]
        optimizer = torch.optim.AdamW(
            groups, betas=(0.9, config.adam_beta2), weight_decay=config.weight_decay
        )
        model, optimizer = accelerator.prepare(model, optimizer)
        self.actor_critic: ActorCritic = accelerator.unwrap_model(model)
        self.engine, self.scorer = open_engine(
            self.actor_critic.policy,
            self.tokenizer,
            config.reward_model,
            seed=runtime.seed,
            device=accelerator.device,
        )
        self.learner = Learner(
            accelerator=accelerator,
            model=model,
            optimizer=optimizer,
            reference=self._reference_logprobs,
            config=config,
            pad_token_id=self.tokenizer.pad_token_id,
            seed=runtime.seed,
        )
        self.verifier = VERIFIERS[config.verifier]()
        self.progress = Progress(
            kl=KLController(coefficient=config.kl_coefficient, target=config.kl_target)
        )
        accelerator.register_for_checkpointing(self.progress)
        self.problems = _problems(config)
        validation = read_problems(Path(config.data) / "validation.jsonl")
        self.held_out = validation[config.evaluation_skip :][: config.evaluation_problems]
        self.imitation = [
            row
            for folder in config.trajectories
            for row in read_trajectories(Path(folder) / "trajectories.jsonl")
        ]

    # -- the loop

    def train(self) -> None:
        self._resume()
        while self.progress.cycle < self.config.cycles and not self.progress.stopped:
            self._cycle()
        if not self.progress.stopped:
            self._evaluate()

    def _cycle(self) -> None:
        config, number = self.config, self.progress.cycle
        if number % config.evaluate_every == 0:
            self._evaluate()
            if self.progress.stopped:
                return
        clock = Stopwatch()
        share = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        problems = problem_order(self.problems, number, config.problems_per_cycle, self.seed)
        self.actor_critic.eval()
        with clock("rollout"):
            rollouts, usage = collect(
                self.engine,
                self.scorer,
                self.verifier,
                problems[share],
                SamplingConfig(
                    samples_per_problem=config.samples_per_problem,
                    max_new_tokens=config.max_new_tokens,
                    temperature=config.temperature,
                ),
                self.rewards,
                number,
            )
        batch = make_batch(
            rollouts,
            self.tokenizer.pad_token_id,
            self.rewards.step_discount,
            self.accelerator.device,
        )
        orders = self.learner.orders(number, len(batch))
        with clock("logprobs"):
            batch, entropy = self.learner.evaluate_old(batch, orders[0])
            batch = self.learner.estimate(batch, self.progress.kl.coefficient)
        rate = self._set_learning_rates(number)
        with clock("update"):
            sums = self.learner.learn(batch, orders, number, self.imitation)
        metrics = cycle_metrics(self.learner, rollouts, batch, sums, entropy) | clock.seconds
        metrics |= {"cycle": number, "learning_rate": rate}
        metrics["kl_coefficient"] = self.progress.kl.coefficient
        self.progress.kl.update(metrics["kl"])
        self._account(usage, batch)
        self._report(metrics, rollouts, batch)
        self.progress.cycle += 1
        if self.progress.cycle % config.save_every == 0:
            self._save_checkpoint()

    def _set_learning_rates(self, cycle: int) -> float:
        config = self.config
        share = min(1.0, (cycle + 1) / config.warmup_cycles) if config.warmup_cycles else 1.0
        share *= 1.0 - cycle / config.cycles if config.decay else 1.0
        rates = (config.learning_rate, config.critic_learning_rate)
        for group, rate in zip(self.learner.optimizer.param_groups, rates, strict=True):
            group["lr"] = share * rate
        return share * config.learning_rate

    def _reference_logprobs(self, input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        temperature = self.config.temperature
        if self.reference is not None:
            return token_logprobs(self.reference, input_ids, mask, temperature)[0]
        with self.actor_critic.policy.disable_adapter():
            return token_logprobs(self.actor_critic.policy, input_ids, mask, temperature)[0]

    # -- what is measured

    def _account(self, usage: Usage, batch: Batch) -> None:
        """Sampling and scoring, and training: each epoch forward and backward (3 forwards), and
        one forward more of actor and critic for old log-probabilities, and of the reference."""
        lengths = batch.attention_mask.sum(1).tolist()
        actor = flop_model(self.actor_critic.policy)
        critic = flop_model(self.actor_critic.critic.backbone)
        forward = sum(actor.forward(0, n) + critic.forward(0, n) for n in lengths)
        reference = sum(actor.forward(0, n) for n in lengths)
        own = [*usage_numbers(usage), float(sum(lengths)) * self.config.epochs]
        own.append((3 * self.config.epochs + 1) * forward + reference)
        *spent, tokens, flops = self.learner.reduce(own)
        self.progress.usage += usage_of(spent)
        self.progress.trained_tokens += round(tokens)
        self.progress.trained_flops += flops

    def _report(self, metrics: dict[str, Any], rollouts: Sequence[Rollout], batch: Batch) -> None:
        metrics["warnings"] = dead_signals(metrics)
        if not self.accelerator.is_main_process:
            return
        for warning in metrics["warnings"]:
            print(f"cycle {metrics['cycle']}: {warning}", flush=True)
        rows = completion_rows(metrics["cycle"], rollouts, batch, self.config.logged_completions)
        append_rows(self.folder / METRICS, [metrics])
        append_rows(self.folder / COMPLETIONS, rows)
        numbers = {f"ppo/{k}": v for k, v in metrics.items() if isinstance(v, int | float)}
        self.log.log(numbers)
        self.log.log_table(
            "ppo/completions",
            [{k: json.dumps(v) if isinstance(v, list) else v for k, v in r.items()} for r in rows],
        )
        print(
            f"cycle {metrics['cycle']}: solved {100 * metrics['correct']:.1f} %, reward "
            f"{metrics['reward']:.3f}, KL {metrics['kl']:.2f}, length {metrics['length']:.1f}",
            flush=True,
        )

    def _evaluate(self) -> None:
        """Greedy on the held-out problems; keep the policy where it is the best so far."""
        if not self.held_out:
            return
        self.actor_critic.eval()
        share = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        greedy, usage = collect(
            self.engine,
            self.scorer,
            self.verifier,
            self.held_out[share],
            SamplingConfig(
                samples_per_problem=1, max_new_tokens=self.config.max_new_tokens, temperature=0.0
            ),
            RewardConfig(),
            self.progress.cycle,
        )
        found: list[Any] = gather_object(
            [(r.problem_id, r.correct, r.scores[-1] if r.scores else None) for r in greedy]
        )
        self.progress.usage += usage_of(self.learner.reduce(usage_numbers(usage)))
        correct = {problem: word for problem, word, _ in found}
        scores = [score for _, _, score in found if score is not None]
        evaluation = Evaluation(
            cycle=self.progress.cycle,
            correct=tuple(correct[problem.id] for problem in self.held_out),
            proxy=sum(scores) / len(scores) if scores else None,
        )
        earlier = [e.accuracy for e in self.progress.evaluations]
        self.progress.evaluations.append(evaluation)
        self.progress.stopped = stop_reason(self.progress.evaluations, self.config.stop_p_value)
        if not self.accelerator.is_main_process:
            return
        if not earlier or evaluation.accuracy > max(earlier):
            self._save_policy(self.folder / BEST)
        row = {"accuracy": evaluation.accuracy, "proxy": evaluation.proxy}
        append_rows(self.folder / EVALUATIONS, [{"cycle": evaluation.cycle, **row}])
        self.log.log({f"ppo/held_out_{k}": v for k, v in row.items() if v is not None})
        print(f"before cycle {evaluation.cycle}: {row}", flush=True)
        if self.progress.stopped:
            print(f"stopped: {self.progress.stopped}", flush=True)

    # -- what is kept

    def _save_checkpoint(self) -> None:
        checkpoint = self.folder / f"checkpoint-{self.progress.cycle}"
        self.accelerator.save_state(str(checkpoint), safe_serialization=False)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            mark_whole(checkpoint, self.progress.cycle, self.accelerator.num_processes)
            cycles = sorted(int(p.name.split("-")[1]) for p in self.folder.glob("checkpoint-*"))
            for cycle in cycles[: -self.config.num_checkpoints]:
                shutil.rmtree(self.folder / f"checkpoint-{cycle}")
        self.accelerator.wait_for_everyone()

    def _resume(self) -> None:
        """Go on from the newest whole checkpoint; what was logged after it is taken back."""
        if self.accelerator.is_main_process:
            remove_partial_checkpoints(self.folder)
        self.accelerator.wait_for_everyone()
        checkpoint = latest_checkpoint(self.folder)
        if checkpoint is not None:
            self.accelerator.load_state(str(checkpoint))
            print(f"resumed before cycle {self.progress.cycle}: weights, optimizer, progress")
        if self.accelerator.is_main_process:
            for name in (METRICS, COMPLETIONS, EVALUATIONS):
                keep_before(self.folder / name, self.progress.cycle)
        self.accelerator.wait_for_everyone()

    def save(self) -> None:
        """The policy as a Hugging Face folder (LoRA merged in, the adapter beside it): the last
        one, or where training was stopped the best evaluated one."""
        if self.accelerator.is_main_process:
            if self.progress.stopped:
                shutil.copytree(self.folder / BEST, self.folder, dirs_exist_ok=True)
            else:
                self._save_policy(self.folder)
            if (self.folder / BEST).exists():
                shutil.rmtree(self.folder / BEST)
            for path in self.folder.glob("checkpoint-*"):
                shutil.rmtree(path)
        self.accelerator.wait_for_everyone()

    def _save_policy(self, folder: Path) -> None:
        policy = self.actor_critic.policy
        folder.mkdir(parents=True, exist_ok=True)
        if self.config.lora_rank:
            policy.save_pretrained(folder / "adapter")
            policy = copy.deepcopy(policy).merge_and_unload()
        save_model(policy, self.tokenizer, folder)


def frozen(path: str, device: Any) -> Any:
    """The reference: the starting policy, never trained."""
    model, _ = load_policy(path)
    use_plain_attention_on_cpu(model)
    return model.to(device).eval().requires_grad_(False)


def run_ppo(runtime: RuntimeConfig, config: PPOConfig, rewards: RewardConfig) -> None:
    """Write the policy that PPO makes of `config.policy`.

    Raises ValueError for a shape that needs a reward model where none is given, rollouts that
    cannot be dealt evenly to the processes, and under DeepSpeed.
    """
    from accelerate import Accelerator

    if rewards.shape != "outcome" and config.reward_model is None:
        raise ValueError(f"shape is {rewards.shape!r}, but no reward_model is given")
    inputs: dict[str, str | None] = {
        "policy": config.policy,
        "data": config.data,
        "reward_model": config.reward_model,
        "problems": config.problems,
    }
    inputs |= {f"trajectories_{i}": folder for i, folder in enumerate(config.trajectories)}
    micro_steps = config.micro_steps(process_state().num_processes)
    with run_stage("ppo", runtime, [config, rewards], inputs) as record:
        accelerator = Accelerator(gradient_accumulation_steps=micro_steps)
        if accelerator.distributed_type == "DEEPSPEED":
            raise ValueError("PPO does not run under DeepSpeed yet: use a cpu, gpu or ddp config")
        run = PPORun(runtime, config, rewards, accelerator, record.run)
        run.train()
        run.save()
        progress = run.progress
        record.search(progress.usage)
        record.training("policy", progress.trained_tokens, progress.trained_flops)
        record.metrics |= {"cycles": progress.cycle, "stopped": progress.stopped}
        if progress.evaluations:
            record.metrics |= {
                "held_out_first": progress.evaluations[0].accuracy,
                "held_out_last": progress.evaluations[-1].accuracy,
                "held_out_problems": len(run.held_out),
            }


def _problems(config: PPOConfig) -> list[Problem]:
    path = Path(config.problems or Path(config.data) / f"{config.split}.jsonl")
    problems = read_problems(path)[config.skip :]
    return problems[: config.num_problems] if config.num_problems else problems


def _lora(rank: int) -> Any:
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear")


def _trainable(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
