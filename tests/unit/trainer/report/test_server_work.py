"""What servers did for the stages of a run."""

from __future__ import annotations

from typing import Any

from trainer.report.server_work import ServerWork, server_work


def manifest(**metrics: Any) -> dict[str, Any]:
    return {"metrics": metrics}


def test_stages_that_asked_servers_have_a_row_each() -> None:
    asked = manifest(
        server_requests=5,
        server_computed_tokens=30,
        server_cached_tokens=90,
        server_generated_tokens=7,
        accuracy=0.5,
    )
    nothing = manifest(
        server_requests=0,
        server_computed_tokens=0,
        server_cached_tokens=0,
        server_generated_tokens=0,
    )
    found = server_work({"data": manifest(accuracy=1.0), "search": asked, "label": nothing})
    assert found == [
        ServerWork(
            stage="search",
            requests=5,
            computed_tokens=30,
            cached_tokens=90,
            generated_tokens=7,
            cached_share=0.75,
        ),
        ServerWork(
            stage="label",
            requests=0,
            computed_tokens=0,
            cached_tokens=0,
            generated_tokens=0,
            cached_share=0.0,
        ),
    ]
