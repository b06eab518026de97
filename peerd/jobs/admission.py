"""Whether this machine takes a job: every reason to refuse, in one pure function.

The orchestrator has chosen this peer from what it knows; the executor checks again, because only it knows for sure,
and because the orchestrator may be wrong or lie.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from peerd.catalog.model import Service, ServiceKind
from peerd.disk import Disk
from peerd.errors import PeerdError, Reason
from peerd.jobs.model import Resources
from peerd.v1 import registry_pb2


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What this machine is and lets others do."""

    isolation: int
    """registry_pb2.IsolationLevel of its runner."""
    limits: int
    """registry_pb2.LimitsLevel of its runner."""
    capacity: Callable[[], Resources]
    """What it gives to jobs, all in all."""
    allow_commands_from: frozenset[str] = frozenset()
    """Peer ids and roles."""
    max_queued: Callable[[], int] = lambda: 20_000
    """Jobs that are not final."""
    containers: Callable[[], bool] = lambda: False
    """Whether it has had a container engine since the daemon started; one that is away is waited for."""


@dataclass(frozen=True, kw_only=True)
class Orderer:
    """Who asks."""

    peer_id: str
    roles: frozenset[str] = frozenset()


def admit(machine: Machine, orderer: Orderer, service: Service | None, wanted: Resources) -> None:
    """Return if the job may be created here; ``service`` None is an ad-hoc command.

    Raises SERVICE_INACTIVE, SERVICE_NOT_ALLOWED, ADHOC_NOT_ALLOWED, ISOLATION_INSUFFICIENT, RESOURCES_INSUFFICIENT,
    SERVICE_KIND_UNSUPPORTED.
    """
    if service is None:
        _admit_command(machine, orderer)
    else:
        _admit_service(machine, orderer, service)
    has = machine.capacity()
    for what, asked, most in (
        ("cpus", wanted.cpus, has.cpus),
        ("bytes of memory", wanted.memory_bytes, has.memory_bytes),
        ("bytes of disk", wanted.disk_bytes, has.disk_bytes),
        ("gpus", wanted.gpus, has.gpus),
    ):
        if asked > most:
            raise PeerdError(
                Reason.RESOURCES_INSUFFICIENT,
                f"the job asks for {asked:g} {what}; this machine has {most:g} for jobs",
            )


def admit_load(machine: Machine, open_jobs: int, disk: Disk) -> None:
    """Return if there is room for one more. Raises OVERLOADED, DISK_LOW."""
    if open_jobs >= machine.max_queued():
        raise PeerdError(
            Reason.OVERLOADED, f"{open_jobs} jobs wait or run here, which is the limit", retry_after_seconds=5
        )
    disk.check()


def _admit_service(machine: Machine, orderer: Orderer, service: Service) -> None:
    if not service.active:
        raise PeerdError(Reason.SERVICE_INACTIVE, f"service {service.name!r} is inactive")
    if not service.allows(orderer.peer_id, orderer.roles):
        raise PeerdError(
            Reason.SERVICE_NOT_ALLOWED, f"service {service.name!r} may not be ordered by {orderer.peer_id}"
        )
    if service.declaration.kind is ServiceKind.CONTAINER:
        if not machine.containers():
            raise PeerdError(
                Reason.SERVICE_KIND_UNSUPPORTED,
                f"service {service.name!r} is a container, and no container engine answers on this machine",
            )
        return
    if service.declaration.isolation > machine.isolation:
        raise PeerdError(
            Reason.ISOLATION_INSUFFICIENT,
            f"service {service.name!r} demands isolation {_word(service.declaration.isolation)}; "
            f"this machine has isolation {_word(machine.isolation)}",
        )
    if service.declaration.limits > machine.limits:
        raise PeerdError(
            Reason.ISOLATION_INSUFFICIENT,
            f"service {service.name!r} demands that memory and processes are limited by control groups; "
            "this machine cannot do that",
            next_action="see what 'peerd doctor' says of limits on that machine",
        )


def _admit_command(machine: Machine, orderer: Orderer) -> None:
    if not machine.allow_commands_from & {orderer.peer_id, *orderer.roles}:
        raise PeerdError(Reason.ADHOC_NOT_ALLOWED, f"this machine runs no ad-hoc commands of {orderer.peer_id}")
    if machine.isolation <= registry_pb2.ISOLATION_LEVEL_NONE:
        raise PeerdError(
            Reason.ISOLATION_INSUFFICIENT,
            "this machine cannot isolate jobs (isolation: none), so it runs declared services only",
        )


def _word(level: int) -> str:
    names: dict[int, str] = {value: name for name, value in registry_pb2.IsolationLevel.items()}
    return names.get(level, str(level)).removeprefix("ISOLATION_LEVEL_").lower()
