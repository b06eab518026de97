"""``peerctl audit``: who changed what on this peer, and when."""

from __future__ import annotations

import click

from peerd.cli.app import Noun
from peerd.cli.failures import WorkFailed
from peerd.cli.output import local_time, print_json, print_table, short
from peerd.cli.settings import Settings, call, pass_settings


@click.group(cls=Noun, default="list")
def audit() -> None:
    """Every call that changed something here, or was refused; 'peerctl audit' alone lists them."""


@audit.command("list")
@click.option("--caller", default="", metavar="PEER_ID", help="Only calls of this peer.")
@click.option("--method", default="", help="Only this call, such as AdmitPeer.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, help="At most so many, newest first.")
@pass_settings
def list_audit(settings: Settings, caller: str, method: str, limit: int) -> None:
    """The newest entries first."""
    found = call(settings, lambda peerd: peerd.audit(caller=caller, method=method, limit=limit))
    if settings.as_json:
        print_json({"entries": found})
        return
    rows = [
        (
            str(entry.id),
            local_time(entry.at),
            "local" if entry.local else short(entry.caller),
            entry.method,
            entry.result,
            entry.target,
        )
        for entry in found
    ]
    print_table(("ID", "AT", "CALLER", "CALL", "RESULT", "ON WHAT"), rows, empty="nothing was changed yet")


@audit.command("verify")
@pass_settings
def verify_audit(settings: Settings) -> None:
    """Compute the chain of digests again; exit 1 if it is broken."""
    answer = call(settings, lambda peerd: peerd.verify_audit())
    if settings.as_json:
        print_json(answer)
    elif answer.intact:
        click.echo(f"{answer.entries} entries, intact; the newest has digest {answer.head.hex()}")
    else:
        click.echo(f"broken: {answer.message}")
    if not answer.intact:
        raise WorkFailed
