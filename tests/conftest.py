"""Fixtures that every capability's tests share."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling  # type: ignore[import-untyped]

from peerd.clock import FakeClock
from peerd.store import Store, open_store

if TYPE_CHECKING:
    from peerd.identity.key import Identity


SPREAD = re.compile(r"test_short\.py::|_at_every_failpoint")
"""Tests that may run beside others of their file: each breaks machines of its own, or mends what it broke."""


class ByFile(LoadScopeScheduling):  # type: ignore[misc]
    """The tests of a file run in one worker, since they share machines; those that are SPREAD go anywhere.

    It is told here and not by marks: xdist 3.8 hands groups on in an attribute that pytest 9.2 no longer reads.
    """

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if SPREAD.search(nodeid) else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """How tests are dealt out to workers."""
    return ByFile(config, log)


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
