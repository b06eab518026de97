"""The command tree: which nouns there are, and how a noun finds its verb."""

from __future__ import annotations

import importlib

import click

from peerd.cli.settings import global_options

_VALUED = ("-o", "--output", "--socket", "--peer", "--timeout")

# noun -> (where it is, what --help says of it). The help stands here too so that listing imports nothing.
NOUNS = {
    "status": ("peerd.cli.status:status", "How this daemon is."),
    "peers": ("peerd.cli.peers:peers", "The machines of the mesh."),
    "profiles": ("peerd.cli.profiles:profiles", "What the peers of a role do."),
    "invite": ("peerd.cli.invites:invite", "Invite a machine into the mesh."),
    "invites": ("peerd.cli.invites:invites", "The invites made here."),
    "services": ("peerd.cli.services:services", "What peers offer."),
    "workflows": ("peerd.cli.workflows:workflows", "Definitions: check, plan, store, run."),
    "schedules": ("peerd.cli.schedules:schedules", "Workflows that run at planned times."),
    "scans": ("peerd.cli.scans:scans", "Signed scans: hand in, see, watch, cancel."),
    "scanners": ("peerd.cli.scanners:scanners", "Keys whose signed scans are taken."),
    "orgs": ("peerd.cli.orgs:orgs", "Organizations, and what may be scanned in their name."),
    "nodes": ("peerd.cli.nodes:nodes", "Nodes of organizations: discover, scan, sweep."),
    "protocols": ("peerd.cli.protocols:protocols", "What nodes may speak."),
    "devices": ("peerd.cli.devices:devices", "USB-serial miners."),
    "why": ("peerd.cli.why:why", "Why a job is where it is, or nowhere."),
    "executions": ("peerd.cli.executions:executions", "Runs of workflows: see, watch, cancel."),
    "jobs": ("peerd.cli.jobs:jobs", "What this peer runs for others and for itself."),
    "logs": ("peerd.cli.logs:logs", "What a job of an execution wrote."),
    "hosts": ("peerd.cli.hosts:hosts", "Hosts that scans saw."),
    "inventory": ("peerd.cli.inventory:inventory", "What scans saw: ports, services, what changed."),
    "graph": ("peerd.cli.graph:graph", "How what scans saw hangs together."),
    "transfers": ("peerd.cli.transfers:transfers", "Files that move to and from this peer."),
    "du": ("peerd.cli.space:du", "What this peer's data takes on the disk."),
    "gc": ("peerd.cli.space:gc", "Remove files of what is over."),
    "backup": ("peerd.cli.backup:backup", "Copies of this peer's store."),
    "tokens": ("peerd.cli.tokens:tokens", "Tokens for HTTP on this peer."),
    "audit": ("peerd.cli.audit:audit", "Who changed what on this peer."),
    "identity": ("peerd.cli.identity:identity", "This peer's identity."),
}


class Verb(click.Command):
    """A command that takes the global options as well as its own."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.params.extend(global_options(root=False))


class Noun(click.Group):
    """A noun with its verbs; ``default`` is the verb of the bare noun, so ``peers`` means ``peers list``."""

    command_class = Verb

    def __init__(self, *args: object, default: str | None = None, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._default = default
        self.params.extend(global_options(root=False))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if self._default is not None and not _names_a_verb(args):
            args = [self._default, *args]
        return super().parse_args(ctx, args)


class Peerctl(Noun):
    """The root: imports the file of a noun when that noun is named."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        own = [param for param in self.params if param.name == "version"]
        self.params = [*global_options(root=True), *own]

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(NOUNS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in NOUNS:
            return None
        module, name = NOUNS[cmd_name][0].split(":")
        command = getattr(importlib.import_module(module), name)
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(noun, help_line) for noun, (_, help_line) in NOUNS.items()])


def _names_a_verb(args: list[str]) -> bool:
    """Whether anything but global options comes first that is no option: a verb, or a mistyped one."""
    rest = iter(args)
    for arg in rest:
        if arg in _VALUED:
            next(rest, None)
        elif arg == "--help":
            return True
        elif not arg.startswith(_VALUED):
            return not arg.startswith("-")
    return False


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from peerd import __version__

        click.echo(f"peerctl {__version__}")
        ctx.exit()


@click.group(
    cls=Peerctl,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 ok, 1 the work failed, 2 usage, 3 daemon not reachable, 4 denied, 5 not found, "
    "124 time-out, 130 interrupted.",
)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Print the version."
)
def peerctl() -> None:
    """Talk to peerd, the daemon of this machine and, through it, to its mesh.

    Global options may stand before or after the command: 'peerctl peers -o json' is 'peerctl -o json peers'.
    """
