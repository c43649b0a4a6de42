"""PPO with process rewards (1707.06347; with reward models: InstructGPT 2203.02155, Math-Shepherd
2312.08935): rollouts by the search engine, rewards by verifier and reward model, then clipped
updates of actor and critic.

Everything random is keyed by (seed, cycle), so what a cycle does depends on the weights before it
alone: a run that is cut off goes on from its last whole checkpoint and ends the same to the bit.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object

from data.flops import flop_model
from data.held_out import check_problems_held_out, check_rows_held_out
from data.types import Problem, Usage
from rewards.verifiers.by_name import VERIFIERS
from trainer.models.loading import whole_models
from trainer.models.sharding import generating
from trainer.ppo.advantages import KLController
from trainer.ppo.batch import Batch, make_batch
from trainer.ppo.config import PPOConfig
from trainer.ppo.guards import Evaluation, dead_signals, stop_reason
from trainer.ppo.metrics import CycleRecord, Stopwatch, completion_rows, cycle_metrics
from trainer.ppo.models import build_models
from trainer.ppo.progress import Progress, load_checkpoint, save_checkpoint
from trainer.ppo.update import Learner
from trainer.rollouts.collect import RewardConfig, Rollout, SamplingConfig, collect_rollouts
from trainer.rollouts.files import ROLLOUTS, read_rollouts, rollout_rows, share_of
from trainer.rollouts.vllm import RolloutEngineConfig, open_vllm
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.row_files import append_rows, keep_before, usage_numbers, usage_of
from trainer.runtime.tracking import Run
from trainer.searching.engines import open_engine
from trainer.searching.trajectories import read_trajectories

METRICS, COMPLETIONS = "metrics.jsonl", "completions.jsonl"
EVALUATIONS, BEST = "evaluations.jsonl", "best"
SERVED = "served"  # weights on their way to a vLLM server
SAMPLE_WITH_TRANSFORMERS = RolloutEngineConfig()


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
        rollout_engine: RolloutEngineConfig = SAMPLE_WITH_TRANSFORMERS,
    ) -> None:
        self.config, self.rewards, self.accelerator, self.log = config, rewards, accelerator, log
        self.seed, self.folder = runtime.seed, Path(runtime.output_dir)
        self.models = build_models(config, accelerator)
        policy, tokenizer = self.models.actor_critic.policy, self.models.tokenizer
        with whole_models():
            self.engine, self.scorer = open_engine(
                policy,
                tokenizer,
                config.reward_model,
                seed=runtime.seed,
                device=accelerator.device,
            )
        self.vllm = open_vllm(
            rollout_engine, policy, tokenizer, self.engine, accelerator, self.folder / SERVED
        )
        self.learner = Learner(
            accelerator=accelerator,
            model=self.models.prepared,
            optimizer=self.models.optimizer,
            reference=self.models.reference_logprobs,
            config=config,
            pad_token_id=tokenizer.pad_token_id,
            seed=runtime.seed,
        )
        self.verifier = VERIFIERS[config.verifier]()
        self.progress = Progress(
            kl=KLController(coefficient=config.kl_coefficient, target=config.kl_target)
        )
        accelerator.register_for_checkpointing(self.progress)
        self.problems = config.chosen_problems()
        self.recorded = read_rollouts(config.replay) if config.replay else None
        self.held_out = config.held_out_problems()
        check_problems_held_out(self.held_out, self.problems)
        if self.vllm is not None and len(self.held_out) % accelerator.num_processes:
            raise ValueError(
                f"there are {len(self.held_out)} validation problems to evaluate on: with vLLM "
                f"they must be a multiple of the {accelerator.num_processes} processes"
            )
        self.imitation = [
            row
            for folder in config.trajectories
            for row in read_trajectories(Path(folder) / "trajectories.jsonl")
        ]
        check_rows_held_out(
            self.held_out, [row.prompt_ids for row in self.imitation], self.engine.encode
        )
        if config.imitation_coefficient > 0 and not self.imitation and accelerator.is_main_process:
            print(
                f"warning: no verified trajectory in {', '.join(config.trajectories)}: nothing is "
                "imitated, imitation_coefficient has no effect",
                flush=True,
            )

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
        with clock("rollout"):
            rollouts, usage = self._rollouts(number)
        if config.record_rollouts:
            self._record(number, rollouts)
        batch = make_batch(
            rollouts,
            self.models.tokenizer.pad_token_id,
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
        metrics = cycle_metrics(self.learner, rollouts, batch, sums, entropy)
        record = CycleRecord(
            cycle=number,
            metrics=metrics,
            seconds=clock.seconds,
            learning_rate=rate,
            kl_coefficient=self.progress.kl.coefficient,
            warnings=dead_signals(metrics),
        )
        self.progress.kl.update(metrics.kl)
        self._account(usage, batch)
        self._report(record, rollouts, batch)
        self.progress.cycle += 1
        if self.progress.cycle % config.save_every == 0:
            kept = config.num_checkpoints
            save_checkpoint(self.folder, self.accelerator, self.progress, kept)

    def _rollouts(self, cycle: int) -> tuple[list[Rollout], Usage]:
        """This process's share of a cycle's rollouts: sampled, or those of the replayed file."""
        config = self.config
        if self.recorded is not None:
            own = share_of(
                self.recorded,
                cycle,
                problems=config.problems_per_cycle,
                samples=config.samples_per_problem,
                rank=self.accelerator.process_index,
                processes=self.accelerator.num_processes,
            )
            return own, Usage()
        return self._collect(
            problem_order(self.problems, cycle, config.problems_per_cycle, self.seed),
            SamplingConfig(
                samples_per_problem=config.samples_per_problem,
                max_new_tokens=config.max_new_tokens,
                temperature=config.temperature,
            ),
            self.rewards,
        )

    def _collect(
        self, problems: Sequence[Problem], sampling: SamplingConfig, rewards: RewardConfig
    ) -> tuple[list[Rollout], Usage]:
        """Rollouts of this process's share of the problems."""
        share = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        self.models.actor_critic.eval()
        with self._sampling():
            return collect_rollouts(
                self.engine,
                self.scorer,
                self.verifier,
                problems[share],
                sampling,
                rewards,
                self.progress.cycle,
                self.vllm,
            )

    @contextmanager
    def _sampling(self) -> Iterator[None]:
        """A context in which the engine that samples has the policy's present weights."""
        if self.vllm is not None:
            self.vllm.sync(self.progress.cycle)
            with self.accelerator.autocast():
                yield
            return
        models = self.models
        with generating(models.prepared, models.actor_critic.policy, self.accelerator):
            yield

    def _record(self, cycle: int, rollouts: Sequence[Rollout]) -> None:
        parts = gather_object([list(rollouts)])
        if self.accelerator.is_main_process:
            rows = rollout_rows(cycle, parts, self.config.samples_per_problem)
            append_rows(self.folder / ROLLOUTS, rows)

    def _set_learning_rates(self, cycle: int) -> float:
        config = self.config
        share = min(1.0, (cycle + 1) / config.warmup_cycles) if config.warmup_cycles else 1.0
        share *= 1.0 - cycle / config.cycles if config.learning_rate_decay else 1.0
        rates = (config.learning_rate, config.critic_learning_rate)
        for group, rate in zip(self.learner.optimizer.param_groups, rates, strict=True):
            group["lr"] = share * rate
        return share * config.learning_rate

    # -- what is measured

    def _account(self, usage: Usage, batch: Batch) -> None:
        """Sampling and scoring, and training: each epoch forward and backward (3 forwards), and
        one forward more of actor and critic for old log-probabilities, and of the reference."""
        lengths = batch.attention_mask.sum(1).tolist()
        actor = flop_model(self.models.actor_critic.policy)
        critic = flop_model(self.models.actor_critic.critic.backbone)
        forward = sum(actor.forward(0, n) + critic.forward(0, n) for n in lengths)
        reference = sum(actor.forward(0, n) for n in lengths)
        own = [*usage_numbers(usage), float(sum(lengths)) * self.config.epochs]
        own.append((3 * self.config.epochs + 1) * forward + reference)
        *spent, tokens, flops = self.learner.reduce(own)
        self.progress.usage += usage_of(spent)
        self.progress.trained_tokens += round(tokens)
        self.progress.trained_flops += flops

    def _report(self, record: CycleRecord, rollouts: Sequence[Rollout], batch: Batch) -> None:
        if not self.accelerator.is_main_process:
            return
        for warning in record.warnings:
            print(f"cycle {record.cycle}: {warning}", flush=True)
        row, metrics = record.as_row(), record.metrics
        rows = completion_rows(record.cycle, rollouts, batch, self.config.logged_completions)
        append_rows(self.folder / METRICS, [row])
        append_rows(self.folder / COMPLETIONS, rows)
        numbers = {f"ppo/{k}": v for k, v in row.items() if isinstance(v, int | float)}
        self.log.log(numbers)
        self.log.log_table(
            "ppo/completions",
            [{k: json.dumps(v) if isinstance(v, list) else v for k, v in r.items()} for r in rows],
        )
        print(
            f"cycle {record.cycle}: solved {100 * metrics.correct:.1f} %, reward "
            f"{metrics.reward:.3f}, KL {metrics.kl:.2f}, length {metrics.length:.1f}",
            flush=True,
        )

    def _evaluate(self) -> None:
        """Greedy on the held-out problems; keep the policy where it is the best so far."""
        if not self.held_out:
            return
        greedy, usage = self._collect(
            self.held_out,
            SamplingConfig(
                samples_per_problem=1, max_new_tokens=self.config.max_new_tokens, temperature=0.0
            ),
            RewardConfig(),
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
        if not earlier or evaluation.accuracy > max(earlier):
            self.models.save(self.folder / BEST)
        if not self.accelerator.is_main_process:
            return
        row = {"accuracy": evaluation.accuracy, "proxy": evaluation.proxy}
        append_rows(self.folder / EVALUATIONS, [{"cycle": evaluation.cycle, **row}])
        self.log.log({f"ppo/held_out_{k}": v for k, v in row.items() if v is not None})
        print(f"before cycle {evaluation.cycle}: {row}", flush=True)
        if self.progress.stopped:
            print(f"stopped: {self.progress.stopped}", flush=True)

    # -- what is kept

    def _resume(self) -> None:
        """Go on from the newest whole checkpoint; what was logged after it is taken back."""
        load_checkpoint(self.folder, self.accelerator, self.progress)
        if self.accelerator.is_main_process:
            for name in (METRICS, COMPLETIONS, EVALUATIONS, ROLLOUTS):
                keep_before(self.folder / name, self.progress.cycle)
        self.accelerator.wait_for_everyone()

    def save(self) -> None:
        """The last policy and critic, or where training was stopped those of the best evaluation;
        what was kept on the way is removed."""
        if not self.progress.stopped:
            self.models.save(self.folder)
        if self.accelerator.is_main_process:
            if self.progress.stopped:
                shutil.copytree(self.folder / BEST, self.folder, dirs_exist_ok=True)
            if (self.folder / BEST).exists():
                shutil.rmtree(self.folder / BEST)
            for path in (*self.folder.glob("checkpoint-*"), *self.folder.glob(SERVED)):
                shutil.rmtree(path)
        self.accelerator.wait_for_everyone()
