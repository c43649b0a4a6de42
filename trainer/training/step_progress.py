"""A callback that reports every step of a transformers trainer to the watchdog."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from trainer.runtime.watchdog import WATCHDOG


class StepProgress(TrainerCallback):
    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        WATCHDOG.progress()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        WATCHDOG.progress()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        WATCHDOG.progress()
