"""What this machine has, read from where Linux says so: no root, nothing that hangs, nothing that fails.

What cannot be found out is left out. Every text is made fit for an advert: printable, and at most so long.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from peerd.v1.registry_pb2 import Disk, Gpu, Hardware, JobRunner, SerialPort

_MAX_TEXT = 256
_COMMAND_SECONDS = 5.0
_REAL_FILESYSTEMS = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "vfat", "overlay"})
_GPU_VENDORS = {"0x10de": "nvidia", "0x1002": "amd", "0x8086": "intel"}
"""PCI vendor ids, https://pci-ids.ucw.cz/"""
_RUNNERS = {"bubblewrap": ("bwrap", "--version"), "podman": ("podman", "--version"), "docker": ("docker", "--version")}
_NVIDIA = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits")


@dataclass(frozen=True, kw_only=True)
class Roots:
    """Where the kernel tells; others in tests."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")


async def detect_hardware(roots: Roots | None = None) -> Hardware:
    """All that can be found out now."""
    places = roots or Roots()
    runners, nvidia = await asyncio.gather(_runners(), _nvidia_gpus())
    return Hardware(
        cpu_model=_cpu_model(places.proc),
        cpu_cores=len(os.sched_getaffinity(0)),
        memory_bytes=memory_total(places),
        disks=list(_disks(places.proc)),
        gpus=nvidia + list(_drm_gpus(places.sys, skip_nvidia=bool(nvidia))),
        serial_ports=list(_serial_ports(places.sys)),
        runners=runners,
    )


def memory_total(roots: Roots) -> int:
    """Bytes of memory, or what the control group of this process allows if that is less."""
    meminfo = read_meminfo(roots)
    return min(filter(None, (meminfo.get("MemTotal", 0), _cgroup_limit(roots.sys))), default=0)


def read_meminfo(roots: Roots) -> dict[str, int]:
    """/proc/meminfo in bytes."""
    found = re.findall(r"^(\w+):\s+(\d+) kB$", _read(roots.proc / "meminfo"), re.MULTILINE)
    return {key: int(value) * 1024 for key, value in found}


def _cgroup_limit(sys: Path) -> int:
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        text = _read(sys / "fs" / "cgroup" / name).strip()
        if text.isdigit() and int(text) < 1 << 60:  # version 1 says a huge number for none
            return int(text)
    return 0


def _cpu_model(proc: Path) -> str:
    text = _read(proc / "cpuinfo")
    for key in ("model name", "Model", "Hardware", "cpu model"):  # x86; Raspberry Pi; older ARM; MIPS
        match = re.search(rf"^{key}\s*:\s*(.+)$", text, re.MULTILINE)
        if match:
            return _fit(match[1])
    return ""


def _disks(proc: Path) -> Iterator[Disk]:
    seen: set[str] = set()
    for line in _read(proc / "self" / "mounts").splitlines():
        fields = line.split()
        if len(fields) < 3 or fields[2] not in _REAL_FILESYSTEMS or fields[0] in seen:
            continue
        # Spaces and the like are written as octal escapes.
        path = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[1])
        try:
            total = shutil.disk_usage(path).total
        except OSError:
            continue
        if total:
            seen.add(fields[0])
            yield Disk(path=_fit(path), filesystem=fields[2], total_bytes=total)


def _drm_gpus(sys: Path, *, skip_nvidia: bool) -> Iterator[Gpu]:
    for card in sorted((sys / "class" / "drm").glob("card[0-9]*")):
        if not re.fullmatch(r"card\d+", card.name):
            continue
        vendor = _GPU_VENDORS.get(_read(card / "device" / "vendor").strip(), "")
        if not vendor or (vendor == "nvidia" and skip_nvidia):
            continue
        memory = _read(card / "device" / "mem_info_vram_total").strip()
        model = _read(card / "device" / "product_name").strip() or _read(card / "device" / "device").strip()
        yield Gpu(vendor=vendor, model=_fit(model), memory_bytes=int(memory) if memory.isdigit() else 0)


async def _nvidia_gpus() -> list[Gpu]:
    found = []
    for line in (await _output(*_NVIDIA)).splitlines():
        name, _, mebibytes = line.rpartition(",")
        if name and mebibytes.strip().isdigit():
            found.append(Gpu(vendor="nvidia", model=_fit(name), memory_bytes=int(mebibytes) * 1024**2))
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
            vendor_id=_fit(_read(usb / "idVendor")) if usb else "",
            product_id=_fit(_read(usb / "idProduct")) if usb else "",
            serial_number=_fit(_read(usb / "serial")) if usb else "",
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
    return _read(port / "type").strip() not in ("", "0")


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
    process = await asyncio.create_subprocess_exec(
        program,
        *command[1:],
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(_COMMAND_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return ""
    return output.decode(errors="replace") if process.returncode == 0 else ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _fit(text: str) -> str:
    """As an advert takes it."""
    plain = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(plain.split())[:_MAX_TEXT]
