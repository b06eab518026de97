"""The options every command takes, before or after its name, and what they come to."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from peerd.client import Client

T = TypeVar("T")

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?")


@dataclass
class Settings:
    """What the global options say. The one mutable thing here: options fill it in as click meets them."""

    socket: str | None = None
    peer: str | None = None
    timeout: float | None = None
    output: str = "table"

    @property
    def as_json(self) -> bool:
        """Whether the answer is for a program."""
        return self.output == "json"


pass_settings = click.make_pass_decorator(Settings)


def duration(text: str) -> float:
    """``90``, ``90s``, ``15m``, ``1h30m``, ``7d``: seconds. An option type."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        raise click.BadParameter(f"{text!r} is not a duration such as 90s, 15m or 1h30m")
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    total = days * 86_400 + hours * 3_600 + minutes * 60 + seconds
    if total <= 0:
        raise click.BadParameter("a duration must be above zero")
    return total


def comma_list(*choices: str) -> Callable[[str], list[str]]:
    """``a,b`` as ["a", "b"], each one of the choices, if there are any. An option type."""

    def words(text: str) -> list[str]:
        items = [item.strip() for item in text.split(",") if item.strip()]
        for item in items:
            if choices and item not in choices:
                raise click.BadParameter(f"{item!r} is not one of {', '.join(choices)}")
        return items

    return words


def _remember(ctx: click.Context, param: click.Parameter, value: object) -> None:
    if value is not None and param.name is not None:
        # The prefix keeps them apart from arguments of the same name, such as the PEER of 'peers show'.
        setattr(ctx.ensure_object(Settings), param.name.removeprefix("global_"), value)


def global_options(*, root: bool) -> list[click.Parameter]:
    """Fresh global options: shown by ``peerctl --help``, taken silently everywhere else (but for -o)."""
    return [
        click.Option(
            ["-o", "--output", "global_output"],
            type=click.Choice(["table", "json"]),
            expose_value=False,
            callback=_remember,
            help="How to print the answer; table by default.",
        ),
        click.Option(
            ["--socket", "global_socket"],
            envvar="PEERD_SOCKET" if root else None,
            metavar="PATH",
            expose_value=False,
            callback=_remember,
            hidden=not root,
            help="The daemon's unix socket. Default: run/peerd.sock in PEERD_DATA_DIR, /var/lib/peerd for root, "
            "or ~/.local/state/peerd.",
        ),
        click.Option(
            ["--peer", "global_peer"],
            metavar="PEER",
            expose_value=False,
            callback=_remember,
            hidden=not root,
            help="Ask that peer (name or id) instead of this one; the local daemon passes the call on.",
        ),
        click.Option(
            ["--timeout", "global_timeout"],
            type=duration,
            expose_value=False,
            callback=_remember,
            hidden=not root,
            help="Longest time to wait, such as 30s or 5m. Watching and waiting have no limit by default.",
        ),
    ]


def call(settings: Settings, act: Callable[[Client], Coroutine[object, object, T]]) -> T:
    """Connect, do one thing, disconnect."""
    import asyncio

    # Before grpc is imported: its core logs a daemon's restart to our stderr, in words for its authors.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from peerd.client import CALL_SECONDS, Client

    async def connected() -> T:
        timeout = settings.timeout if settings.timeout is not None else CALL_SECONDS
        async with Client(socket=settings.socket, peer=settings.peer, timeout=timeout) as peerd:
            return await act(peerd)

    return asyncio.run(connected())
