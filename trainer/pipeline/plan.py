"""A dry run. For each stage of a recipe it prints what the stage would do, the command that runs
the stage alone, and rough estimates of its needs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.settings import read_yaml_mapping
from trainer.pipeline.devices import DEVICES, Launch, launch_of
from trainer.pipeline.estimates import StageEstimate, estimate_stage
from trainer.pipeline.launch import command_line, launcher_words
from trainer.pipeline.quantities import human, rough_duration
from trainer.pipeline.recipe import Pipeline, Stage, stage_settings, stage_words
from trainer.pipeline.run import stage_state
from trainer.pipeline.stage_models import StageModel, defaults_used, inherited_model, model_of
from trainer.runtime.stage_registry import entry_of_launcher


def print_plan(pipeline: Pipeline, stages: Sequence[Stage], device: str | None = None) -> None:
    """Print the plan. `device` is a name in `trainer.pipeline.devices.DEVICES`. Without it, the
    accelerate configs decide: a CPU, or a GPU, which counts as an H100."""
    models: dict[str, StageModel] = {}
    changed: set[str] = set()
    warnings: list[str] = []
    seconds = 0.0
    for stage in pipeline.stages:
        settings = stage_settings(stage)
        models[stage.name] = model_of(settings, inherited_model(stage, models))
        launch = launch_of(_launch_values(pipeline, stage), device)
        entry = entry_of_launcher(stage.script)
        estimate = estimate_stage(entry, settings, models[stage.name], launch)
        if stage not in stages:
            continue
        state = stage_state(pipeline, stage)
        if changed.intersection(stage.inputs) and state != "new":
            state = "replace"
        if state != "unchanged":
            changed.add(stage.name)
            seconds += estimate.seconds or 0.0
        print(f"{stage.name}: {state}")
        for line in (*estimate.lines, *_needs(estimate, launch)):
            print(f"  {line}")
        launcher = launcher_words(stage.accelerate_config or pipeline.accelerate_config)[1]
        print(f"  {command_line(stage_words(pipeline, stage), launcher)}")
        if said := defaults_used(settings):
            warnings.append(f"warning: {stage.name}: {said}")
    if seconds:
        print(f"all stages: about {rough_duration(seconds)}, rows at their greatest length")
    for line in warnings:
        print(line)
    sys.stdout.flush()


def _launch_values(pipeline: Pipeline, stage: Stage) -> Mapping[str, Any]:
    path = stage.accelerate_config or pipeline.accelerate_config
    return read_yaml_mapping(Path(path)) if path else {}


def _needs(estimate: StageEstimate, launch: Launch) -> list[str]:
    lines: list[str] = []
    if estimate.memory is not None:
        total = estimate.memory.total
        parts = {name: v for name, v in vars(estimate.memory).items() if v >= 0.01 * total}
        text = " + ".join(f"{name} {human(value, 'B')}" for name, value in parts.items())
        lines.append(f"memory per process: {human(total, 'B')} = {text}")
    if estimate.disk is not None:
        lines.append(f"disk: {human(estimate.disk, 'B')}")
    if estimate.seconds is not None:
        device = DEVICES[launch.device]
        lines.append(
            f"time: about {rough_duration(estimate.seconds)} for "
            f"{human(estimate.flops, 'FLOPs')} on {launch.processes} x {device.name} "
            f"({human(device.flops, 'FLOPs/s')}, {100 * device.training_share:.0f} % of it in "
            "training)"
        )
    return lines
