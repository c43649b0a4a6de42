"""DPO (2305.18290) on step preferences: TRL's trainer on the pairs of the export stage.

Preferences between steps of a search tree follow 2405.00451. The two steps of a pair follow the
same prefix, so the loss covers only these two steps. Only a step that ends its solution ends with
the end token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.held_out import check_rows_held_out
from data.types import TokenRow
from rewards.verifiers.by_name import VERIFIERS, check_verifier
from search.engines.transformers_engine import EngineConfig, TransformersEngine
from trainer.labels.step_preference_files import TokenPair, read_step_preferences
from trainer.models.loading import load_policy
from trainer.rollouts.held_out import HeldOut, HeldOutConfig
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.stage import numbered_inputs, run_stage
from trainer.training.checkpoints import CheckpointManifest, train_to_the_end
from trainer.training.trained import save_trained, training_cost


@dataclass(frozen=True, kw_only=True)
class StepPreferenceConfig:
    """What DPO trains on, and which problems measure the policy."""

    policy: str
    """Folder or hub id of the policy."""
    step_preferences: list[str]
    """Folders of the export stage with step_preferences, or files of step_preferences."""
    data: str
    """Folder of the data stage, whose validation problems measure the policy."""
    verifier: str
    """Verifier that judges solutions: math, countdown, code, reasoning_gym, ..."""

    def __post_init__(self) -> None:
        if not self.step_preferences:
            raise ValueError("step_preferences is empty; it must name a folder of the export stage")
        check_verifier(self.verifier)


def step_preference_dataset(pairs: Sequence[TokenPair]) -> Any:
    """A data set with the columns that TRL's collator for preferences takes."""
    from datasets import Dataset

    columns = ("prompt_ids", "chosen_ids", "rejected_ids")
    return Dataset.from_dict({name: [list(getattr(p, name)) for p in pairs] for name in columns})


def run_dpo(
    runtime: RuntimeConfig, config: StepPreferenceConfig, evaluation: HeldOutConfig, arguments: Any
) -> None:
    """Train `config.policy` on the pairs and save it as a Hugging Face folder. `arguments` is TRL's
    DPOConfig. An interrupted run continues from its last checkpoint. Raises ValueError when there
    is no pair, and the errors of `read_step_preferences`."""
    inputs: dict[str, str | None] = {"policy": config.policy, "data": config.data}
    inputs |= numbered_inputs("step_preferences", config.step_preferences)
    with run_stage("dpo", runtime, [config, evaluation, arguments], inputs) as record:
        record.check_start(config.policy)
        model, tokenizer = load_policy(config.policy)
        engine = TransformersEngine(model, tokenizer, EngineConfig(seed=runtime.seed))
        pairs = [
            pair
            for source in config.step_preferences
            for pair in read_step_preferences(source, engine, arguments.max_length)
        ]
        if not pairs:
            raise ValueError(
                f"step_preferences is {config.step_preferences}, which holds no row: lower "
                "min_gap or min_visits of the export stage"
            )
        held_out = HeldOut(
            evaluation,
            engine,
            VERIFIERS[config.verifier](),
            data=config.data,
            folder=Path(runtime.output_dir),
            sampled=lambda: 0,  # DPO samples nothing: the search has sampled its pairs
        )
        check_rows_held_out(
            held_out.problems, [pair.prompt_ids for pair in pairs], engine.encode_prompt
        )
        trainer = _trainer_class()(
            model=model.train(),
            args=arguments,
            train_dataset=step_preference_dataset(pairs),
            processing_class=tokenizer,
            callbacks=[held_out, CheckpointManifest()],
        )
        train_to_the_end(trainer)
        save_trained(trainer, tokenizer, Path(runtime.output_dir))
        record.metrics |= {"pairs": len(pairs), "updates": trainer.state.global_step}
        record.search(held_out.usage())
        # Training costs three forward passes, and the reference one more.
        tokens, flops = training_cost(trainer, _sequences(pairs))
        record.training("policy", tokens, flops * 4 / 3)


def _sequences(pairs: Sequence[TokenPair]) -> list[TokenRow]:
    return [
        TokenRow(prompt_ids=pair.prompt_ids, completion_ids=ids)
        for pair in pairs
        for ids in (pair.chosen_ids, pair.rejected_ids)
    ]


def _trainer_class() -> Any:
    from trl.trainer.dpo_trainer import DPOTrainer

    class TokenDPOTrainer(DPOTrainer):
        """TRL's trainer on rows of token ids. TRL's preparation takes texts and adds the end token
        to every text, so the policy would learn every step as the last one."""

        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    return TokenDPOTrainer
