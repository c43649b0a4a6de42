"""The report stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainer.report.results import ReportConfig
from trainer.runtime.config import RuntimeConfig
from trainer.stages.report import run_report


def test_a_model_in_the_place_of_a_stage_is_left_out(tmp_path: Path, capsys: Any) -> None:
    """The folder of a stage that has not ended is not."""
    for name in ("model", "sft"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "sft" / ".begun.json").write_text("{}")
    config = ReportConfig(
        stages=[str(tmp_path / "model"), str(tmp_path / "sft")],
        evaluation=str(tmp_path / "sft"),
        verifier="math",
    )
    runtime = RuntimeConfig(output_dir=str(tmp_path / "report"), wandb=False)
    with pytest.raises(FileNotFoundError, match=r"evaluation\.json"):
        run_report(runtime, config)
    printed = capsys.readouterr().out
    assert printed.count("left out") == 1
    assert f"{tmp_path / 'model'} is a model, and no stage's folder: it is left out" in printed
