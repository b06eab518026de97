"""Small disks: a file system of its own for one daemon's data directory. Needs root."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

needs_mounts = pytest.mark.skipif(
    os.environ.get("PEERD_REQUIRE_ALL") != "1" and os.geteuid() != 0, reason="needs root to mount a small file system"
)


class SmallDisk:
    """A file system of so many MiB under a folder, which can be filled to the last byte and freed again."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", str(folder)], check=True)
        self._ballast = folder / "ballast"

    def fill(self, *, leave: int = 0) -> None:
        """Take all space but so many bytes."""
        with self._ballast.open("ab", buffering=0) as file:
            for block in (1 << 20, 1 << 12):
                while self.free > leave + block or not leave:
                    try:
                        file.write(bytes(block))
                    except OSError as error:
                        if error.errno != errno.ENOSPC:
                            raise
                        break

    def drain(self) -> None:
        """Give it back."""
        self._ballast.unlink(missing_ok=True)

    @property
    def free(self) -> int:
        """Bytes that are free now."""
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def close(self) -> None:
        """Take the file system away."""
        subprocess.run(["umount", "-l", str(self.folder)], check=False)
