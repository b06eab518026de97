"""One run of ``peerd simulate miner``: a board on a terminal, and orders on stdin.

Orders: ``reboot``, ``unplug``, ``plug``, ``fault NAME`` (from its next boot on), ``print TEXT``, ``quit``.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator
from dataclasses import replace

from peerd.devices.simulator.firmware import Board, Fault, run
from peerd.devices.simulator.terminal import Terminal

ORDERS = "reboot, unplug, plug, fault NAME, print TEXT, quit"


class Session:
    """Obeys until it is told to quit."""

    def __init__(self, terminal: Terminal, board: Board, *, speed: float, seconds: float, boot_on_open: bool) -> None:
        self._terminal = terminal
        self._board = board
        self._speed = speed
        self._seconds = seconds
        self._boot_on_open = boot_on_open
        self._stdin = sys.stdin.fileno()
        self._typed = b""
        self._again = False
        self._plugged = True
        self._quit = False

    def run(self, replayed: list[tuple[float, bytes]] | None = None) -> None:
        """Until ``quit``, or until what is replayed has ended and nobody can give orders."""
        self._terminal.plug()
        print(self._terminal.path, flush=True)
        while not self._quit:
            self._again = False
            if not self._plugged:
                self._terminal.play(_nothing(), self._order, speed=1)
                continue
            if self._boot_on_open:
                self._terminal.await_open(self._order)
                if self._again or self._quit:
                    continue
            steps = run(self._board, self._seconds) if replayed is None else iter(replayed)
            self._terminal.play(steps, self._order, speed=self._speed)
            if not self._again and not self._quit:
                self._terminal.play(_nothing(), self._order, speed=1)

    def _order(self) -> bool:
        """Take one order if there is one; whether what is played ends."""
        line = self._line()
        if line is None:
            return self._again or self._quit
        word, _, rest = line.partition(" ")
        match word:
            case "quit":
                self._quit = True
            case "reboot":
                self._again = True
            case "unplug":
                self._terminal.unplug()
                self._plugged, self._again = False, True
            case "plug" if not self._plugged:
                self._terminal.plug()
                print(self._terminal.path, flush=True)
                self._plugged = self._again = True
            case "fault" if rest in {fault.value for fault in Fault}:
                self._board = replace(self._board, fault=Fault(rest))
            case "print":
                self._terminal.say(rest)
            case "":
                pass
            case _:
                print(f"{line!r} is no order; there are {ORDERS}", file=sys.stderr, flush=True)
        return self._again or self._quit

    def _line(self) -> str | None:
        if self._stdin >= 0 and b"\n" not in self._typed and select.select([self._stdin], [], [], 0)[0]:
            typed = os.read(self._stdin, 4096)
            if not typed:
                self._stdin = -1  # nobody types any more: it goes on as it is
            self._typed += typed
        line, end, rest = self._typed.partition(b"\n")
        if not end:
            return None
        self._typed = rest
        return line.decode("utf-8", "replace").strip()


def _nothing() -> Iterator[tuple[float, bytes]]:
    while True:
        yield 60.0, b""
