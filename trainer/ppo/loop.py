"""PPO with process rewards (1707.06347; with reward models: InstructGPT 2203.02155, Math-Shepherd
2312.08935). In each cycle the search engine samples rollouts, the verifier and the reward model
compute the rewards, and clipped updates train actor and critic.

All random numbers of a cycle depend only on (seed, cycle). A cycle therefore depends only on the
weights before it: an interrupted run continues from its last complete checkpoint and ends with the
same bits.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object

from data.behaviours import behaviour_rates
from data.flops import flop_model
from data.held_out import check_problems_held_out, check_rows_held_out
from data.thoughts import THOUGHT_END
from data.types import Problem, Usage
from trainer.ppo.advantages import KLController
from trainer.ppo.batch import PPOBatch, make_batch
from trainer.ppo.config import PPOConfig
from trainer.ppo.filtering import FilterMetrics, collect_mixed, replacements
from trainer.ppo.guards import Evaluation, dead_signals, stop_reason
from trainer.ppo.inputs import read_inputs
from trainer.ppo.metrics import CycleRecord, Stopwatch, completion_rows, cycle_metrics
from trainer.ppo.models import build_models
from trainer.ppo.progress import PPOProgress, load_checkpoint, save_checkpoint
from trainer.ppo.sampling import open_sampling
from trainer.ppo.step_values import StepValueMetrics, with_step_advantages
from trainer.ppo.update import Learner
from trainer.rollouts.collect import RewardConfig, Rollout, RolloutRequest, SamplingConfig
from trainer.rollouts.files import ROLLOUTS, rollout_rows, share_of
from trainer.rollouts.vllm import RolloutEngineConfig
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.row_files import (
    EVALUATIONS,
    METRICS,
    append_rows,
    keep_before,
    usage_numbers,
    usage_of,
)
from trainer.runtime.tracking import Run

COMPLETIONS, BEST = "completions.jsonl", "best"
SERVED = "served"  # folder that passes weights to a vLLM server
SAMPLE_WITH_TRANSFORMERS = RolloutEngineConfig()


def problem_order(problems: Sequence[Problem], cycle: int, size: int, seed: int) -> list[Problem]:
    """The `size` problems of a cycle. Cycles take all problems in a shuffled order before any
    problem repeats. Raises ValueError if `size` is larger than the number of problems."""
    if size > len(problems):
        raise ValueError(f"problems_per_cycle is {size}; there are only {len(problems)} problems")
    chosen: list[Problem] = []
    position = cycle * size
    while len(chosen) < size:
        pass_number, offset = divmod(position + len(chosen), len(problems))
        order = list(range(len(problems)))
        random.Random(f"{seed} problems {pass_number}").shuffle(order)
        chosen += [problems[i] for i in order[offset : offset + size - len(chosen)]]
    return chosen


class PPORun:
    """Holds the models and runs the cycles. All processes must call every method."""

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
        self.inputs = read_inputs(config)
        self._check_inputs(rollout_engine)
        self.models = build_models(config, accelerator)
        self.sampling = open_sampling(
            config,
            rollout_engine,
            self.models,
            seed=runtime.seed,
            served=self.folder / SERVED,
        )
        check_rows_held_out(
            self.inputs.held_out,
            [row.prompt_ids for row in self.inputs.imitation],
            self.sampling.judges.engine.encode_prompt,
        )
        self.learner = Learner(
            accelerator=accelerator,
            model=self.models.prepared,
            optimizer=self.models.optimizer,
            reference=self.models.reference_logprobs,
            config=config,
            pad_token_id=self.models.tokenizer.pad_token_id,
            seed=runtime.seed,
        )
        self.progress = PPOProgress(
            kl=KLController(coefficient=config.kl_coefficient, target=config.kl_target)
        )
        accelerator.register_for_checkpointing(self.progress)

    def _check_inputs(self, rollout_engine: RolloutEngineConfig) -> None:
        """Raises ValueError for held-out problems that are also trained on, or that vLLM cannot
        divide into equal shares. Prints a warning if there is no trajectory to imitate."""
        check_problems_held_out(self.inputs.held_out, self.inputs.problems)
        held_out, processes = len(self.inputs.held_out), self.accelerator.num_processes
        if rollout_engine.rollout_engine != "transformers" and held_out % processes:
            raise ValueError(
                f"there are {held_out} validation problems for evaluations; with vLLM their number "
                f"must be a multiple of the {processes} processes"
            )
        wanted = self.config.imitation_coefficient > 0
        if wanted and not self.inputs.imitation and self.accelerator.is_main_process:
            print(
                f"warning: there is no verified trajectory in "
                f"{', '.join(self.config.trajectories)}: imitation_coefficient has no effect",
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
            rollouts, usage, filtering = self._rollouts(number)
        if config.record_rollouts:
            self._record(number, rollouts)
        learnt, discount, values = rollouts, self.rewards.step_discount, None
        if config.value_rollouts:
            with clock("values"):
                learnt, values, spent = self._step_advantages(number, rollouts)
            usage, discount = usage + spent, 0.0
        batch = make_batch(
            learnt,
            self.models.tokenizer.pad_token_id,
            discount,
            self.accelerator.device,
            mask_truncated=config.mask_truncated,
        )
        orders = self.learner.orders(number, len(batch))
        with clock("logprobs"):
            batch, entropy = self.learner.evaluate_old(batch, orders[0])
            batch = self.learner.estimate(batch, self.progress.kl.coefficient)
        rate = self._set_learning_rates(number)
        with clock("update"):
            sums = self.learner.learn(batch, orders, number, self.inputs.imitation)
        metrics = cycle_metrics(self.learner, rollouts, batch, sums, entropy)
        metrics = replace(metrics, filtering=filtering, step_values=values)
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

    def _rollouts(self, cycle: int) -> tuple[list[Rollout], Usage, FilterMetrics | None]:
        """This process's share of a cycle's rollouts, sampled or read from the replayed file; what
        this process spent; and the counts of online filtering, if there is any."""
        config = self.config
        if self.inputs.recorded is not None:
            own = share_of(
                self.inputs.recorded,
                cycle,
                problems=config.problems_per_cycle,
                samples=config.samples_per_problem,
                rank=self.accelerator.process_index,
                processes=self.accelerator.num_processes,
            )
            return own, Usage(), None
        problems = problem_order(self.inputs.problems, cycle, config.problems_per_cycle, self.seed)

        def collect(asked: Sequence[Problem]) -> tuple[list[Rollout], Usage]:
            return self.sampling.collect(self._request(asked, cycle))

        if not config.filter_rounds:
            return (*collect(problems), None)
        filtered = collect_mixed(
            problems,
            replacements(self.inputs.problems, problems, cycle, self.seed),
            samples=config.samples_per_problem,
            rounds=config.filter_rounds,
            process=self.accelerator.process_index,
            processes=self.accelerator.num_processes,
            collect=collect,
            gather=lambda own: gather_object([own]),
        )
        return filtered.rollouts, filtered.usage, filtered.metrics

    def _request(self, problems: Sequence[Problem], cycle: int) -> RolloutRequest:
        sampling = SamplingConfig(
            samples_per_problem=self.config.samples_per_problem,
            max_new_tokens=self.config.limit_in(cycle),
            temperature=self.config.temperature,
        )
        return RolloutRequest(
            problems=problems, sampling=sampling, rewards=self.rewards, cycle=cycle
        )

    def _step_advantages(
        self, cycle: int, rollouts: Sequence[Rollout]
    ) -> tuple[list[Rollout], StepValueMetrics, Usage]:
        """The rollouts with their steps' advantages in the place of rewards, and the cost."""
        request = self._request(self.inputs.problems, cycle)
        found = self.sampling.step_values(rollouts, request, self.config.value_rollouts)
        tokens = found.usage.policy.generated_tokens
        states, tokens, total = self.learner.reduce([found.states, tokens, found.total])
        metrics = StepValueMetrics(
            value_states=round(states), value_tokens=round(tokens), mean_step_value=total / states
        )
        return with_step_advantages(rollouts, found.values), metrics, found.usage

    def _record(self, cycle: int, rollouts: Sequence[Rollout]) -> None:
        parts = gather_object([list(rollouts)])
        if self.accelerator.is_main_process:
            rows = rollout_rows(cycle, parts, self.config.samples_per_problem)
            append_rows(self.folder / ROLLOUTS, rows)

    def _set_learning_rates(self, cycle: int) -> float:
        config = self.config
        share = min(1.0, (cycle + 1) / config.warmup_cycles) if config.warmup_cycles else 1.0
        share *= 1.0 - cycle / config.cycles if config.learning_rate_decay else 1.0
        actor_rate = 0.0 if cycle < config.critic_warmup_cycles else config.learning_rate
        rates = (actor_rate, config.critic_learning_rate)
        for group, rate in zip(self.learner.optimizer.param_groups, rates, strict=True):
            group["lr"] = share * rate
        return share * actor_rate

    # -- measurements

    def _account(self, usage: Usage, batch: PPOBatch) -> None:
        """Add the cost of sampling, scoring and training to the progress. An epoch costs a forward
        and a backward pass (3 forward passes). The old log-probabilities and values cost one more
        forward pass of actor and critic, and the reference one. A critic that does not run costs
        nothing."""
        lengths = batch.attention_mask.sum(1).tolist()
        actor = flop_model(self.models.actor_critic.policy)
        critic = flop_model(self.models.actor_critic.critic.backbone)
        reference = sum(actor.forward(0, n) for n in lengths)
        forward = reference
        if self.learner.runs_critic:
            forward += sum(critic.forward(0, n) for n in lengths)
        own = [*usage_numbers(usage), float(sum(lengths)) * self.config.epochs]
        own.append((3 * self.config.epochs + 1) * forward + reference)
        *spent, tokens, flops = self.learner.reduce(own)
        self.progress.usage += usage_of(spent)
        self.progress.trained_tokens += round(tokens)
        self.progress.trained_flops += flops

    def _report(self, record: CycleRecord, rollouts: Sequence[Rollout], batch: PPOBatch) -> None:
        if not self.accelerator.is_main_process:
            return
        for warning in record.warnings:
            print(f"cycle {record.cycle}: {warning}", flush=True)
        row, metrics = record.as_row() | self._behaviours(rollouts), record.metrics
        rows = completion_rows(record.cycle, rollouts, batch, self.config.logged_completions)
        append_rows(self.folder / METRICS, [row])
        append_rows(self.folder / COMPLETIONS, rows)
        numbers = {f"ppo/{k}": v for k, v in row.items() if isinstance(v, int | float)}
        self.log.log(numbers)
        self.log.extend_table("ppo/completions", rows)
        print(
            f"cycle {record.cycle}: solved {100 * metrics.correct:.1f} %, reward "
            f"{metrics.reward:.3f}, KL {metrics.kl:.2f}, length {metrics.length:.1f}",
            flush=True,
        )

    def _behaviours(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """The rates of reasoning behaviours in this process's rollouts; empty if none thinks."""
        if not any(THOUGHT_END in rollout.text for rollout in rollouts):
            return {}
        problems = {problem.id: problem for problem in self.inputs.problems}
        known = [r for r in rollouts if r.problem_id in problems]  # replayed ones may be of others
        if not known:
            return {}
        return behaviour_rates((problems[r.problem_id], r.text) for r in known).metrics()

    def _evaluate(self) -> None:
        """Measure the greedy policy on the held-out problems. Save it if it is the best so far."""
        if not self.inputs.held_out:
            return
        greedy, usage = self.sampling.collect(
            RolloutRequest(
                problems=self.inputs.held_out,
                sampling=SamplingConfig(
                    samples_per_problem=1,
                    max_new_tokens=self.config.max_new_tokens,
                    temperature=0.0,
                ),
                rewards=RewardConfig(),
                cycle=self.progress.cycle,
            )
        )
        found: list[Any] = gather_object(
            [
                (r.problem_id, r.correct, r.scores[-1] if r.scores else None, len(r.response_ids))
                for r in greedy
            ]
        )
        self.progress.usage += usage_of(self.learner.reduce(usage_numbers(usage)))
        correct = {problem: word for problem, word, _, _ in found}
        scores = [score for _, _, score, _ in found if score is not None]
        evaluation = Evaluation(
            cycle=self.progress.cycle,
            correct=tuple(correct[problem.id] for problem in self.inputs.held_out),
            proxy=sum(scores) / len(scores) if scores else None,
        )
        earlier = [e.accuracy for e in self.progress.evaluations]
        self.progress.evaluations.append(evaluation)
        self.progress.stopped = stop_reason(self.progress.evaluations, self.config.stop_p_value)
        if not earlier or evaluation.accuracy > max(earlier):
            self.models.save(self.folder / BEST)
        if not self.accelerator.is_main_process:
            return
        length = sum(tokens for *_, tokens in found) / len(found)
        row = {"accuracy": evaluation.accuracy, "proxy": evaluation.proxy, "length": length}
        append_rows(self.folder / EVALUATIONS, [{"cycle": evaluation.cycle, **row}])
        self.log.log({f"ppo/held_out_{k}": v for k, v in row.items() if v is not None})
        print(f"before cycle {evaluation.cycle}: {row}", flush=True)
        if self.progress.stopped:
            print(f"stopped: {self.progress.stopped}", flush=True)

    # -- checkpoints and the final policy

    def _resume(self) -> None:
        """Continue from the newest complete checkpoint, and remove the log rows after it."""
        load_checkpoint(self.folder, self.accelerator, self.progress)
        if self.accelerator.is_main_process:
            for name in (METRICS, COMPLETIONS, EVALUATIONS, ROLLOUTS):
                keep_before(self.folder / name, self.progress.cycle)
        self.accelerator.wait_for_everyone()

    def save(self) -> None:
        """Save the last policy and critic, or those of the best evaluation if training was stopped.
        Remove the checkpoints and other temporary folders."""
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
