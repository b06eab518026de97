"""What an engine that was killed at a bad moment says of a container afterwards; no engine needed."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from peerd.jobs.runner.containers.engine import State
from peerd.jobs.runner.containers.following import Following, LostError
from peerd.jobs.runner.containers.streams import Output


class Says:
    """An engine that answers one thing."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def state(self, container: str) -> State:
        """The same each time."""
        return self._state

    async def remove(self, container: str, *, force: bool) -> None:
        """Taken away, as one that does not run can be."""


@pytest.mark.parametrize(("status", "ran"), [("exited", True), ("stopped", True), ("dead", True), ("created", False)])
async def test_one_whose_start_was_not_written_down_has_run_all_the_same(
    tmp_path: Path, status: str, *, ran: bool
) -> None:
    """Podman that is killed between letting it run and saying so knows its end, and no moment of its start."""
    said: Any = Says(State(status=status, running=False, pid=0, exit_code=5, oom=False, started=False))
    async with AsyncExitStack() as stack:
        following = Following(said, "c", Output(tmp_path / "out", tmp_path / "err", 1000), stack)
        following.fed.set()
        ended = await following.end()
    assert ended is not None
    assert ended.exit_code == 5
    assert following.may_have_run is ran


async def test_one_that_was_asked_to_start_and_is_said_not_to_have_is_lost(tmp_path: Path) -> None:
    """The engine died between the two: to run it again would run it twice."""
    said: Any = Says(State(status="created", running=False, pid=0, exit_code=0, oom=False, started=False))
    async with AsyncExitStack() as stack:
        following = Following(said, "c", Output(tmp_path / "out", tmp_path / "err", 1000), stack)
        following.may_have_run = True
        with pytest.raises(LostError):
            await following.end()
