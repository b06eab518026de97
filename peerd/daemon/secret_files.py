"""For ``peerd doctor``: whether the files of this machine's secrets are there, and for nobody else to read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from peerd.config import Config
from peerd.errors import PeerdError
from peerd.jobs.secrets import read_secret


def secret_flaws(config: Config) -> Iterator[tuple[str, str, str]]:
    """(name, what is wrong, what to do). Variables are the daemon's own and cannot be seen from here."""
    for name, secret in config.secrets.items():
        if not secret.file:
            continue
        try:
            read_secret(name, secret, {})
            mode = stat.S_IMODE(os.stat(secret.file).st_mode)
        except PeerdError as error:
            yield name, error.message, error.next_action
            continue
        if mode & 0o077:
            yield name, f"{secret.file} has mode {mode:04o}; others can read it", f"chmod 600 {secret.file}"
