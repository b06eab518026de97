"""Answers on stdout: aligned tables for people, one JSON document for programs.

JSON is the JSON mapping of the proto messages with the field names of the proto files, and with every field there
even when it is empty, so that a script never has to ask whether a key exists.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import click

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp

_STYLES = {
    "completed": "green",
    "online": "green",
    "active": "green",
    "delivered": "green",
    "received": "green",
    "running": "cyan",
    "sending": "cyan",
    "receiving": "cyan",
    "failed": "red",
    "lost": "red",
    "revoked": "red",
    "suspect": "yellow",
    "maintenance": "cyan",
    "left": "yellow",
    "cancelled": "yellow",
    "offline": "yellow",
    "inactive": "yellow",
    "skipped": "yellow",
}


class EnumWrapper(Protocol):
    """What protobuf generates for an enum."""

    def Name(self, number: Any) -> str:  # noqa: N802  # protobuf's spelling
        ...


def enum_word(enum: EnumWrapper, number: int) -> str:
    """``WORKFLOW_JOB_STATUS_RUNNING`` as ``running``; a number this version does not know stays one."""
    try:
        name = enum.Name(number)
    except ValueError:
        return str(number)
    word = name.removeprefix(enum.Name(0).removesuffix("UNSPECIFIED")).lower()
    return "" if word == "unspecified" else word


def to_json(value: object) -> object:
    """Messages, wherever they are in ``value``, as their JSON mapping."""
    from google.protobuf.json_format import MessageToDict
    from google.protobuf.message import Message

    if isinstance(value, Message):
        return MessageToDict(value, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [to_json(item) for item in value]
    return value


def print_json(value: Message | Mapping[str, object]) -> None:
    """One document."""
    click.echo(json.dumps(to_json(value), indent=2, ensure_ascii=False))


def print_json_line(value: Message | Mapping[str, object]) -> None:
    """One line of a stream of documents."""
    click.echo(json.dumps(to_json(value), ensure_ascii=False))


def colour_wanted() -> bool:
    """Only where a person sees it and has not said no."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def styled(word: str) -> str:
    """A state in its colour, where colour is wanted."""
    colour = _STYLES.get(word)
    return click.style(word, fg=colour) if colour and colour_wanted() else word


def style_of(word: str) -> str:
    """The same colour as a rich style."""
    return _STYLES.get(word, "")


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, empty: str) -> None:
    """Rows under headings; without a terminal nothing is cut off, so ``grep`` and ``awk`` see it all."""
    if not rows:
        click.echo(empty, err=True)
        return
    if sys.stdout.isatty():
        _print_rich_table(headings, rows)
        return
    table = [headings, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(headings))]
    for row in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _print_rich_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=style_of(cell)) for cell in row))
    Console(no_color=not colour_wanted(), highlight=False).print(table)


def print_fields(fields: Mapping[str, str]) -> None:
    """``name: value`` lines, aligned; empty values are left out."""
    shown = {name: value for name, value in fields.items() if value}
    width = max((len(name) for name in shown), default=0)
    for name, value in shown.items():
        click.echo(f"{name.ljust(width)}  {styled(value)}")


def seconds_of(timestamp: Timestamp) -> float:
    """Seconds since 1970."""
    return float(timestamp.seconds) + timestamp.nanos / 1e9


def now_seconds() -> float:
    """Seconds since 1970, now."""
    from peerd.clock import SystemClock

    return SystemClock().now() / 1000


def duration(seconds: float) -> str:
    """``0.42s``, ``12.3s``, ``4m05s``, ``2h03m``, ``3d04h``."""
    seconds = max(seconds, 0.0)
    if seconds < 10:
        return f"{seconds:.2f}s"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours < 24 else f"{hours // 24}d{hours % 24:02d}h"


def age(timestamp: Timestamp) -> str:
    """How long ago; empty for a time that was never set."""
    return duration(now_seconds() - seconds_of(timestamp)) if timestamp.seconds else ""


def local_time(timestamp: Timestamp) -> str:
    """The moment in this machine's time zone; empty for a time that was never set."""
    if not timestamp.seconds:
        return ""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds_of(timestamp), tz=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def size(count: float) -> str:
    """``0 B``, ``12 kB``, ``3.4 MB``: decimal units, as transfer rates are given."""
    if count < 1000:
        return f"{int(count)} B"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 1000 or unit == "GB":
            return f"{count:.1f} {unit}" if count < 100 else f"{count:.0f} {unit}"
    raise AssertionError("unreachable")


def short(peer_id: str) -> str:
    """Enough of a peer id to recognise it, and to use it: a unique prefix is accepted everywhere."""
    return peer_id[:12]
