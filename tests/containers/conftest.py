"""One engine for all tests of containers; each test leaves it empty."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from .podman import Podman, missing


@pytest.fixture(scope="session")
def podman() -> Iterator[Podman]:
    """A real engine with one image; skipped where it cannot be had, required in continuous integration."""
    lacks = missing()
    if os.geteuid() != 0:
        lacks.append("root, for control groups")
    if lacks:
        assert not os.environ.get("PEERD_REQUIRE_ALL"), f"needs {', '.join(lacks)}"
        pytest.skip(f"needs {', '.join(lacks)}")
    made = Podman()
    try:
        made.load()
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def engine(podman: Podman) -> Iterator[Podman]:
    """The same, and whatever happened, the engine's own list is empty afterwards."""
    yield podman
    until = time.monotonic() + 30
    while (left := [container["Names"] for container in podman.containers()]) and time.monotonic() < until:
        time.sleep(0.1)
    for name in left:
        podman.call("rm", "--force", "--time", "0", *name)
    assert not left
