"""``peerctl identity``: who this peer is, and a certificate to act as it from other gRPC clients."""

from __future__ import annotations

import os
from pathlib import Path

import click

from peerd.cli.app import Noun
from peerd.cli.output import print_fields, print_json
from peerd.cli.settings import Settings, call, duration, pass_settings


@click.group(cls=Noun, default="show")
def identity() -> None:
    """This peer's identity; 'peerctl identity' alone shows it."""


@identity.command("show")
@pass_settings
def show_identity(settings: Settings) -> None:
    """Peer id, mesh and name."""
    answer = call(settings, lambda peerd: peerd.status())
    fields = {"peer_id": answer.peer_id, "mesh_id": answer.mesh_id, "name": answer.name}
    if settings.as_json:
        print_json(fields)
    else:
        print_fields({"peer id": answer.peer_id, "mesh": answer.mesh_id, "name": answer.name})


@identity.command("export-tls")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option("--ttl", type=duration, default="1d", show_default=True, help="How long it stands, at most 30d.")
@pass_settings
def export_tls(settings: Settings, directory: Path, ttl: float) -> None:
    """Write cert.pem, key.pem and ca.pem to DIRECTORY. Who holds them is this peer, until they expire."""
    from peerd.client import Client
    from peerd.v1 import daemon_pb2

    async def fetch(peerd: Client) -> tuple[daemon_pb2.ExportTlsResponse, daemon_pb2.GetStatusResponse]:
        return await peerd.export_tls(ttl_seconds=max(1, round(ttl))), await peerd.status()

    exported, status = call(settings, fetch)
    files = {
        "cert": (directory / "cert.pem", exported.certificate_pem),
        "key": (directory / "key.pem", exported.private_key_pem),
        "ca": (directory / "ca.pem", exported.anchor_pem),
    }
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, content in files.values():
            _write_private(path, content)
    except OSError as exc:
        raise click.ClickException(f"cannot write {exc.filename}: {exc.strerror}") from exc
    paths = {name: str(path) for name, (path, _) in files.items()}
    if settings.as_json:
        print_json({**paths, "peer_id": status.peer_id, "listen_address": status.listen_address})
        return
    for path_text in paths.values():
        click.echo(path_text)
    click.echo(
        f"next: buf curl --cert {paths['cert']} --key {paths['key']} --cacert {paths['ca']} "
        f"--servername {status.peer_id} --http2-prior-knowledge https://{status.listen_address} --list-methods",
        err=True,
    )


def _write_private(path: Path, content: bytes) -> None:
    """Never readable by others, not even for a moment, and never through somebody's link."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)
        file.write(content)
