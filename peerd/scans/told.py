"""What the file of a scan says of the whole scan, where its statement says nothing. Pure.

The tool separates scans of one key that must not be compared, and so do the ports that nmap says it tried: a port that
it did not try is not gone.
"""

from __future__ import annotations

from dataclasses import dataclass

from peerd.clock import Millis
from peerd.errors import PeerdError
from peerd.inventory.scopes import SHOWN, parse_scope
from peerd.scans.formats.items import Notes


@dataclass(frozen=True, kw_only=True)
class Told:
    """Empty where the file does not say."""

    tool: str = ""
    tool_version: str = ""
    scope: str = ""
    started_at: Millis | None = None
    whole: bool = True
    """Whether the file was written to its end. Known once it was read to there."""


def told_by(notes: Notes) -> Told:
    """As far as it was read."""
    return Told(
        tool=notes.tool,
        tool_version=notes.tool_version,
        scope=_scope(notes),
        started_at=notes.started_at,
        whole=notes.whole,
    )


def _scope(notes: Notes) -> str:
    """Of the hosts that are shown; empty where it is not said, or cannot be."""
    if not notes.covered:
        return ""
    text = f"{SHOWN} {','.join(f'{transport}:{ports}' for transport, ports in notes.covered)}"
    try:
        parse_scope(text)
    except PeerdError:
        return ""
    return text
