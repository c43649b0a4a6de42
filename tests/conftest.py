"""Published data sets that some tests read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

PUBLISHED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def published_data() -> Path:
    """The folder of published data. A test that needs it is skipped without it, and fails if
    THINKTREE_REQUIRE_DATA=1."""
    if not PUBLISHED_DATA.is_dir():
        reason = f"there is no published data in {PUBLISHED_DATA}"
        if os.environ.get("THINKTREE_REQUIRE_DATA") == "1":
            pytest.fail(f"THINKTREE_REQUIRE_DATA=1, but {reason}")
        pytest.skip(reason)
    return PUBLISHED_DATA
