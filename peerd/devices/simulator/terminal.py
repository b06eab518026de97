"""A pseudo-terminal that prints steps at their times, and the file by which peerd finds it.

The terminal is unplugged when its process ends, however that ends: the file names the process and when it began.
"""

from __future__ import annotations

import json
import os
import select
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from peerd.clock import Clock
from peerd.devices.watch import process_start

_SLICE_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What USB would say."""

    name: str
    serial: str = ""
    usb_path: str = ""
    vendor_id: str = "10c4"
    product_id: str = "ea60"


class Terminal:
    """One simulated device. Use as a context."""

    def __init__(self, folder: Path, identity: Identity, clock: Clock) -> None:
        self._file = folder / f"{identity.name}.json"
        self._identity = identity
        self._clock = clock
        self._master = -1
        self._plugs = 0
        self.path = ""

    def plug(self) -> None:
        """Make the terminal, and say so."""
        self._master, slave = os.openpty()
        tty.setraw(slave)
        self.path = os.ttyname(slave)
        os.close(slave)
        os.set_blocking(self._master, False)
        self._plugs += 1
        content = {
            "path": self.path,
            "usb_path": self._identity.usb_path,
            "vendor_id": self._identity.vendor_id,
            "product_id": self._identity.product_id,
            "serial": self._identity.serial,
            "product": "simulated miner",
            "token": f"{os.getpid()}-{process_start(os.getpid())}-{self._plugs}",
            "pid": os.getpid(),
            "started": process_start(os.getpid()),
        }
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(content))
        fresh.replace(self._file)

    def unplug(self) -> None:
        """As if it was pulled out."""
        if self._master >= 0:
            self._file.unlink(missing_ok=True)
            os.close(self._master)
            self._master = -1

    def play(self, steps: Iterator[tuple[float, bytes]], order: Callable[[], bool], *, speed: float) -> None:
        """Print the steps, so many times as fast; returns when they end, or ``order`` says so."""
        due = self._clock.monotonic()
        for pause, data in steps:
            due += pause / speed
            while (left := due - self._clock.monotonic()) > 0:
                if order():
                    return
                self._drain(min(left, _SLICE_SECONDS))
            self.send(data)
            if order():
                return

    def await_open(self, order: Callable[[], bool]) -> None:
        """Return when somebody opens it, or ``order`` says so."""
        poll = select.poll()
        poll.register(self._master, select.POLLIN)
        while not order() and any(event & select.POLLHUP for _, event in poll.poll(0)):
            select.select([], [], [], _SLICE_SECONDS)

    def say(self, text: str) -> None:
        """Print a line between the others."""
        self.send(text.encode() + b"\r\n")

    def send(self, data: bytes) -> None:
        """What nobody reads is lost, as it is on a real line."""
        if not data or self._master < 0:
            return
        try:
            os.write(self._master, data)
        except BlockingIOError:
            termios.tcflush(self._master, termios.TCIOFLUSH)
        except OSError as error:
            print(f"terminal: {error}", file=sys.stderr)

    def _drain(self, seconds: float) -> None:
        """A miner does not listen."""
        if self._master < 0:
            select.select([], [], [], seconds)
            return
        readable, _, _ = select.select([self._master], [], [], seconds)
        if readable:
            try:
                os.read(self._master, 4096)
            except OSError:  # nobody has it open: there is nothing to wait for, which select does not know
                select.select([], [], [], seconds)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.unplug()
