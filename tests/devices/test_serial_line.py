"""Open ports, on real pseudo-terminals: however one ends, nothing of it stays open, and the next one can have it."""

from __future__ import annotations

import asyncio
import errno
import os
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import serial
from serial import serialposix

from peerd.devices.serial_line import open_line
from peerd.errors import PeerdError, Reason


@dataclass
class Terminal:
    """A pseudo-terminal: we are the device."""

    master: int
    path: str
    heard: bytearray
    others: frozenset[str]
    """Pipes that this process had before."""

    def receive(self, data: bytes) -> None:
        self.heard += data


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    master, slave = os.openpty()
    tty.setraw(slave)
    yield Terminal(master, os.ttyname(slave), bytearray(), frozenset(open_files()))
    os.close(slave)
    os.close(master)


def held(terminal: Terminal) -> int:
    """How often this process has it open, but for the fixture; and the pipes that come with it."""
    links = open_files()
    pipes = [link for link in links if "pipe:" in link and link not in terminal.others]
    return sum(link == terminal.path for link in links) - 1 + len(pipes)


def open_files() -> list[str]:
    """What this process has open."""
    return [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def test_what_it_prints_comes_and_nothing_stays_open(terminal: Terminal) -> None:
    before = held(terminal)
    async with open_line(terminal.path, terminal.receive):
        assert held(terminal) > before
        os.write(terminal.master, b"hello\n")
        await until(lambda: bytes(terminal.heard) == b"hello\n")
    assert held(terminal) == before


async def test_only_one_has_it(terminal: Terminal) -> None:
    before = held(terminal)
    async with open_line(terminal.path, terminal.receive):
        mine = held(terminal)
        with pytest.raises(PeerdError) as caught:
            async with open_line(terminal.path, terminal.receive):
                pass
        assert caught.value.reason is Reason.DEVICE_BUSY
        assert held(terminal) == mine
    async with open_line(terminal.path, terminal.receive):
        pass
    assert held(terminal) == before


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("tcflush", termios.error(errno.EIO, "Input/output error")),
        ("tcgetattr", termios.error(errno.EIO, "Input/output error")),
        ("TIOCMBIS", OSError(errno.EPROTO, "Protocol error")),
        ("pipe", OSError(errno.EMFILE, "Too many open files")),
    ],
)
async def test_one_that_is_pulled_out_while_it_opens_is_gone(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, step: str, error: Exception
) -> None:
    """The driver fails at whichever step comes first after that."""
    before = held(terminal)

    def fails(*_: Any) -> None:
        raise error

    if step == "TIOCMBIS":
        monkeypatch.setattr(serialposix.Serial, "_update_dtr_state", fails)
    else:
        monkeypatch.setattr(os if step == "pipe" else termios, step, fails)
    with pytest.raises(PeerdError) as caught:
        async with open_line(terminal.path, terminal.receive):
            pass
    monkeypatch.undo()
    assert caught.value.reason is Reason.DEVICE_GONE
    assert terminal.path in caught.value.message
    assert held(terminal) == before


async def test_one_that_is_given_up_while_it_opens_is_closed_when_it_has(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, go, reached = held(terminal), threading.Event(), threading.Event()
    real = serial.Serial

    def slow(*args: Any, **options: Any) -> serial.Serial:
        reached.set()
        go.wait(10)
        return real(*args, **options)

    monkeypatch.setattr("peerd.devices.serial_line.serial.Serial", slow)

    async def listen() -> None:
        async with open_line(terminal.path, terminal.receive):
            raise AssertionError("it was given up")

    task = asyncio.ensure_future(listen())
    await until(reached.is_set)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    go.set()
    await asyncio.sleep(0)
    monkeypatch.undo()

    async def free() -> bool:
        try:
            async with open_line(terminal.path, terminal.receive):
                return True
        except PeerdError:
            return False

    async with asyncio.timeout(30):
        while held(terminal) != before or not await free():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("end", ["cancelled", "raises"])
async def test_whatever_ends_the_reader_closes_the_port(terminal: Terminal, end: str) -> None:
    before, opened = held(terminal), asyncio.Event()

    async def listen() -> None:
        async with open_line(terminal.path, terminal.receive):
            opened.set()
            if end == "raises":
                raise RuntimeError("as the store may")
            await asyncio.Event().wait()

    task = asyncio.ensure_future(listen())
    await opened.wait()
    task.cancel()
    await asyncio.wait({task})
    assert held(terminal) == before


async def test_a_port_that_fails_at_the_moment_it_is_left_ends_once(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, reads = held(terminal), asyncio.Event()
    loop = asyncio.get_running_loop()
    stumbles: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: stumbles.append(context))

    def fails(*_: Any) -> bytes:
        reads.set()  # and whoever waits for it goes on before the loop has told that it failed
        raise serial.SerialException("device reports readiness to read but returned no data")

    async with open_line(terminal.path, terminal.receive):
        monkeypatch.setattr(serialposix.Serial, "read", fails)
        os.write(terminal.master, b"x")
        await reads.wait()
    await asyncio.sleep(0)
    assert not stumbles
    assert held(terminal) == before
