"""Takes secrets out of what a job writes, while it writes. Standard library only, like the wrapper that uses it.

Every byte that belongs to an occurrence of a secret is masked, overlapping occurrences included; each unbroken run of
such bytes becomes ``***``. What comes out does not depend on how the stream was cut into pieces: the longest end of it
that may still become a secret is held back until more has come, or the stream has ended.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MASK = b"***"
SHORTEST_LINE = 4
"""Bytes. A shorter line of a secret, such as a closing brace, stays: masking it would leave no log readable."""


def masked_parts(value: bytes) -> set[bytes]:
    """What is masked for a secret: the whole of it, and each of its lines that is long enough."""
    whole = value.strip(b"\r\n")
    lines = {line.strip() for line in whole.splitlines()}
    return {part for part in {whole, *lines} if len(part) >= SHORTEST_LINE}


class Masker:
    """One stream."""

    def __init__(self, secrets: Iterable[bytes]) -> None:
        self.parts = sorted({part for secret in secrets for part in masked_parts(secret)}, key=len, reverse=True)
        self.longest = len(self.parts[0]) if self.parts else 0
        self.held = b""
        self.covered = 0
        """How many of the first held bytes belong to an occurrence that began before them."""
        self.in_run = False
        """Whether the last byte that was let go was masked: the rest of its run gets no mask of its own."""

    def feed(self, data: bytes) -> bytes:
        """What may be written now."""
        return self.go_on(data, last=False) if self.parts else data

    def finish(self) -> bytes:
        """The rest, at the end of the stream."""
        return self.go_on(b"", last=True)

    def go_on(self, data: bytes, *, last: bool) -> bytes:
        """Mask up to where the present end may be the beginning of a secret."""
        text = self.held + data
        cut = len(text) if last else self.undecided(text)
        self.held = text[cut:]
        if not cut:
            return b""
        runs = [run for run in merged([(0, self.covered), *self.occurrences(text)]) if run[0] < cut]
        out = []
        at = 0
        for start, end in runs:
            out.append(text[at:start])
            if start or not self.in_run:
                out.append(MASK)
            at = min(end, cut)
        out.append(text[at:cut])
        reached = runs[-1][1] if runs else 0
        self.in_run = reached >= cut
        self.covered = max(0, reached - cut)
        return b"".join(out)

    def occurrences(self, text: bytes) -> list[tuple[int, int]]:
        """Every occurrence, overlapping ones too."""
        found = []
        for part in self.parts:
            at = text.find(part)
            while at >= 0:
                found.append((at, at + len(part)))
                at = text.find(part, at + 1)
        return found

    def undecided(self, text: bytes) -> int:
        """Where the longest end of the text begins that is the beginning of a secret."""
        first = len(text)
        for part in self.parts:
            at = text.find(part[:1], max(0, len(text) - len(part) + 1))
            while 0 <= at < first:
                if part.startswith(text[at:]):
                    first = at
                at = text.find(part[:1], at + 1)
        return first


def merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same bytes in as few ranges as possible, in order; empty ones vanish."""
    runs: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if start == end:
            continue
        if runs and start <= runs[-1][1]:
            runs[-1] = (runs[-1][0], max(runs[-1][1], end))
        else:
            runs.append((start, end))
    return runs
