"""One running fleet for each module that only needs three healthy machines; tests that break one make their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .fleet import Fleet


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
