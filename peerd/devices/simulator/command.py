"""What ``peerd simulate`` runs."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from peerd.clock import SystemClock
from peerd.devices.dump import to_port
from peerd.devices.serial_line import open_line
from peerd.devices.simulator.firmware import Board, Fault
from peerd.devices.simulator.recording import Recorder, replay
from peerd.devices.simulator.session import Session
from peerd.devices.simulator.terminal import Identity, Terminal
from peerd.errors import PeerdError, Reason


def simulate(
    *,
    folder: Path,
    name: str,
    serial: str,
    usb_path: str,
    wallet: str,
    pool: str,
    password: str,
    rate: float,
    fault: str,
    clone: bool,
    seconds: float,
    speed: float,
    boot_on_open: bool,
    replay: Path | None,
) -> None:
    """Until it is told to quit. Raises INVALID_ARGUMENT."""
    host, _, port = pool.rpartition(":")
    if not host or not to_port(port):
        raise PeerdError(Reason.INVALID_ARGUMENT, f"--pool {pool!r} is not HOST:PORT")
    if fault not in {each.value for each in Fault}:
        known = ", ".join(each.value for each in Fault)
        raise PeerdError(Reason.INVALID_ARGUMENT, f"there is no fault {fault!r}; there are {known}")
    if min(rate, seconds, speed) <= 0:
        raise PeerdError(Reason.INVALID_ARGUMENT, "--rate, --every and --speed are above zero")
    if not name or "/" in name or name.startswith("."):
        raise PeerdError(Reason.INVALID_ARGUMENT, f"--name {name!r} is no name of a file")
    board = Board(
        pool=host,
        port=to_port(port),
        password=password,
        wallet=wallet or Board().wallet,
        hash_rate_khs=rate,
        leds=not clone,
        trailing_comma=clone,
        software_only=clone,
        fault=Fault(fault),
    )
    steps = None if replay is None else read_recording(replay)
    identity = Identity(name=name, serial=serial, usb_path=usb_path or name)
    with Terminal(folder, identity, SystemClock()) as terminal:
        Session(terminal, board, speed=speed, seconds=seconds, boot_on_open=boot_on_open).run(steps)


def record(path: Path, seconds: float) -> None:
    """Print a console as a recording. Raises DEVICE_BUSY, DEVICE_GONE."""

    async def listen() -> None:
        clock = SystemClock()
        recorder = Recorder(clock.monotonic())

        def receive(data: bytes) -> None:
            for row in recorder.feed(data, clock.monotonic()):
                print(row, flush=True)

        async with open_line(str(path), receive) as gone:
            done, _ = await asyncio.wait({gone}, timeout=seconds)
            if done:
                print(f"{path}: {gone.result()}", file=sys.stderr)

    asyncio.run(listen())


def read_recording(file: Path) -> list[tuple[float, bytes]]:
    """What a recording printed. Raises INVALID_ARGUMENT."""
    try:
        with file.open(encoding="utf-8") as rows:
            return list(replay(rows))
    except OSError as error:
        raise PeerdError(Reason.INVALID_ARGUMENT, f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PeerdError(
            Reason.INVALID_ARGUMENT,
            f"{file} is no recording: it is not text",
            next_action="make one with 'peerd simulate record PORT > FILE'",
        ) from error
