"""The other end of the cable, in a virtual machine: a device of the kernel's gadget driver, and what the wire saw."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
import tty
from collections.abc import Iterator
from pathlib import Path

from peerd.devices.simulator.firmware import Step

_GADGETS = Path("/sys/kernel/config/usb_gadget")
_WIRE = Path("/sys/kernel/debug/usb/usbmon/0u")


class Gadget:
    """A CDC-ACM device on a USB controller of its own; what is said to it comes out of a tty of the host's driver."""

    def __init__(self, number: int, vendor: str, product: str, serial: str) -> None:
        self.serial = serial
        self._number = number
        self._folder = folder = _GADGETS / f"g{number}"
        for name in ("strings/0x409", "functions/acm.u", "configs/c.1"):
            (folder / name).mkdir(parents=True)
        said = {"serialnumber": serial, "manufacturer": "Espressif", "product": "USB JTAG serial debug unit"}
        for name, text in said.items():
            (folder / "strings/0x409" / name).write_text(text)
        (folder / "idVendor").write_text(f"0x{vendor}")
        (folder / "idProduct").write_text(f"0x{product}")
        (folder / "configs/c.1/acm.u").symlink_to(folder / "functions/acm.u")
        self._port = f"/dev/ttyGS{(folder / 'functions/acm.u/port_num').read_text().strip()}"

    def plug(self) -> None:
        """Put it in."""
        (self._folder / "UDC").write_text(f"dummy_udc.{self._number}")

    def unplug(self) -> None:
        """Pull it out."""
        (self._folder / "UDC").write_text("\n")

    def address(self) -> str:
        """Bus and number, as the wire's record has them; empty while it is not plugged in."""
        for device in Path("/sys/bus/usb/devices").glob("*/serial"):
            with contextlib.suppress(OSError):  # it goes while it is looked at
                if device.read_text().strip() == self.serial:
                    number = [int((device.parent / name).read_text()) for name in ("busnum", "devnum")]
                    return f"{number[0]}:{number[1]:03}"
        return ""

    def tty(self) -> str:
        """Where the host has it; empty while nowhere."""
        for link in Path("/sys/class/tty").glob("ttyACM*"):
            with contextlib.suppress(OSError):
                if (link.resolve().parents[2] / "serial").read_text().strip() == self.serial:
                    return f"/dev/{link.name}"
        return ""

    def say(self, steps: Iterator[Step], *, speed: float, stop: threading.Event) -> None:
        """Print these, so many times as fast; what the wire does not take is lost, as on a real board."""
        port = -1
        try:
            for pause, data in steps:
                if stop.wait(pause / speed):
                    return
                if port < 0:
                    port = os.open(self._port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
                    tty.setraw(port)
                try:
                    os.write(port, data)
                except BlockingIOError:
                    continue
                except OSError:  # it was pulled out, and its tty hung up
                    os.close(port)
                    port = -1
        finally:
            if port >= 0:
                os.close(port)


class Printing:
    """A gadget that prints in a thread, until the end."""

    def __init__(self, gadget: Gadget, steps: Iterator[Step], *, speed: float = 1) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=gadget.say, args=(steps,), kwargs={"speed": speed, "stop": self._stop})
        self._thread.start()

    def __enter__(self) -> Printing:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


class Wire:
    """Everything that goes over USB, as the kernel's monitor writes it down."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._process = subprocess.Popen(["cat", str(_WIRE)], stdout=file.open("wb"))

    def line_states(self, address: str) -> list[str]:
        """What was told to a device of its lines: 3 both on, 1 DTR, 2 RTS, 0 none; in order."""
        found = []
        for row in self._file.read_text(errors="replace").splitlines():
            # TAG TIME S Co:BUS:DEVICE:0 s 21 22 VALUE ...: SET_CONTROL_LINE_STATE of the CDC class
            words = row.split()
            if words[2:4] == ["S", f"Co:{address}:0"] and words[4:7] == ["s", "21", "22"]:
                found.append(words[7].lstrip("0") or "0")
        return found

    def close(self) -> None:
        """No more."""
        self._process.kill()
        self._process.wait()


def until(condition: object, seconds: float, what: str) -> float:
    """Wait for it; how long that took."""
    assert callable(condition)
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.02)
    return time.monotonic() - began
