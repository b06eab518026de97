"""What this machine has, read from where Linux says so: no root, nothing that hangs, nothing that fails.

What cannot be found out is left out. Every text is made fit for an advert: printable, and at most so long.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import shutil
import signal
from collections.abc import Iterator, MutableSequence
from pathlib import Path
from typing import Any

import structlog

from peerd.daemon.cgroup import Roots, cpu_limit, memory_limit, read_text
from peerd.v1.registry_pb2 import Disk, Gpu, Hardware, JobRunner, SerialPort

_log = structlog.get_logger(__name__)

_MAX_TEXT = 256
_MAX_BYTES = 16 * 1024
"""Half of an advert: a machine with hundreds of disks says of the first ones only."""
_COMMAND_SECONDS = 5.0
_END_SECONDS = 1.0
"""For a killed program; one that the kernel holds (a driver that hangs) is left behind."""
_LOCAL_FILESYSTEMS = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs", "vfat", "exfat", "ntfs3", "overlay"}
)
"""Those of disks. None of them is asked over a network, where an answer may never come."""
_GPU_VENDORS = {"0x10de": "nvidia", "0x1002": "amd", "0x8086": "intel"}
"""PCI vendor ids, https://pci-ids.ucw.cz/"""
_RUNNERS = {"bubblewrap": ("bwrap", "--version"), "podman": ("podman", "--version"), "docker": ("docker", "--version")}
_NVIDIA = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits")


async def detect_hardware(roots: Roots | None = None) -> Hardware:
    """All that can be found out now."""
    places = roots or Roots()
    runners, nvidia = await asyncio.gather(_runners(), _nvidia_gpus())
    hardware = Hardware(
        cpu_model=_cpu_model(places.proc),
        cpu_cores=_cpu_cores(places),
        memory_bytes=memory_total(places),
        disks=list(_disks(places.proc)),
        gpus=nvidia + list(_drm_gpus(places.sys, skip_nvidia=bool(nvidia))),
        serial_ports=list(_serial_ports(places.sys)),
        runners=runners,
    )
    lists: list[MutableSequence[Any]] = [hardware.disks, hardware.gpus, hardware.serial_ports]
    while hardware.ByteSize() > _MAX_BYTES:
        max(lists, key=len).pop()
    return hardware


def memory_total(roots: Roots) -> int:
    """Bytes of memory, or what the control group of this process allows if that is less."""
    meminfo = read_meminfo(roots)
    return min(filter(None, (meminfo.get("MemTotal", 0), memory_limit(roots))), default=0)


def read_meminfo(roots: Roots) -> dict[str, int]:
    """/proc/meminfo in bytes."""
    found = re.findall(r"^(\w+):\s+(\d+) kB$", read_text(roots.proc / "meminfo"), re.MULTILINE)
    return {key: int(value) * 1024 for key, value in found}


def _cpu_cores(roots: Roots) -> int:
    """Cores that this process may use: by affinity, and by the time that its control group is given."""
    allowed = len(os.sched_getaffinity(0))
    quota = cpu_limit(roots)
    return allowed if quota is None else min(allowed, max(1, math.ceil(quota)))


def _cpu_model(proc: Path) -> str:
    text = read_text(proc / "cpuinfo")
    for key in ("model name", "Model", "Hardware", "cpu model"):  # x86; Raspberry Pi; older ARM; MIPS
        match = re.search(rf"^{key}\s*:\s*(.+)$", text, re.MULTILINE)
        if match:
            return _fit(match[1])
    return ""


def _disks(proc: Path) -> Iterator[Disk]:
    seen: set[str] = set()
    for line in read_text(proc / "self" / "mounts").splitlines():
        fields = line.split()
        if len(fields) < 3 or fields[2] not in _LOCAL_FILESYSTEMS:
            continue
        # Data sets of a pool share it. An overlay lies on a disk that is listed itself, unless it is all there is.
        device = fields[0].partition("/")[0] if fields[2] == "zfs" else fields[0]
        if device in seen or (fields[2] == "overlay" and fields[1] != "/"):
            continue
        # Spaces and the like are written as octal escapes.
        path = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[1])
        try:
            total = shutil.disk_usage(path).total
        except OSError:
            continue
        if total:
            seen.add(device)
            yield Disk(path=_fit(path), filesystem=fields[2], total_bytes=total)


def _drm_gpus(sys: Path, *, skip_nvidia: bool) -> Iterator[Gpu]:
    for card in sorted((sys / "class" / "drm").glob("card[0-9]*")):
        if not re.fullmatch(r"card\d+", card.name):
            continue
        vendor = _GPU_VENDORS.get(read_text(card / "device" / "vendor").strip(), "")
        if not vendor or (vendor == "nvidia" and skip_nvidia):
            continue
        memory = read_text(card / "device" / "mem_info_vram_total").strip()
        model = read_text(card / "device" / "product_name").strip() or read_text(card / "device" / "device").strip()
        yield Gpu(vendor=vendor, model=_fit(model), memory_bytes=int(memory) if memory.isdecimal() else 0)


async def _nvidia_gpus() -> list[Gpu]:
    found = []
    for line in (await _output(*_NVIDIA)).splitlines():
        name, _, mebibytes = line.rpartition(",")
        if name:  # some share the machine's memory, and say [N/A]
            memory = int(mebibytes) if mebibytes.strip().isdecimal() else 0
            found.append(Gpu(vendor="nvidia", model=_fit(name), memory_bytes=memory * 1024**2))
    return found


def _serial_ports(sys: Path) -> Iterator[SerialPort]:
    for port in sorted((sys / "class" / "tty").glob("tty*")):
        device = port / "device"
        if not device.exists():
            continue
        usb = _usb_parent(device)
        if usb is None and not _is_real_uart(port):
            continue
        yield SerialPort(
            path=f"/dev/{_fit(port.name)}",
            vendor_id=_fit(read_text(usb / "idVendor")) if usb else "",
            product_id=_fit(read_text(usb / "idProduct")) if usb else "",
            serial_number=_fit(read_text(usb / "serial")) if usb else "",
        )


def _usb_parent(device: Path) -> Path | None:
    """The USB device that a port hangs on: the nearest directory above that has a vendor id."""
    place = device.resolve()
    for folder in (place, *place.parents):
        if (folder / "idVendor").exists():
            return folder
    return None


def _is_real_uart(port: Path) -> bool:
    """The kernel lists ports of boards that have none; a real one has a type."""
    return read_text(port / "type").strip() not in ("", "0")


async def _runners() -> list[JobRunner]:
    outputs = await asyncio.gather(*(_output(*command) for command in _RUNNERS.values()))
    found = [JobRunner(name="process")]
    for name, output in zip(_RUNNERS, outputs, strict=True):
        if output:
            version = re.search(r"\d+(\.\d+)+", output)
            found.append(JobRunner(name=name, version=version[0] if version else ""))
    return found


async def _output(*command: str) -> str:
    """What a program prints; empty if there is none, it fails, or takes too long."""
    program = shutil.which(command[0])
    if program is None:
        return ""
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            *command[1:],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:  # made for another machine, or just removed
        return ""
    try:
        async with asyncio.timeout(_COMMAND_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        await _end(process)
        return ""
    return output.decode(errors="replace") if process.returncode == 0 else ""


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill it with all that it started, and do not wait for ever."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
        async with asyncio.timeout(_END_SECONDS):
            await process.wait()
    except (ProcessLookupError, TimeoutError):
        _log.warning("hardware.command_hangs", pid=process.pid)


def _fit(text: str) -> str:
    """As an advert takes it."""
    plain = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(plain.split())[:_MAX_TEXT]
