"""``peerd``: make an identity, join a mesh, run the daemon. Everything else is ``peerctl``."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from peerd import __version__
from peerd.config import CONFIG_FILE, Config
from peerd.config_reading import load_config, show_config
from peerd.datadir import DataDir
from peerd.errors import PeerdError, Reason
from peerd.failpoints import FAILPOINTS

EXIT_RESTART = 75
"""EX_TEMPFAIL: the daemon ended to be started again, with a store that was restored."""
EXIT_STORE = 65
"""EX_DATAERR: the store is damaged, or of a later peerd; starting again does not help."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="peerd")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where this peer lives. [PEERD_DATA_DIR]")
@click.pass_context
def cli(context: click.Context, data_dir: Path | None) -> None:
    """The daemon that every machine of a fleet runs."""
    context.obj = data_dir


_NAME = click.option("--name", default="", help="What people call this machine. Default: its host name.")
_LISTEN = click.option("--listen", default="", metavar="HOST:PORT", help="Where other peers connect.")


@cli.command()
@_NAME
@_LISTEN
@click.pass_obj
def init(data_dir: Path | None, name: str, listen: str) -> None:
    """Make an identity and found a mesh of one."""
    from peerd.daemon import found

    config = _prepare(data_dir, name, listen)
    peer_id = asyncio.run(found(config))
    click.echo(f"peer id    {peer_id}")
    click.echo(f"data       {config.data_dir}")
    click.echo("next       peerd run, then 'peerctl invite --role worker --grants observe,execute' for each machine")


@cli.command()
@click.argument("token", required=False)
@click.option("--mesh", "mesh_id", metavar="MESH_ID", help="Instead of a token: the mesh that has admitted this peer.")
@click.option("--address", metavar="HOST:PORT", help="With --mesh: where one of its members listens.")
@click.option("--replace", is_flag=True, help="With --mesh: leave the mesh that this machine belongs to.")
@click.option("--peer", "peer_id", metavar="PEER_ID", help="With --mesh: which member that is. Default: the founder.")
@_NAME
@_LISTEN
@click.pass_obj
def join(
    data_dir: Path | None,
    token: str | None,
    mesh_id: str | None,
    address: str | None,
    replace: bool,
    peer_id: str | None,
    name: str,
    listen: str,
) -> None:
    """Join a mesh with an invite TOKEN, making an identity first if there is none."""
    from peerd.daemon import join_admitted, join_invited

    if bool(token) == bool(mesh_id and address):
        raise click.UsageError("give either a TOKEN, or --mesh and --address")
    config = _prepare(data_dir, name, listen)
    if token:
        mesh = asyncio.run(join_invited(config, token))
    else:
        assert mesh_id and address  # noqa: S101 - checked above
        mesh = asyncio.run(join_admitted(config, mesh_id, address, peer_id or mesh_id, replace=replace))
    click.echo(f"joined     {mesh}")
    click.echo(f"data       {config.data_dir}")
    click.echo("next       peerd run")


@cli.command()
@click.pass_obj
def refound(data_dir: Path | None) -> None:
    """The founder's key is lost: found the mesh anew on this machine, with all other members and what they had."""
    from peerd.daemon import refound_mesh

    mesh_id, count, address = asyncio.run(refound_mesh(load_config(data_dir=data_dir)))
    click.echo(f"founded    {mesh_id}, with {count} other members")
    click.echo("next       peerd run here; then, on each other machine, with its daemon stopped:")
    click.echo(f"peerd join --replace --mesh {mesh_id} --address {address}")


@cli.command()
@click.pass_obj
def identity(data_dir: Path | None) -> None:
    """Make an identity without founding a mesh, or show the one there is: an admin elsewhere can admit it by its id."""
    from peerd.daemon import ensure_identity

    click.echo(ensure_identity(load_config(data_dir=data_dir)).peer_id)


@cli.command()
@click.option("--listen", default="", metavar="HOST:PORT", help="Where other peers connect, this time.")
@click.pass_obj
def run(data_dir: Path | None, listen: str) -> None:
    """Run the daemon until SIGTERM or SIGINT."""
    from peerd.daemon import allocator, run_until_signalled
    from peerd.logs import configure_logs

    allocator.keep_little()
    config = load_config(data_dir=data_dir, flags={"peer.listen": listen} if listen else {})
    configure_logs(config.log)
    if asyncio.run(run_until_signalled(config)):
        sys.exit(EXIT_RESTART)


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--allow-other-identity", is_flag=True, help="Take the store of another peer.")
@click.pass_obj
def restore(data_dir: Path | None, file: Path, allow_other_identity: bool) -> None:
    """Take the store in FILE, while no daemon runs. The present one is kept in backups/."""
    from peerd.daemon import restore_offline

    kept = restore_offline(load_config(data_dir=data_dir), file, allow_other_identity=allow_other_identity)
    click.echo(f"restored   {file}")
    if kept is not None:
        click.echo(f"replaced   {kept}")
    click.echo("next       peerd run")


@cli.command()
@click.option("-o", "output", type=click.Choice(["table", "json"]), default="table")
@click.pass_obj
def doctor(data_dir: Path | None, output: str) -> None:
    """Look at everything on this machine that peerd depends on; exit 1 if something must be mended."""
    from peerd.daemon.doctor import Verdict, examine_now

    found = examine_now(load_config(data_dir=data_dir))
    if output == "json":
        rows = [
            {"name": f.name, "verdict": f.verdict.value, "message": f.message, "next_action": f.next_action}
            for f in found
        ]
        click.echo(json.dumps({"findings": rows}, indent=2))
    else:
        width = max(len(finding.name) for finding in found)
        for finding in found:
            click.echo(f"{finding.verdict.value:4}  {finding.name:{width}}  {finding.message}")
            if finding.next_action:
                click.echo(f"{'':{width + 8}}next: {finding.next_action}")
    if any(finding.verdict is Verdict.FAIL for finding in found):
        sys.exit(1)


