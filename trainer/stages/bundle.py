"""The bundle stage puts a policy, its reward model and three effort levels into one folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data.json_records import read_record
from data.prompts import PROMPTS
from rewards.verifiers.by_name import answer_format
from trainer.evaluation.effort_levels import (
    MeasuredSearch,
    choose_levels,
    searches_of_comparison,
    searches_of_evaluation,
)
from trainer.measures.results import EvaluationResults, StrategyComparison
from trainer.models.copying import copy_model
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.further_updates import without_controls
from trainer.runtime.manifests import (
    MANIFEST,
    hash_input,
    is_complete,
    read_json,
    read_manifest,
    write_json,
)
from trainer.runtime.processes import is_main_process
from trainer.runtime.stage import run_stage
from trainer.searching.bundle_card import card_of
from trainer.searching.bundles import BUNDLE, FORMAT, VERSION, Bundle
from trainer.searching.typed_problems import PLACE, TYPED_TASKS

EVALUATION, COMPARISON = "evaluation.json", "comparison.json"


@dataclass(frozen=True, kw_only=True)
class BundleConfig:
    """What a bundle is made of. A level that is not given is chosen from what was measured."""

    evaluation: str
    """Folder of a finished evaluate or compare stage, or of a run with one evaluate stage."""
    policy: str | None = None
    """Name of the measured policy to bundle; null: the last one that is no control."""
    low: str | None = None
    """Measured search of low effort, as strategy:budget, such as greedy:1; null: chosen."""
    medium: str | None = None
    """Measured search of medium effort; null: chosen."""
    high: str | None = None
    """Measured search of high effort; null: chosen."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A finished measuring stage, what it measured of one policy, and where its models are."""

    folder: Path
    manifest: Mapping[str, Any]
    searches: list[MeasuredSearch]
    policy: Path
    reward_model: str | None
    judge: str | None


def run_bundle(runtime: RuntimeConfig, config: BundleConfig) -> None:
    """Write `policy/`, `reward_model/`, bundle.json and README.md, and `judge/` if a judge chooses
    the answers of a level. Raises ValueError for a folder
    without measurements, for a level that was not measured, for a verifier without an answer
    format, and for models that are no longer those that were measured."""
    measured = read_measurement(config)
    answers = answer_format(measured.manifest["recipe"]["verifier"])
    asked = {"low": config.low, "medium": config.medium, "high": config.high}
    levels = choose_levels(measured.searches, asked)
    judged = any(level.search_settings().needs_judge for level in levels)
    judge = measured.judge if judged else None
    inputs = {
        "evaluation": str(measured.folder),
        "policy": str(measured.policy),
        "reward_model": measured.reward_model,
        "judge": judge,
    }
    with run_stage("bundle", runtime, [config], inputs) as record:
        if not is_main_process():
            return
        folder = Path(runtime.output_dir)
        recipe = measured.manifest["recipe"]
        bundle = Bundle(
            format=FORMAT,
            version=VERSION,
            name=folder.resolve().name,
            run=recipe.get("run_group") or measured.folder.resolve().parent.name,
            seed=measured.manifest["seed"],
            policy=_copied(str(measured.policy), folder / "policy"),
            reward_model=measured.reward_model
            and _copied(measured.reward_model, folder / "reward_model"),
            judge=judge and _copied(judge, folder / "judge"),
            verifier=recipe["verifier"],
            answer_format=answers,
            levels=levels,
            **_prompt(measured),
        )
        write_json(folder / BUNDLE, asdict(bundle))
        card = card_of(bundle)
        (folder / "README.md").write_text(card, encoding="utf-8")
        used = [f"{level.measured_as}:{level.budget}" for level in levels]
        if len(set(used)) < len(used):
            record.warn(
                f"the levels are {', '.join(used)}: the measured searches have fewer than three "
                "that are more accurate than every cheaper one"
            )
        for level in levels:
            record.metrics |= {
                f"{level.name}_accuracy": level.accuracy,
                f"{level.name}_tokens": level.generated_tokens,
            }
        print(card[card.index("## Effort") : card.index("## Use")].strip(), flush=True)


