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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of a file run in one worker, since they share machines; those marked ``spread`` go anywhere."""
    for item in items:
        if item.get_closest_marker("spread") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


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
