"""Which of many ports are open: with nmap where it is installed, else by connecting.

nmap gets fixed arguments and an address that was judged, never a name or anything that somebody sent; it only connects
(``-sT``), so it needs no privileges, and runs none of its scripts. Each port counts as a dial, and its rate is
the dialer's.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from peerd.nodes.probing.dialer import Dialer
from peerd.nodes.probing.guard import Address

CONNECT_SECONDS = 1.5
_OUTPUT_BYTES = 256 * 1024
_PORTS = re.compile(r"^Host: \S+ .*?\tPorts: ([^\t\n]*)", re.MULTILINE)
_OPEN = re.compile(r"(\d{1,5})/open/tcp/")


@dataclass(frozen=True, kw_only=True)
class PortScan:
    """Which ports of an address are open."""

    tool: str
    """``nmap`` or ``connect``."""
    open: tuple[int, ...]
    notes: tuple[str, ...] = ()


async def scan_ports(
    dialer: Dialer,
    address: Address,
    ports: Sequence[int],
    *,
    per_second: float,
    seconds: float,
    nmap: str | None = None,
) -> PortScan:
    """Look at all of the ports. ``nmap``: its path; where None, it is looked for. Raises NotAllowedError."""
    program = shutil.which("nmap") if nmap is None else nmap
    if program:
        for port in ports:
            dialer.record(address, port)
        found = await _with_nmap(program, address, ports, per_second, seconds)
        if isinstance(found, PortScan):
            return found
        by_hand = await _by_connecting(dialer, address, ports)
        return PortScan(tool=by_hand.tool, open=by_hand.open, notes=(found,))
    return await _by_connecting(dialer, address, ports)


def nmap_arguments(address: Address, ports: Sequence[int], *, per_second: float, seconds: float) -> list[str]:
    """What nmap is told; https://nmap.org/book/man-briefoptions.html has every option."""
    family = ["-6"] if address.version == 6 else []
    return [
        *family,
        *("-sT", "-Pn", "-n", "--max-retries", "1", "--max-rate", str(max(1, int(per_second)))),
        *("--host-timeout", f"{max(1, int(seconds))}s", "-oG", "-"),
        *("-p", ",".join(str(port) for port in sorted(ports)), "--", str(address)),
    ]


def open_of_greppable(text: str) -> tuple[int, ...]:
    """The open TCP ports that nmap's greppable output names."""
    listed = (match[1] for match in _PORTS.finditer(text))
    return tuple(sorted({int(port) for line in listed for port in _OPEN.findall(line) if int(port) <= 65535}))


async def _with_nmap(
    program: str, address: Address, ports: Sequence[int], per_second: float, seconds: float
) -> PortScan | str:
    """What nmap found, or a sentence about why it found nothing."""
    arguments = nmap_arguments(address, ports, per_second=per_second, seconds=seconds)
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError as error:
        return f"nmap does not start ({error.strerror}); ports were connected to instead"
    assert process.stdout is not None  # noqa: S101 - it was asked for
    try:
        async with asyncio.timeout(seconds):
            output = await process.stdout.read(_OUTPUT_BYTES)
            while len(output) < _OUTPUT_BYTES and (piece := await process.stdout.read(_OUTPUT_BYTES - len(output))):
                output += piece
            code = await process.wait()
    except TimeoutError:
        return f"nmap did not end in {seconds:g} s; ports were connected to instead"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code != 0:
        return f"nmap ended with {code}; ports were connected to instead"
    wanted = set(ports)
    found = open_of_greppable(output.decode("utf-8", errors="replace"))
    return PortScan(tool="nmap", open=tuple(port for port in found if port in wanted))


async def _by_connecting(dialer: Dialer, address: Address, ports: Sequence[int]) -> PortScan:
    found: list[int] = []

    async def look(port: int) -> None:
        try:
            async with dialer.connection(address, port, CONNECT_SECONDS):
                found.append(port)
        except OSError:  # refused, unreachable, or no answer in time: not open
            pass

    async with asyncio.TaskGroup() as group:
        for port in ports:
            group.create_task(look(port))
    return PortScan(tool="connect", open=tuple(sorted(found)))
