"""One daemon that all tests of this folder attack, for it has to outlive them all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.hostile.attacks import warm_up
from tests.hostile.target import Target, target


@pytest.fixture(scope="session")
def running() -> Iterator[Target]:
    with target() as victim:
        warm_up(victim, 50)
        victim.rested = victim.condition()
        yield victim


@pytest.fixture
def victim(running: Target) -> Iterator[Target]:
    """The daemon; after each test it lives, and has crashed nowhere, and gave back memory and descriptors."""
    assert running.alive, running.daemon.tail()
    before = running.condition()
    yield running
    running.assert_recovered(replace(before, rss=max(before.rss, running.rested.rss)))
