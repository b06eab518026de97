"""One running fleet for each module that only needs three healthy machines; tests that break one make their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .fleet import Fleet

LONGEST_SECONDS = 400
"""Of a test here, unless it says so itself: it waits for processes, and gets little of a busy machine."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(LONGEST_SECONDS))


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """c (founder, orchestrator), a and b (workers), trusted to each other and running."""
    made = Fleet()
    try:
        made.found()
        yield made
    finally:
        made.close()


@pytest.fixture
def own_fleet() -> Iterator[Fleet]:
    """The same, for one test that kills, cuts or revokes."""
    made = Fleet()
    try:
        made.found()
        yield made
    finally:
        made.close()
