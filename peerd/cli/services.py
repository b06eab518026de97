"""``peerctl services``: what this peer offers and what others do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from peerd.cli.app import Noun
from peerd.cli.output import enum_word, print_fields, print_json, print_table
from peerd.cli.settings import Settings, call, comma_list, pass_settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from peerd.v1 import catalog_pb2


@click.group(cls=Noun, default="list")
def services() -> None:
    """What peers offer; 'peerctl services' alone lists what this one does."""


@services.command("list")
@click.option("--active", "active_only", is_flag=True, help="Only services that may be ordered.")
@pass_settings
def list_services(settings: Settings, active_only: bool) -> None:
    """The services of this peer."""
    found = call(settings, lambda peerd: peerd.services(active_only=active_only))
    if settings.as_json:
        print_json({"services": found})
    else:
        _print_services(found, {}, empty="no services; add one with 'peerctl services add FILE'")


@services.command("search")
@click.argument("phrases", nargs=-1)
@click.option("--kind", "kinds", type=comma_list("data", "process", "container"), default="", help="Only these kinds.")
@click.option("--active", "active_only", is_flag=True, help="Only services that may be ordered.")
@pass_settings
def search_services(settings: Settings, phrases: tuple[str, ...], kinds: list[str], active_only: bool) -> None:
    """Ask all online peers; any phrase may match name or description."""
    from peerd.client import Client
    from peerd.v1 import catalog_pb2

    wanted = [catalog_pb2.ServiceKind.Value(f"SERVICE_KIND_{kind.upper()}") for kind in kinds]

    async def search(peerd: Client) -> tuple[catalog_pb2.SearchServicesResponse, dict[str, str]]:
        answer = await peerd.search_services(phrases, kinds=wanted, active_only=active_only)
        names = {} if settings.as_json else {peer.peer_id: peer.name for peer in await peerd.peers()}
        return answer, names

    answer, names = call(settings, search)
    if settings.as_json:
        print_json(answer)
        return
    _print_services(answer.services, names, empty="nothing found")
    for failed in answer.errors:
        click.echo(f"warning: {failed.name or failed.peer_id} did not answer: {failed.message}", err=True)


@services.command("show")
@click.argument("service")
@pass_settings
def show_service(settings: Settings, service: str) -> None:
    """One service of this peer, by name or id."""
    answer = call(settings, lambda peerd: peerd.service(service))
    if settings.as_json:
        print_json(answer)
    else:
        _print_service(answer)


@services.command("add")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--replace", is_flag=True, help="Replace a service of that name.")
@pass_settings
def add_service(settings: Settings, files: tuple[Path, ...], replace: bool) -> None:
    """Offer what each FILE declares (JSON or YAML, the fields of ServiceDeclaration)."""
    from peerd.cli.definition_file import read_declaration
    from peerd.client import Client

    declarations = [read_declaration(file) for file in files]

    async def add(peerd: Client) -> list[catalog_pb2.Service]:
        return [await peerd.add_service(declaration, replace=replace) for declaration in declarations]

    added = call(settings, add)
    if settings.as_json:
        print_json({"services": added})
        return
    for service in added:
        click.echo(f"service {service.service_id} {service.declaration.name} is offered")


@services.command("activate")
@click.argument("service")
@pass_settings
def activate_service(settings: Settings, service: str) -> None:
    """Let a service be ordered."""
    _set_status(settings, service, active=True)


@services.command("deactivate")
@click.argument("service")
@pass_settings
def deactivate_service(settings: Settings, service: str) -> None:
    """Refuse new orders of a service."""
    _set_status(settings, service, active=False)


@services.command("remove")
@click.argument("service")
@pass_settings
def remove_service(settings: Settings, service: str) -> None:
    """Stop offering a service that was added."""
    call(settings, lambda peerd: peerd.remove_service(service))
    if settings.as_json:
        print_json({})
    else:
        click.echo(f"service {service} is removed")


def _set_status(settings: Settings, service: str, *, active: bool) -> None:
    from peerd.v1 import catalog_pb2

    status = catalog_pb2.SERVICE_STATUS_ACTIVE if active else catalog_pb2.SERVICE_STATUS_INACTIVE
    answer = call(settings, lambda peerd: peerd.set_service_status(service, status))
    if settings.as_json:
        print_json(answer)
    else:
        click.echo(f"service {answer.declaration.name} is {enum_word(catalog_pb2.ServiceStatus, answer.status)}")


def _print_services(found: Iterable[catalog_pb2.Service], names: Mapping[str, str], *, empty: str) -> None:
    from peerd.v1 import catalog_pb2

    rows = [
        (
            *((names.get(service.peer_id, service.peer_id),) if names else ()),
            str(service.service_id),
            service.declaration.name,
            enum_word(catalog_pb2.ServiceKind, service.declaration.kind),
            enum_word(catalog_pb2.ServiceStatus, service.status),
            service.origin,
            demands(service.declaration),
            service.declaration.description,
        )
        for service in found
    ]
    headings = (*(("PEER",) if names else ()), "ID", "NAME", "KIND", "STATUS", "ORIGIN", "DEMANDS", "DESCRIPTION")
    print_table(headings, rows, empty=empty)


def _print_service(service: catalog_pb2.Service) -> None:
    from peerd.v1 import catalog_pb2

    declared = service.declaration
    print_fields(
        {
            "name": declared.name,
            "id": str(service.service_id),
            "peer id": service.peer_id,
            "kind": enum_word(catalog_pb2.ServiceKind, declared.kind),
            "status": enum_word(catalog_pb2.ServiceStatus, service.status),
            "origin": service.origin,
            "description": declared.description,
            "path": declared.path,
            "argv": " ".join(declared.argv),
            "params": ", ".join(
                f"{param.name}={param.default_value}" if param.HasField("default_value") else f"{param.name} (required)"
                for param in declared.params
            ),
            "interfaces": ", ".join(_interface_words(interface) for interface in declared.interfaces),
            "may be set by jobs": ", ".join(declared.job_env),
            "reads": ", ".join(declared.read_only_paths),
            "writes": ", ".join(declared.writable_paths),
            "network": "the host's" if declared.network else "",
            "demands": demands(declared),
            "allowed peers": ", ".join(declared.allowed_peers),
            "allowed roles": ", ".join(declared.allowed_roles),
        }
    )


def demands(declared: catalog_pb2.ServiceDeclaration) -> str:
    """What a machine must be able to, or else it refuses the service's jobs."""
    from peerd.v1 import registry_pb2

    isolation = enum_word(registry_pb2.IsolationLevel, declared.isolation) if declared.isolation else ""
    limits = enum_word(registry_pb2.LimitsLevel, declared.limits) if declared.limits else ""
    parts = (f"isolation {isolation}" if isolation else "", f"limits by {limits}" if limits else "")
    return ", ".join(part for part in parts if part)


def _interface_words(interface: catalog_pb2.ServiceInterface) -> str:
    from peerd.v1 import catalog_pb2

    kind = enum_word(catalog_pb2.InterfaceKind, interface.kind)
    if interface.kind != catalog_pb2.INTERFACE_KIND_MOUNT:
        return kind
    function = enum_word(catalog_pb2.MountFunction, interface.mount_function) or "both"
    return f"{kind} {interface.path} ({function})"
