"""A bundle of tiny real models, and its server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.bundles import export_bundle
from tests.unit.search_server import Served, serving


@pytest.fixture(scope="module")
def bundle(tiny_policy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_bundle(tmp_path_factory.mktemp("run"), tiny_policy)


@pytest.fixture(scope="module")
def served(bundle: Path) -> Iterator[Served]:
    with serving(bundle, max_body_kib=64) as found:
        yield found
