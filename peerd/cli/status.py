"""``peerctl status``: is the daemon there, and who is it."""

from __future__ import annotations

import click

from peerd.cli.app import Verb
from peerd.cli.output import age, enum_word, print_fields, print_json
from peerd.cli.settings import Settings, call, pass_settings


@click.command(cls=Verb)
@pass_settings
def status(settings: Settings) -> None:
    """How this daemon is."""
    answer = call(settings, lambda peerd: peerd.status())
    if settings.as_json:
        print_json(answer)
        return
    from peerd.v1 import registry_pb2

    print_fields(
        {
            "name": answer.name,
            "peer id": answer.peer_id,
            "mesh": answer.mesh_id + (" (founded here)" if answer.mesh_id == answer.peer_id else ""),
            "version": answer.peerd_version,
            "up": age(answer.started_at),
            "listens on": answer.listen_address,
            "socket": answer.socket_path,
            "data": answer.data_dir,
            "isolation": enum_word(registry_pb2.IsolationLevel, answer.isolation),
            "peers": f"{answer.peers_online} of {answer.peers_total} online",
            "running jobs": str(answer.running_jobs),
            "executions": f"{answer.active_executions} active",
        }
    )
