"""The report stage writes every number of a run to results.json, and draws them in report.html."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from trainer.report.console import print_results
from trainer.report.page import write_report
from trainer.report.results import ReportConfig, collect_results, report_trees
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.manifests import is_complete
from trainer.runtime.processes import is_main_process
from trainer.runtime.stage import BEGUN, run_stage


def _is_plain_model(folder: Path) -> bool:
    ours = is_complete(folder) or (folder / BEGUN).exists()
    return (folder / "config.json").is_file() and not ours


def run_report(runtime: RuntimeConfig, config: ReportConfig) -> None:
    """A model that the recipe names in the place of a stage, such as an instruct model in the place
    of SFT, has no numbers: it is left out."""
    plain = [stage for stage in config.stages if _is_plain_model(Path(stage))]
    for stage in plain:
        print(f"{stage} is a model, and no stage's folder: it is left out of the report")
    config = replace(config, stages=[stage for stage in config.stages if stage not in plain])
    inputs: dict[str, str | None] = {Path(stage).name: stage for stage in config.stages}
    with run_stage("report", runtime, [config], inputs) as record:
        if not is_main_process():
            return
        folder = Path(runtime.output_dir)
        found = collect_results(runtime, config)
        results = found.as_json()
        (folder / "results.json").write_text(json.dumps(results, indent=1))
        write_report(results, report_trees(config, found.evaluation), folder / "report.html")
        for name in ("accuracy", "training_curve", "gates", "data_making", "ledger"):
            record.run.log_table(name, results[name])
        compared = [{"comparison": key, **c} for key, c in results["comparisons"].items()]
        record.run.log_table("comparisons", compared)
        record.run.log_page("report", folder / "report.html")
        for name in ("results.json", "report.html"):
            temporary = folder.parent / f".{name}"
            shutil.copyfile(folder / name, temporary)
            temporary.replace(folder.parent / name)
        record.metrics |= {
            f"{name}_{key}": comparison[key]
            for name, comparison in results["comparisons"].items()
            for key in ("difference", "low", "high")
        }
        print_results(results)
