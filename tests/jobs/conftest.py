from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from peerd.clock import FakeClock
from peerd.store import Store

from .harness import SERVICES, Host


@pytest.fixture
async def host(store: Store, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Host]:
    """A machine whose executor runs."""
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o700)
    made = Host(store, clock, data_dir)
    await made.catalog.sync(SERVICES)
    made.run()
    yield made
    await made.stop()
