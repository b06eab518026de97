"""A peer that is closed after the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from peerd.clock import FakeClock

from .desk import Desk


@pytest.fixture
async def desk(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Desk]:
    made = Desk(tmp_path, clock)
    await made.start()
    yield made
    await made.store.close()
