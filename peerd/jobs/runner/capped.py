"""The log files of an attempt. Standard library only: its wrapper imports this."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # as typing has it, without the cost of importing typing at each start
if TYPE_CHECKING:
    from peerd.jobs.runner.masking import Masker


class Capped:
    """A log file with a longest length and without secrets; counts what did not fit.

    A disk that is full, or broken, costs the log and never the job, whose end is still to be told.
    """

    def __init__(self, path: str, cap: int, masker: Masker) -> None:
        self.masker = masker
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self.left = cap
        self.dropped = 0

    def write(self, data: bytes) -> None:
        """Write what fits of it, masked."""
        self.put(self.masker.feed(data))

    def finish(self) -> None:
        """The stream has ended: what may have become a secret did not."""
        self.put(self.masker.finish())
        try:
            os.fsync(self.file)
        except OSError:
            pass

    def put(self, data: bytes) -> None:
        """Write what fits of it as it is."""
        fits = data[: self.left]
        self.dropped += len(data) - len(fits)
        self.left -= len(fits)
        while fits:
            try:
                fits = fits[os.write(self.file, fits) :]
            except OSError:
                self.dropped += len(fits)
                self.left += len(fits)
                return
