"""A bundle: one folder of a policy, a reward model and three effort levels, ready to be used.

scripts/export_bundle.py writes it; scripts/solve.py and scripts/serve.py read it. `bundle.json` is
`asdict` of `Bundle`. The folder also holds `policy/`, `reward_model/` and `judge/`, if there are
these models and they are folders, and a model card, README.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.json_records import read_record
from data.settings import did_you_mean
from search.settings import JUDGE, SearchSettings
from search.strategies.by_name import entry
from search.strategies.routed import json_config
from trainer.runtime.command_line import peek

BUNDLE = "bundle.json"
FORMAT, VERSION = "thinktree-bundle", 1
EFFORTS = ("low", "medium", "high")
DEFAULT_EFFORT = "medium"
# The options of scripts/solve.py that a bundle decides.
DECIDED = ("model", "reward_model", "judge", "strategy", "template", "task", "chat", "thinking")


@dataclass(frozen=True, kw_only=True)
class EffortLevel:
    """A strategy with its settings, and what was measured of it.

    `config` holds the fields of the strategy's config and `settings` those of `SearchSettings`, as
    JSON has them. `measured_as` is the strategy's name in the measurement. `accuracy`, `low` and
    `high` (95 % interval) are fractions of `problems` problems of `split`; tokens and FLOPs are
    means per problem. `thinking_tokens` is the mean length of a thought, if that was measured.
    """

    name: str
    strategy: str
    config: Mapping[str, Any]
    settings: Mapping[str, Any]
    measured_as: str
    budget: int
    split: str
    problems: int
    accuracy: float
    low: float
    high: float
    generated_tokens: float
    thinking_tokens: float | None
    flops: float

    def strategy_config(self) -> Any:
        """Raises ValueError and TypeError for values that the strategy does not take."""
        return json_config(entry(self.strategy).config, self.config)

    def search_settings(self) -> SearchSettings:
        """Raises ValueError and TypeError for values that `SearchSettings` does not take."""
        return json_config(SearchSettings, self.settings)


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """The content of bundle.json.

    `policy`, `reward_model` and `judge` are folders in the bundle, or names and addresses outside
    it. The judge chooses the answers of levels whose settings have `answer_guidance: judge`.
    `template` is the prompt of a problem, with {problem} in it. `task` is a key of TYPED_TASKS, or
    None. `chat` and `thinking` are those of `scripts/solve.py`. `answer_format` says where
    `verifier` finds the answer in a solution. `run` names the run, `seed` is its seed.
    """

    format: str
    version: int
    name: str
    run: str
    seed: int
    policy: str
    reward_model: str | None
    verifier: str
    answer_format: str
    task: str | None
    template: str
    chat: bool | None
    thinking: bool | None
    levels: tuple[EffortLevel, ...]
    judge: str | None = None

    def level(self, effort: str) -> EffortLevel:
        """Raises ValueError for an effort that the bundle does not have."""
        names = [level.name for level in self.levels]
        if effort not in names:
            raise ValueError(
                f"effort is {effort!r}; {did_you_mean(effort, names)}allowed: {', '.join(names)}"
            )
        return self.levels[names.index(effort)]


def read_bundle(folder: str | Path) -> Bundle:
    """The bundle of a folder; its models are paths that this process can open.

    Raises ValueError for a folder that is no bundle, for a bundle.json of another format, version
    or type, and for a level with settings that this version does not take.
    """
    path = Path(folder) / BUNDLE
    if not path.is_file():
        raise ValueError(
            f"bundle is {str(folder)!r}: it holds no {BUNDLE}; scripts/export_bundle.py makes one"
        )
    bundle = read_record(Bundle, path)
    if (bundle.format, bundle.version) != (FORMAT, VERSION):
        raise ValueError(
            f"{path}: the format is {bundle.format!r} {bundle.version}, not {FORMAT!r} {VERSION}"
        )
    if [level.name for level in bundle.levels] != list(EFFORTS):
        raise ValueError(f"{path}: levels must be {', '.join(EFFORTS)}, in this order")
    for level in bundle.levels:
        try:
            level.strategy_config()
            level.search_settings()
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: level {level.name}: {error}") from None
    inside = {
        field: str(Path(folder) / name)
        for field in ("policy", "reward_model", "judge")
        if (name := getattr(bundle, field)) is not None and (Path(folder) / name).is_dir()
    }
    return dataclasses.replace(bundle, **inside)


def words_of_the_bundle(argv: Sequence[str]) -> list[str]:
    """The command line of scripts/solve.py, with what its `--bundle` and `--effort` stand for. What
    the user gives overrides the level's settings.

    Raises ValueError for an effort without a bundle, for an option that the bundle decides, and the
    errors of `read_bundle` and `Bundle.level`.
    """
    folder, effort = peek("bundle", argv, None), peek("effort", argv, None)
    if folder is None:
        if effort is not None:
            raise ValueError(f"effort is {effort!r}, but it needs bundle: a bundle has the levels")
        return list(argv)
    bundle = read_bundle(folder)
    level = bundle.level(effort or DEFAULT_EFFORT)
    for name in DECIDED:
        if peek(name, argv, None) is not None:
            raise ValueError(f"{name} is given, but the bundle decides it: leave out one of both")
    values: dict[str, Any] = {
        "model": bundle.policy,
        "reward_model": bundle.reward_model,
        "judge": bundle.judge if _asks_judge(level, argv) else None,
        "strategy": level.strategy,
        **_without_defaults(SearchSettings, level.settings),
        **_without_defaults(entry(level.strategy).config, level.config),
        "max_new_tokens": level.search_settings().max_new_tokens,
    }
    if peek("file", argv, None) is None:
        values |= {"template": bundle.template, "task": bundle.task}
        values |= {"chat": bundle.chat, "thinking": bundle.thinking}
    elif peek("verifier", argv, None) is None:
        values["verifier"] = bundle.verifier
    return [*_options(values), *argv]


def _asks_judge(level: EffortLevel, argv: Sequence[str]) -> bool:
    own = level.search_settings().answer_guidance
    return peek("answer_guidance", argv, own) == JUDGE


def _without_defaults(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    plain = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return {name: value for name, value in plain.items() if defaults.get(name) != value}


def _options(values: Mapping[str, Any]) -> list[str]:
    """Options of a launcher with these values; None is left out."""
    words: list[str] = []
    for name, value in values.items():
        if isinstance(value, tuple | list):
            words += [f"--{name}", *map(str, value)]
        elif value is not None:
            words.append(f"--{name}={str(value).lower() if isinstance(value, bool) else value}")
    return words
