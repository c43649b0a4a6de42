"""The import stage turns published step labels of several formats into stepwise rows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from data.formats.base import FormatOptions
from data.formats.reading import FORMATS, LabelSummary, format_of_source, read_labelled
from data.formats.stepwise import labels_columns, trl_columns
from data.prompts import PROMPTS, render
from data.settings import did_you_mean
from data.types import LabelledSolution
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.processes import is_main_process
from trainer.runtime.skipped_rows import report_bad_rows
from trainer.runtime.stage import run_stage

AUTO = "auto"
ROW_KINDS = ("labels", "trl")


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """Which published step labels are read, and how.

    With `rows: trl` any TRL trainer takes the rows: a label of `threshold` or more is true, and an
    unlabelled step is joined to the next labelled one.
    """

    source: str
    """Source (data/sources.py) of the rows."""
    format: str = AUTO
    """Format of the rows: a key of FORMATS, or auto, which looks at the first row's columns."""
    neutral_rating: str = "correct"
    """How a neutral rating (PRM800K's 0) is read: correct, incorrect or unlabelled."""
    delimiter: str | None = None
    """Text that ends every step but the last; null: the delimiter of the format."""
    prompt: str | None = None
    """Style of the prompts (data/prompts.py); null: question, or as_is for stepwise rows."""
    chat_model: str | None = None
    """Model whose chat template the prompts get; null: none."""
    rows: str = "labels"
    """Rows to write: labels (probabilities, null for an unlabelled step) or trl (true or false)."""
    threshold: float = 0.5
    """Minimum label of a step that is true in a trl row; above 0, up to 1."""
    max_bad_rows: int = 0
    """The stage fails if more rows than this are unusable."""

    def __post_init__(self) -> None:
        if self.format not in (AUTO, *FORMATS):
            raise ValueError(
                f"format is {self.format!r}; {did_you_mean(self.format, FORMATS)}"
                f"allowed: {', '.join((AUTO, *FORMATS))}"
            )
        if self.prompt is not None and self.prompt not in PROMPTS:
            raise ValueError(f"prompt is {self.prompt!r}; allowed: {', '.join(PROMPTS)}, or null")
        if self.rows not in ROW_KINDS:
            raise ValueError(f"rows is {self.rows!r}; allowed: {', '.join(ROW_KINDS)}")
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold}; allowed: above 0, up to 1")
        if self.max_bad_rows < 0:
            raise ValueError(f"max_bad_rows is {self.max_bad_rows}; allowed: 0 or more")
        self.options()

    def options(self) -> FormatOptions:
        return FormatOptions(neutral_rating=self.neutral_rating, delimiter=self.delimiter)


def run_import(runtime: RuntimeConfig, config: ImportConfig) -> None:
    """Write labels.jsonl and, if rows were left out, bad_rows.jsonl. Raises ValueError for too many
    bad rows, for a source without labels, and if "auto" does not recognise the columns."""
    with run_stage("import", runtime, [config], {"source": config.source}) as record:
        if not is_main_process():
            return
        folder = Path(runtime.output_dir)
        name = format_of_source(config.source) if config.format == AUTO else config.format
        read = read_labelled(config.source, name, config.options())
        print(_described(config.source, name, read.summary), flush=True)
        report_bad_rows(read.bad_rows, config.max_bad_rows, folder, record)
        if not read.solutions:
            raise ValueError(f"source {config.source!r}: no row holds a label")
        style = config.prompt or ("question" if FORMATS[name].bare_question else "as_is")
        _write(folder / "labels.jsonl", map(_prompted(style, config), read.solutions), config)
        record.metrics |= {"format": name, **asdict(read.summary)}
        record.metrics["share_positive"] = read.summary.share_positive


def _described(source: str, name: str, summary: LabelSummary) -> str:
    return (
        f"{source} as {name}: {summary.rows} rows, {summary.rejected} of them rejected and "
        f"{summary.unlabelled} without a label; {summary.solutions} solutions to "
        f"{summary.problems} problems, {summary.labelled_steps} labelled steps, "
        f"{summary.share_positive:.1%} of them positive"
    )


def _prompted(style: str, config: ImportConfig) -> Callable[[LabelledSolution], LabelledSolution]:
    """A function that gives a solution the prompt that the policy gets for its question."""

    def put(solution: LabelledSolution) -> LabelledSolution:
        prompt = render(solution.solution.prompt, style, config.chat_model)
        stepped = dataclasses.replace(solution.solution, prompt=prompt)
        return dataclasses.replace(solution, solution=stepped)

    return put


def _write(path: Path, solutions: Iterable[LabelledSolution], config: ImportConfig) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for solution in solutions:
            if config.rows == "trl":
                row = trl_columns(solution, config.threshold)
            else:
                row = labels_columns(solution)
            file.write(json.dumps(row) + "\n")
