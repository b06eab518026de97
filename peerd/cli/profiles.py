"""``peerctl profiles``: one configuration document for each role."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from peerd.cli.app import Noun
from peerd.cli.output import local_time, print_json, print_table, short
from peerd.cli.settings import Settings, call, pass_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peerd.v1 import profiles_pb2


@click.group(cls=Noun, default="list")
def profiles() -> None:
    """What the peers of a role do besides their own configuration; 'peerctl profiles' alone lists them."""


@profiles.command("list")
@pass_settings
def list_profiles(settings: Settings) -> None:
    """The profile of every role that has one."""
    _print(settings, call(settings, lambda peerd: peerd.profiles()), empty="no role has a profile")


@profiles.command("get")
@click.argument("role")
@pass_settings
def get_profile(settings: Settings, role: str) -> None:
    """The profile of a ROLE, as 'set' takes it."""
    profile = call(settings, lambda peerd: peerd.profile(role))
    if settings.as_json:
        print_json(profile)
        return
    import yaml
    from google.protobuf.json_format import MessageToDict

    click.echo(f"# role {profile.role}, version {profile.version}, {local_time(profile.issued_at)}")
    click.echo(
        yaml.safe_dump(MessageToDict(profile.config, preserving_proto_field_name=True), sort_keys=False), nl=False
    )


@profiles.command("history")
@click.argument("role")
@pass_settings
def profile_history(settings: Settings, role: str) -> None:
    """The versions of a ROLE's profile, newest first."""
    _print(settings, call(settings, lambda peerd: peerd.profile_history(role)), empty=f"{role} never had a profile")


@profiles.command("set")
@click.argument("role")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--comment", default="", help="Why, for whoever reads the history.")
@click.option("--expect", type=click.IntRange(0), help="Only if this is the present version.")
@pass_settings
def set_profile(settings: Settings, role: str, file: Path, comment: str, expect: int | None) -> None:
    """Give a ROLE the profile in FILE (YAML or JSON); its peers follow it at once."""
    config = read_config(file)
    profile = call(settings, lambda peerd: peerd.set_profile(role, config, comment=comment, expected_version=expect))
    if settings.as_json:
        print_json(profile)
    else:
        click.echo(f"{profile.role} has profile version {profile.version}")


@profiles.command("delete")
@click.argument("role")
@click.option("--comment", default="", help="Why, for whoever reads the history.")
@pass_settings
def delete_profile(settings: Settings, role: str, comment: str) -> None:
    """Take a ROLE's profile away; its history stays."""
    profile = call(settings, lambda peerd: peerd.delete_profile(role, comment=comment))
    if settings.as_json:
        print_json(profile)
    else:
        click.echo(f"{profile.role} has no profile any more")


def read_config(file: Path) -> profiles_pb2.ProfileConfig:
    """The JSON mapping of ProfileConfig, written as YAML or JSON. Raises INVALID_PROFILE."""
    import yaml
    from google.protobuf.json_format import ParseDict, ParseError

    from peerd.errors import PeerdError, Reason
    from peerd.v1 import profiles_pb2

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        return ParseDict(content if content is not None else {}, profiles_pb2.ProfileConfig())
    except (yaml.YAMLError, UnicodeDecodeError, ParseError, AttributeError, TypeError, ValueError) as error:
        raise PeerdError(Reason.INVALID_PROFILE, f"{file}: {error}") from error


def _print(settings: Settings, found: Sequence[profiles_pb2.Profile], *, empty: str) -> None:
    if settings.as_json:
        print_json({"profiles": found})
        return
    rows = [
        (
            profile.role,
            str(profile.version),
            local_time(profile.issued_at),
            "deleted" if profile.deleted else _summary(profile.config),
            short(profile.signer),
            profile.comment,
        )
        for profile in found
    ]
    print_table(("ROLE", "VERSION", "SINCE", "SAYS", "SIGNED BY", "COMMENT"), rows, empty=empty)


def _summary(config: profiles_pb2.ProfileConfig) -> str:
    parts = [
        f"labels {','.join(config.labels)}" if config.labels else "",
        f"services {','.join(service.name for service in config.services)}" if config.services else "",
        f"max_running_jobs {config.limits.max_running_jobs}" if config.limits.max_running_jobs else "",
        f"max_queued_jobs {config.limits.max_queued_jobs}" if config.limits.max_queued_jobs else "",
        f"heartbeat {config.heartbeat_seconds:g}s" if config.heartbeat_seconds else "",
    ]
    return "; ".join(part for part in parts if part) or "nothing"
