"""A hostile job: tries what its first argument names, and says how it went. Exit code 0 means that it got away."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path


def read(*paths: str) -> bool:
    """Open each as a file, or connect to it as a socket."""
    found = False
    for path in paths:
        try:
            with open(path, "rb") as file:
                file.read(1)
            found = True
            print("READ", path)
        except OSError as error:
            print("refused", path, type(error).__name__)
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(path)
                found = True
                print("CONNECTED", path)
            except OSError:
                pass
    return found


def see(folder: str, pid: str) -> bool:
    """Other jobs by their directories, and other processes."""
    seen = [name for name in os.listdir("/proc") if name.isdigit()]
    environments = [Path(f"/proc/{name}/environ").read_bytes() for name in seen]
    others = [entry for entry in environments if b"PEERD_JOB=" in entry and os.environb[b"PEERD_JOB"] not in entry]
    print("processes", seen, "others", len(others), "folder", os.path.exists(folder), "daemon", pid in seen)
    return bool(others) or os.path.exists(folder) or len(seen) > 10


def kill(*pids: str) -> bool:
    """The daemon and the wrappers by their pids, then everything that can be reached."""
    reached = False
    for pid in pids:
        try:
            os.kill(int(pid), 9)
            reached = True
            print("KILLED", pid)
        except OSError as error:
            print("refused", pid, type(error).__name__)
    sys.stdout.flush()
    os.kill(-1, 9)
    return reached


def connect(*ports: str) -> bool:
    """Peers on this machine, and the world."""
    reached = False
    for host, port in [*(("127.0.0.1", port) for port in ports), ("192.0.2.1", "53")]:
        with socket.socket() as connection:
            connection.settimeout(2)
            try:
                connection.connect((host, int(port)))
                reached = True
                print("CONNECTED", host, port)
            except OSError as error:
                print("refused", host, port, error)
    return reached


def write_through_links(*targets: str) -> bool:
    """Links out of its own directory: to write through, and to have the daemon read through."""
    out = os.environ["PEERD_OUTPUT"]
    written = False
    for number, target in enumerate(targets):
        os.symlink(target, f"{out}/link{number}")
        try:
            with open(f"{out}/link{number}", "ab") as file:
                file.write(b"written through a link")
            written = True
            print("WROTE", target)
        except OSError as error:
            print("refused", target, type(error).__name__)
    for number, target in enumerate(targets):
        os.symlink(os.path.dirname(target), f"{out}/folder{number}")
    return written


def bomb() -> bool:
    """Processes that make processes."""
    failed = False
    while not failed:
        try:
            if os.fork() == 0:
                time.sleep(0.01)
        except OSError:
            failed = True
    time.sleep(0.5)
    return False


def eat() -> bool:
    """Memory without end."""
    held: list[bytes] = []
    while len(held) < 4000:
        held.append(b"x" * (1 << 20))
    return True


def fill() -> bool:
    """The disk, in files of a megabyte."""
    for number in range(4000):
        with open(f"{os.environ['PEERD_OUTPUT']}/{number}", "wb") as file:
            file.write(bytes(1 << 20))
    return True


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    sys.exit(0 if globals()[what](*arguments) else 3)
