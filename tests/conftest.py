"""Fixtures that every capability's tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from peerd.clock import FakeClock
from peerd.store import Store, open_store

if TYPE_CHECKING:
    from peerd.identity.key import Identity


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def store(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Store]:
    opened = await open_store(tmp_path / "peerd.db", clock)
    yield opened
    await opened.close()


@pytest.fixture
def identity() -> Identity:
    from peerd.identity.key import Identity

    return Identity.generate()
