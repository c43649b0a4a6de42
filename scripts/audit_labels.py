"""Label a sample of labelled prefixes again with many rollouts: bias, variance, coverage."""

from __future__ import annotations

from trainer.auditing import AuditConfig, run_audit
from trainer.recipe import parse_recipe
from trainer.runtime import RuntimeConfig


def main() -> None:
    run_audit(*parse_recipe((RuntimeConfig, AuditConfig)))


if __name__ == "__main__":
    main()
