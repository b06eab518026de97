"""Giving a job's directories to the user that its container runs as. Blocking; no link is followed."""

from __future__ import annotations

import os
from pathlib import Path


def give(job_directory: Path, owner: tuple[int, int]) -> None:
    """Make the user owner of all that the job reads and writes; the daemon, being root, can still do as it likes."""
    for name in ("input", "output", "mounts", "package"):
        for folder, folders, files in os.walk(job_directory / name, followlinks=False):
            os.chown(folder, *owner, follow_symlinks=False)
            for entry in (*folders, *files):
                os.chown(os.path.join(folder, entry), *owner, follow_symlinks=False)
