"""Label a sample of labelled prefixes again with many rollouts: bias, variance, coverage."""

from __future__ import annotations

from trainer.runtime.command_line import parse_recipe
from trainer.runtime.config import RuntimeConfig
from trainer.runtime.launcher import launch
from trainer.stages.audit_labels import AuditConfig, run_audit

CONFIGS = (RuntimeConfig, AuditConfig)


def main() -> None:
    run_audit(*parse_recipe(CONFIGS))


if __name__ == "__main__":
    launch(main)
