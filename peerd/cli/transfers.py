"""``peerctl transfers``: files on their way to and from this peer."""

from __future__ import annotations

import click

from peerd.cli.app import Noun
from peerd.cli.output import age, enum_word, print_json, print_table, short, size
from peerd.cli.settings import Settings, call, pass_settings


@click.group(cls=Noun, default="list")
def transfers() -> None:
    """Files that move; 'peerctl transfers' alone lists them."""


@transfers.command("list")
@click.option("--execution", "execution_id", type=int, default=0, help="Only those of this execution.")
@pass_settings
def list_transfers(settings: Settings, execution_id: int) -> None:
    """What this peer sends and receives."""
    from peerd.client import Client
    from peerd.v1 import transfers_pb2

    async def fetch(peerd: Client) -> tuple[list[transfers_pb2.Transfer], dict[str, str]]:
        found = await peerd.transfers(execution_id=execution_id)
        names = {} if settings.as_json else {peer.peer_id: peer.name for peer in await peerd.peers()}
        return found, names

    found, names = call(settings, fetch)
    if settings.as_json:
        print_json({"transfers": found})
        return
    rows = [
        (
            str(item.key.workflow_execution_id),
            str(item.key.edge_id),
            enum_word(transfers_pb2.TransferDirection, item.direction),
            names.get(item.peer_id) or short(item.peer_id),
            item.status,
            f"{size(item.bytes)} of {size(item.bytes_total)}",
            str(item.file_count),
            str(item.tries),
            age(item.created_at),
            item.message or item.reason,
        )
        for item in found
    ]
    print_table(
        ("EXECUTION", "EDGE", "DIRECTION", "PEER", "STATUS", "MOVED", "FILES", "TRIES", "AGE", "WHY"),
        rows,
        empty="no transfers",
    )
