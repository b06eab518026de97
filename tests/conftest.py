"""Fixtures that every capability's tests share."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler.loadscope import LoadScopeScheduling  # type: ignore[import-untyped]

from peerd.clock import FakeClock
from peerd.store import Store, open_store

if TYPE_CHECKING:
    from peerd.identity.key import Identity


settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")  # other tests run on the same cores: how long an example takes says nothing

SPREAD = re.compile(r"test_short\.py::|_at_every_failpoint")
"""Tests that may run beside others of their file: each breaks machines of its own, or mends what it broke."""


class ByFile(LoadScopeScheduling):  # type: ignore[misc]
    """The tests of a file run in one worker, since they share machines; those that are SPREAD go anywhere.

    It is told here and not by marks: xdist 3.8 hands groups on in an attribute that pytest 9.2 no longer reads.
    """

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if SPREAD.search(nodeid) else nodeid.partition("::")[0]


WALKS = re.compile(r"_at_every_failpoint\w*\[")
"""Tests that kill real daemons at one failpoint each."""
SHARES = 3


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Walk a third of the failpoints, another third after each commit; ``scripts/failpoints`` walks all of them."""
    if os.environ.get("PEERD_ALL_FAILPOINTS") or config.option.keyword or not all(map(os.path.isdir, config.args)):
        return  # who names tests wants just those
    command = ["git", "-C", str(Path(__file__).parent), "rev-list", "--count", "HEAD"]
    counted = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    turn = int(counted or 0) % SHARES
    walks = [item for item in items if WALKS.search(item.nodeid)]
    left_out = {id(item) for number, item in enumerate(walks) if number % SHARES != turn}
    config.hook.pytest_deselected(items=[item for item in items if id(item) in left_out])
    items[:] = [item for item in items if id(item) not in left_out]


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
