"""Hardware for udev_program: a test bed of umockdev that obeys orders on stdin, one answer for each."""

from __future__ import annotations

import ctypes
import os
import sys

from tests.devices.console import whole

ROOT = "/devices/pci0000:00/0000:00:14.0/usb1"


class Bed:
    """A test bed of umockdev."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libumockdev.so.0")
        self._library.umockdev_testbed_new.restype = ctypes.c_void_p
        self._library.umockdev_testbed_get_root_dir.restype = ctypes.c_char_p
        self._library.umockdev_testbed_get_root_dir.argtypes = [ctypes.c_void_p]
        for name in ("add_from_string", "uevent", "remove_device", "get_dev_fd"):
            getattr(self._library, f"umockdev_testbed_{name}").argtypes = [ctypes.c_void_p, ctypes.c_char_p] + (
                [ctypes.c_void_p] if name == "add_from_string" else [ctypes.c_char_p] if name == "uevent" else []
            )
        self._bed = self._library.umockdev_testbed_new()
        self._count = 0
        self._ttys: dict[int, str] = {}
        self._lines: dict[int, int] = {}

    @property
    def root(self) -> str:
        """Where it pretends that all devices are."""
        return str(self._library.umockdev_testbed_get_root_dir(self._bed).decode())

    def plug(self, number: int, vendor: str, serial: str) -> str:
        """A device at that port, each time as another tty; returns its path."""
        self._count += 1
        name = f"ttyACM{self._count}"
        usb, tty = f"{ROOT}/1-{number}", f"{ROOT}/1-{number}/1-{number}:1.0/tty/{name}"
        self._ttys[number] = f"/sys{tty}"
        text = (
            f"P: {usb}\nN: bus/usb/001/{number:03}\nE: SUBSYSTEM=usb\nE: DEVTYPE=usb_device\n"
            f"A: idVendor={vendor}\\n\nA: idProduct=ea60\\n\nA: serial={serial}\\n\n\n"
            f"P: {usb}/1-{number}:1.0\nE: SUBSYSTEM=usb\nE: DEVTYPE=usb_interface\n\n"
            f"P: {tty}\nN: {name}\nE: SUBSYSTEM=tty\nE: DEVNAME=/dev/{name}\nE: ID_BUS=usb\n"
            f"E: ID_VENDOR_ID={vendor}\nE: ID_MODEL_ID=ea60\nE: ID_SERIAL_SHORT={serial}\nA: dev=166:{self._count}\n"
        )
        assert self._library.umockdev_testbed_add_from_string(self._bed, text.encode(), None)
        self._lines[number] = int(self._library.umockdev_testbed_get_dev_fd(self._bed, f"/dev/{name}".encode()))
        return f"/dev/{name}"

    def say(self, number: int, transcript: str) -> None:
        """Let it print that."""
        os.write(self._lines[number], whole(transcript))

    def again(self, number: int) -> None:
        """The same event once more."""
        self._library.umockdev_testbed_uevent(self._bed, self._ttys[number].encode(), b"add")

    def unplug(self, number: int) -> None:
        """Pull it out."""
        tty = self._ttys.pop(number)
        self._library.umockdev_testbed_uevent(self._bed, tty.encode(), b"remove")
        usb = f"/sys{ROOT}/1-{number}"
        for gone in (tty, f"{usb}/1-{number}:1.0", usb):
            self._library.umockdev_testbed_remove_device(self._bed, gone.encode())


def main() -> None:
    """Until nobody gives orders."""
    bed = Bed()
    print(bed.root, flush=True)
    for order in sys.stdin:
        word, number, *rest = order.split()
        answer = ""
        match word:
            case "plug":
                answer = bed.plug(int(number), *rest)
            case "again":
                bed.again(int(number))
            case "unplug":
                bed.unplug(int(number))
            case "say":
                bed.say(int(number), *rest)
        print(answer, flush=True)


if __name__ == "__main__":
    main()