@cli.command()
@click.option("--prefix", type=click.Path(path_type=Path), default=None, help="Default: /etc/systemd/system.")
@click.option("--user", default="", help="Who the daemon runs as; root when not said.")
@click.option("--no-isolation", is_flag=True, help="Harden it further: bubblewrap can isolate no jobs then.")
@click.pass_obj
def install(data_dir: Path | None, prefix: Path | None, user: str, no_isolation: bool) -> None:
    """Write the systemd unit."""
    from peerd.daemon.install import DEFAULT_PREFIX, install_unit

    settings = load_config(data_dir=data_dir)
    path, changed = install_unit(
        data_dir=settings.data_dir, user=user, prefix=prefix or DEFAULT_PREFIX, isolation=not no_isolation
    )
    click.echo(f"unit       {path}{'' if changed else ' (unchanged)'}")
    if changed:
        click.echo("next       systemctl daemon-reload && systemctl enable --now peerd")


@cli.group()
def simulate() -> None:
    """Things to try peerd with."""


@simulate.command("miner")
@click.option("--dir", "folder", required=True, type=click.Path(path_type=Path), help="As [devices] simulated says.")
@click.option("--name", default="sim1", help="Of its file in the directory.")
@click.option("--serial", default="", help="Of its USB; without one it is a clone like many.")
@click.option("--usb-path", default="", help="Where it seems to be plugged in. Default: its name.")
@click.option("--wallet", default="", help="With a worker's name after a dot, if you like.")
@click.option("--pool", default="public-pool.io:21496", metavar="HOST:PORT")
@click.option("--password", default="x", help="Of the pool; it is printed as boards do, and must be seen nowhere.")
@click.option("--rate", default=55.0, help="In KH/s.")
@click.option("--fault", default="none", help="no-wifi, stall, refuse, portal, silent, idle, crash, noise or gps.")
@click.option("--clone", is_flag=True, help="Print what cheap boards print: one status line, and a comma too many.")
@click.option("--every", "seconds", default=5.0, help="Seconds between its status lines.")
@click.option("--speed", default=1.0, help="So many times as fast.")
@click.option("--boot-on-open", is_flag=True, help="Boot when its port is opened, as boards do that are reset by that.")
@click.option("--replay", type=click.Path(path_type=Path), help="Print a recording instead.")
def simulate_miner(**options: Any) -> None:
    """A miner on a pseudo-terminal. Orders on stdin: reboot, unplug, plug, fault NAME, print TEXT, quit."""
    from peerd.devices.simulator.command import simulate as run_simulation

    run_simulation(**options)


@simulate.command("record")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--seconds", default=60.0, help="For so long.")
def record_console(path: Path, seconds: float) -> None:
    """Print what a serial port says, with times and without passwords, for --replay. Nobody else may have it open."""
    from peerd.devices.simulator.command import record

    record(path, seconds)


@cli.group()
def config() -> None:
    """What is configured."""


@config.command("show")
@click.option("-o", "output", type=click.Choice(["table", "json"]), default="table")
@click.pass_obj
def config_show(data_dir: Path | None, output: str) -> None:
    """Every setting, its value, and where that comes from."""
    rows = show_config(load_config(data_dir=data_dir))
    if output == "json":
        click.echo(json.dumps([{"key": key, "value": value, "origin": origin} for key, value, origin in rows]))
        return
    width = max(len(key) for key, _, _ in rows)
    for key, value, origin in rows:
        shown = ", ".join(value) if isinstance(value, tuple) else value
        click.echo(f"{key:{width}}  {shown!s:32}  {origin}")


@cli.command()
def failpoints() -> None:
    """List the places where a test can kill this daemon with PEERD_FAILPOINT=NAME[@N]."""
    width = max(len(name) for name in FAILPOINTS)
    for name, what in FAILPOINTS.items():
        click.echo(f"{name:{width}}  {what}")


def _prepare(data_dir: Path | None, name: str, listen: str) -> Config:
    """Create the data directory and keep what was said on the command line in its configuration file."""
    config = load_config(data_dir=data_dir)
    folder = DataDir(config.data_dir)
    folder.create()
    said = {key: value for key, value in (("name", name), ("listen", listen)) if value}
    file = config.data_dir / CONFIG_FILE
    if said and not file.exists():
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in said.items())
        file.write_text(f"[peer]\n{lines}", encoding="utf-8")
        return load_config(data_dir=data_dir)
    return load_config(data_dir=data_dir, flags={f"peer.{key}": value for key, value in said.items()})


def main() -> None:
    """The console script: errors for people go to stderr as cause, reason, next action."""
    run_cli: Callable[..., Any] = cli
    try:
        run_cli(standalone_mode=False)
    except PeerdError as error:
        print(f"error: {error.message}\nreason: {error.reason.text}\nnext: {error.next_action}", file=sys.stderr)
        sys.exit(EXIT_STORE if error.reason in (Reason.STORE_CORRUPT, Reason.STORE_TOO_NEW) else 1)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(130)


if __name__ == "__main__":
    main()
