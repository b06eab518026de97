"""Noise on a line, as much as you like, through all that looks at it: how fast, how much memory, how long a turn.

    scripts/noise --megabytes 1024

Each kind goes through the handshake of a device that is a miner already, so that it is listened to for ever, through
the lines that people see, and through the monitor. One turn is what the daemon looks at between two awaits at most.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context

from peerd.devices.handshake import Handshake
from peerd.devices.inflow import MOST_PENDING
from peerd.devices.lines import LineAssembler
from peerd.devices.watching import Watcher

TURN = MOST_PENDING
_MEGABYTE = 1 << 20


def _any_bytes(dice: random.Random) -> bytes:
    return dice.randbytes(TURN)


def _text(dice: random.Random) -> bytes:
    return bytes(dice.choices(b"abcdefghijklmnopqrstuvwxyz {}[]\":,'\\>0123456789\n", k=TURN))


def _no_line_ends(dice: random.Random) -> bytes:
    return dice.randbytes(TURN).replace(b"\n", b"x").replace(b"\r", b"x")


_PIECES = (
    *(b'"poolPassword": "', b'["a", "', b"Receiving: ", b'{"id": 2, "result": ', b">>> Completed ", b"[WORKER] "),
    *(b"{\n", b"}\n", b'"psk":', b"Raw flash data: '", b"PoolString: ", b"\n", b"\r\n", b'"\\', b"$GPGGA,"),
    *(b"ERROR: 24 | reason: ", b'"method": "mining.notify"', b"\x1b[31m", b"rst:0x", b"MAC: aa:bb:cc:"),
)


def _almost_a_miner(dice: random.Random) -> bytes:
    """Pieces of what the firmware prints, in any order: what costs the most to look at."""
    return b"".join(dice.choices(_PIECES, k=TURN // 8))[:TURN]


KINDS: dict[str, Callable[[random.Random], bytes]] = {
    "any bytes": _any_bytes,
    "text": _text,
    "no line ends": _no_line_ends,
    "almost a miner": _almost_a_miner,
}


@dataclass(frozen=True)
class Measured:
    """Of one kind."""

    megabytes: float
    megabytes_a_cpu_second: float
    longest_turn_cpu_ms: float
    grown_kib: int
    """Of the process, after its first few megabytes."""


def measure(kind: str, megabytes: float, *, seed: int = 1) -> Measured:
    """Feed so much of it."""
    dice = random.Random(seed)
    turns = [KINDS[kind](dice) for _ in range(8)]
    handshake, lines, watcher = Handshake(0), LineAssembler(torn=True), Watcher(0)
    handshake.feed(b"NerdMiner v2 starting......\n", 0)
    number = max(1, round(megabytes * _MEGABYTE / TURN))
    spent = longest = 0.0
    before = 0
    for at in range(number):
        if at == number // 8:
            before = _resident()
        began = time.process_time()
        _, deadline = handshake.feed(turns[at % len(turns)], 0)
        if deadline is None:  # noise may say that its pool refuses it: it is listened to anew
            handshake = Handshake(0)
            handshake.feed(b"NerdMiner v2 starting......\n", 0)
        for line in lines.feed(turns[at % len(turns)]):
            watcher.line(line, 0)
        watcher.window()
        turn = time.process_time() - began
        spent, longest = spent + turn, max(longest, turn)
    fed = number * TURN / _MEGABYTE
    return Measured(fed, round(fed / spent, 2), round(longest * 1000, 1), max(0, _resident() - before))


def _resident() -> int:
    """The most memory up to now, in KiB: it cannot hide what came and went."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--megabytes", type=float, default=1024.0, help="in all; 1024 by default")
    options = parser.parse_args()
    each = options.megabytes / len(KINDS)
    # Each in a process of its own: the most memory that one has taken says nothing of the next.
    with ProcessPoolExecutor(mp_context=get_context("spawn"), max_tasks_per_child=1) as processes:
        measured = processes.map(measure, KINDS, [each] * len(KINDS))
        json.dump({kind: asdict(found) for kind, found in zip(KINDS, measured, strict=True)}, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
