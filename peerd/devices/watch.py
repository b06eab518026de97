"""What is plugged in: asked of udev, or of simulators in a directory. Level-triggered: events only say when to look.

Only what matches the configuration is ever opened; everything else is listed. Without libudev there are simulated
devices only, and :attr:`Udev.trouble` says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from peerd.devices.lines import printable
from peerd.devices.model import Port

_log = structlog.get_logger(__name__)

_RECEIVE_BUFFER = 4 * 1024 * 1024
"""Bytes: a hub with many devices makes hundreds of events at once."""
_SETTLED_SECONDS = 0.2
_TTYS = "/sys/class/tty"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Udev:
    """USB-serial ports of this machine, by pyudev."""

    def __init__(self) -> None:
        self.trouble = ""
        self._context: Any = None
        self._monitor: Any = None
        try:
            import pyudev

            self._context = pyudev.Context()
        except (ImportError, OSError) as error:
            self.trouble = f"udev cannot be asked: {error}"
        self._again: asyncio.TimerHandle | None = None
        self._boot = _BOOT_ID.read_text().strip()[:8] if _BOOT_ID.exists() else ""

    def start(self, changed: Callable[[], None]) -> None:
        """Call this on the event loop whenever something may have changed."""
        if self._context is None:
            return
        import pyudev

        try:
            monitor = pyudev.Monitor.from_netlink(pyudev.Context())
            monitor.filter_by("tty")
            monitor.set_receive_buffer_size(_RECEIVE_BUFFER)
            monitor.start()
        except OSError as error:  # a sandbox without netlink: what is there is found a little later
            _log.warning("devices.no_events", message=str(error))
            return
        self._monitor = monitor
        asyncio.get_running_loop().add_reader(monitor.fileno(), self._drain, changed)

    def _drain(self, changed: Callable[[], None]) -> None:
        try:
            while self._monitor.poll(timeout=0) is not None:
                pass
        except OSError as error:  # ENOBUFS: events were lost, which is why everything is looked at anyway
            _log.info("devices.events_lost", message=str(error))
        changed()
        # The kernel tells of a removal before sysfs has forgotten the device: look once more when it has.
        if self._again is not None:
            self._again.cancel()
        self._again = asyncio.get_running_loop().call_later(_SETTLED_SECONDS, changed)

    def stop(self) -> None:
        """No more events."""
        if self._again is not None:
            self._again.cancel()
        if self._monitor is not None:
            asyncio.get_running_loop().remove_reader(self._monitor.fileno())
            self._monitor = None

    def present(self) -> list[Port]:
        """Every USB-serial port now."""
        if self._context is None:
            return []
        import pyudev

        found = []
        for path in _usb_ttys():
            try:
                port = self._port(pyudev.Devices.from_sys_path(self._context, path))
            except pyudev.DeviceNotFoundError:
                continue  # unplugged in between
            if port is not None:
                found.append(port)
        return found

    def _port(self, device: Any) -> Port | None:
        usb = device.find_parent("usb", "usb_device")
        if usb is None or not device.device_node:
            return None
        properties = device.properties

        def text(name: str, attribute: str) -> str:
            value = properties.get(name) or usb.attributes.get(attribute) or b""
            return printable(value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")).strip()

        number = usb.attributes.get("devnum") or b""
        token = f"{self._boot}-{usb.sys_name}-{number.decode()}" if number else ""
        return Port(
            path=device.device_node,
            usb_path=usb.sys_name,
            vendor_id=text("ID_VENDOR_ID", "idVendor").lower(),
            product_id=text("ID_MODEL_ID", "idProduct").lower(),
            serial=text("ID_SERIAL_SHORT", "serial"),
            product=text("ID_MODEL", "product"),
            token=token,
        )


def _usb_ttys() -> list[str]:
    """Where the kernel has them. A machine has some seventy others, with which libudev takes thirty times as long."""
    found = []
    for name in sorted(os.listdir(_TTYS)) if os.path.isdir(_TTYS) else ():
        with contextlib.suppress(OSError):  # unplugged in between
            link = os.readlink(os.path.join(_TTYS, name))
            if "/usb" in link:
                found.append(os.path.normpath(os.path.join(_TTYS, link)))
    return found


class Simulated:
    """Pseudo-terminals of ``peerd simulate miner``: files ``NAME.json`` in a directory, written by the simulator.

    A terminal's number is used again by others, so that one whose simulator is dead is never looked at.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ignored: dict[str, str] = {}

    def present(self) -> list[Port]:
        """Those whose simulator lives."""
        found, ignored = [], {}
        for file in sorted(self._folder.glob("*.json")):
            try:
                if file.stat().st_uid not in (0, os.geteuid()):
                    raise ValueError("it belongs to somebody else, who would choose what is opened")
                said = json.loads(file.read_text())
                port = Port(**{name: printable(str(said[name]).encode("utf-8", "replace")) for name in _FIELDS})
                if not _TERMINAL.fullmatch(port.path):
                    raise ValueError(f"{port.path} is no pseudo-terminal")
                alive = process_start(int(said["pid"])) == said["started"]
            except FileNotFoundError:
                continue  # unplugged in between
            except (OSError, ValueError, KeyError, TypeError) as error:
                ignored[str(file)] = message = str(error)
                if self._ignored.get(str(file)) != message:  # once, and not four times a second
                    _log.warning("devices.simulated_ignored", file=str(file), message=message)
                continue
            if alive:
                found.append(port)
        self._ignored = ignored
        return found


_TERMINAL = re.compile(r"/dev/pts/\d{1,9}")
_FIELDS = ("path", "usb_path", "vendor_id", "product_id", "serial", "product", "token")


def process_start(pid: int) -> int:
    """When a process began, in ticks since boot (proc(5), field 22); 0 if there is none."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError):
        return 0


def matches(port: Port, rules: tuple[str, ...]) -> bool:
    """Whether one of the rules, ``VENDOR`` or ``VENDOR:PRODUCT``, is for it."""
    return any(rule.lower() in (port.vendor_id, f"{port.vendor_id}:{port.product_id}") for rule in rules)