def read_measurement(config: BundleConfig) -> Measurement:
    """Raises the errors of `run_bundle` that concern measurements and models."""
    folder, results = _measuring_folder(Path(config.evaluation))
    manifest = read_manifest(folder)
    recipe = manifest["recipe"]
    names = sorted({row.policy for row in results.accuracy})
    if config.policy is not None:
        policy = config.policy
    elif isinstance(results, EvaluationResults):
        places = [_place(folder, manifest, Path(p).name, p) for p in recipe["policies"]]
        policy = Path(without_controls(places)[-1]).name
    else:
        policy = Path(recipe["policy"]).name
    read = (
        searches_of_evaluation(results, recipe, policy)
        if isinstance(results, EvaluationResults)
        else searches_of_comparison(results, recipe, policy)
    )
    if not read:
        raise ValueError(
            f"policy is {policy!r}, of which {str(folder)!r} measured no search; measured "
            f"policies: {', '.join(names) or 'none'}"
        )
    kind = policy if isinstance(results, EvaluationResults) else "policy"
    model, judge = recipe["reward_model"], recipe.get("judge")
    return Measurement(
        folder=folder,
        manifest=manifest,
        searches=read,
        policy=Path(_same_as_measured(folder, manifest, kind, policy)),
        reward_model=model and _same_as_measured(folder, manifest, "reward_model", model),
        judge=judge and _same_as_measured(folder, manifest, "judge", judge),
    )


def _measuring_folder(given: Path) -> tuple[Path, EvaluationResults | StrategyComparison]:
    if (given / COMPARISON).is_file():
        return given, read_record(StrategyComparison, given / COMPARISON)
    if (given / EVALUATION).is_file():
        return given, read_record(EvaluationResults, given / EVALUATION)
    found = [p.parent for p in sorted(given.glob(f"*/{EVALUATION}")) if is_complete(p.parent)]
    if len(found) != 1:
        names = f": {', '.join(p.name for p in found)}" if found else ""
        raise ValueError(
            f"evaluation is {str(given)!r}: it holds no {EVALUATION} and no {COMPARISON}, and "
            f"{len(found)} finished stages with an {EVALUATION}{names}; give the folder of one"
        )
    return found[0], read_record(EvaluationResults, found[0] / EVALUATION)


def _place(folder: Path, manifest: Mapping[str, Any], name: str, given: str) -> str:
    """Where a measured model is, seen from the folder of the measurements: the run may have been
    moved, and the user may be in another directory. A name on the hub or an address stays."""
    source = manifest["inputs"].get(name)
    return given if source is None else str(folder / source["source"])


def _same_as_measured(folder: Path, manifest: Mapping[str, Any], name: str, given: str) -> str:
    """The model that was measured, as a path or a name. Raises ValueError if it is not the same
    any more."""
    source = manifest["inputs"].get(name)
    if source is None:
        return given
    path = Path(_place(folder, manifest, name, given))
    if not path.exists():
        raise ValueError(f"{name} {str(path)!r} was measured, but is not there any more")
    if hash_input(path) != {"fingerprint": source["fingerprint"]}:
        raise ValueError(f"{name} {str(path)!r} is not the model that was measured any more")
    if not path.is_dir():
        raise ValueError(f"{name} {str(path)!r} is no folder: a bundle takes a model's folder")
    return str(path.resolve())


def _copied(model: str, target: Path) -> str:
    """Copy a model's own files, without what its stage wrote beside them. A model that is no folder
    stays a name. Returns the name in the bundle."""
    source = Path(model)
    if not source.is_dir():
        return model
    copy_model(source, target)
    return target.name


def _prompt(measured: Measurement) -> dict[str, Any]:
    """The fields of `Bundle` that say how a problem becomes a prompt, from the data stage."""
    verifier = measured.manifest["recipe"]["verifier"]
    task = TYPED_TASKS.get(verifier)
    template = task.template if task else f"{PLACE}\n"
    source = measured.manifest["inputs"].get("data", {}).get("source", "")
    recipe = (read_json(measured.folder / source / MANIFEST) or {}).get("recipe", {})
    if recipe.get("prompt") in PROMPTS:
        template = PROMPTS[recipe["prompt"]].replace("{question}", PLACE)
    known = "task" in recipe
    return {
        "task": verifier if task else None,
        "template": template,
        "chat": recipe.get("chat_model") is not None if known else None,
        "thinking": recipe.get("thinking"),
    }
