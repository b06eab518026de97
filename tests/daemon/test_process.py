"""The data directory belongs to one daemon until nothing of it is left."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from peerd.daemon.process import _held
from peerd.datadir import DataDir
from peerd.errors import PeerdError, Reason


def test_the_directory_is_held_until_the_last_thread_has_ended(tmp_path: Path) -> None:
    folder = DataDir(tmp_path)
    begun, may_end, refused = threading.Event(), threading.Event(), list[Reason]()

    def work() -> None:
        begun.set()
        assert may_end.wait(60)

    def next_daemon() -> None:
        assert begun.wait(60)
        time.sleep(0.2)  # until whoever does not wait for the thread has ended
        try:
            with folder.lock():
                pass
        except PeerdError as error:
            refused.append(error.reason)
        may_end.set()

    async def daemon() -> None:
        async with _held(folder):
            working = asyncio.ensure_future(asyncio.to_thread(work))
            while not begun.is_set():
                await asyncio.sleep(0.01)
            working.cancel()
        assert may_end.is_set()

    beside = threading.Thread(target=next_daemon)
    beside.start()
    asyncio.run(daemon())
    beside.join()
    assert refused == [Reason.DAEMON_RUNNING]
    with folder.lock():
        pass


async def test_who_cannot_have_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peerd.daemon.process._HELD_SECONDS", 0.1)
    with DataDir(tmp_path).lock(), pytest.raises(PeerdError) as caught:
        async with _held(DataDir(tmp_path)):
            pass
    assert caught.value.reason is Reason.DAEMON_RUNNING
