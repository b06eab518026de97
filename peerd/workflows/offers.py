"""Whether what a peer offers is what a job needs: its services, their interfaces and values, its isolation. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from peerd.catalog.declaration import to_declaration
from peerd.catalog.model import InterfaceKind, Service, ServiceKind
from peerd.errors import Reason
from peerd.registry.model import PeerView
from peerd.registry.selection import listed
from peerd.v1 import catalog_pb2, registry_pb2
from peerd.workflows.needs import Candidate, Need


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is in the way of a job on a peer, and the smallest change that would help."""

    reason: str
    message: str
    next_action: str


def name_of(peer: PeerView) -> str:
    """What people call it."""
    return peer.name or peer.peer_id


def command_flaw(candidate: Candidate) -> Flaw | None:
    """Why it does not take a command that nobody there declared."""
    name = name_of(candidate.peer)
    if candidate.peer.isolation == registry_pb2.ISOLATION_LEVEL_NONE:
        message = f"{name} has no isolation and runs declared services only"
        return Flaw(Reason.ISOLATION_INSUFFICIENT.text, message, f"install bubblewrap on {name}, or declare a service")
    if not candidate.allows_commands:
        message = f"{name} does not take commands from here"
        action = f"allow this peer under [jobs] allow_commands_from on {name}, or declare a service there"
        return Flaw(Reason.ADHOC_NOT_ALLOWED.text, message, action)
    return None


def service_flaw(need: Need, candidate: Candidate, orchestrator: PeerView | None) -> Flaw | None:
    """Why what it offers is not what the job orders."""
    if candidate.services is None:
        return None
    name = name_of(candidate.peer)
    offered = _find(candidate.services, need.service)
    if offered is None:
        message = f"{name} offers no service {need.service}"
        return Flaw(Reason.SERVICE_NOT_FOUND.text, message, f"add it on {name}: peerctl services add")
    try:
        service = Service(
            service_id=offered.service_id,
            active=offered.status == catalog_pb2.SERVICE_STATUS_ACTIVE,
            origin=offered.origin,
            declaration=to_declaration(offered.declaration),
        )
    except KeyError:
        # A newer peer may offer kinds that this version has no word for.
        message = f"{need.service} on {name} is of a kind that this version does not know"
        return Flaw(Reason.SERVICE_KIND_UNSUPPORTED.text, message, "update peerd here, or use another service")
    if offered.declaration.kind == catalog_pb2.SERVICE_KIND_CONTAINER:
        runners = {runner.name for runner in candidate.peer.hardware.runners}
        if runners and "container" not in runners:
            message = f"{need.service} on {name} is a container, and no container engine answers there"
            action = f"start podman or docker on {name} ('peerd doctor' there says more), or choose another peer"
            return Flaw(Reason.SERVICE_KIND_UNSUPPORTED.text, message, action)
    if not service.active:
        message = f"{need.service} on {name} is inactive"
        return Flaw(Reason.SERVICE_INACTIVE.text, message, f"on {name}: peerctl services activate {service.name}")
    if orchestrator and not candidate.peer.is_self and not service.allows(orchestrator.peer_id, orchestrator.roles):
        message = f"the owner of {need.service} on {name} allows {_allowed(service)} only"
        action = f"have {name_of(orchestrator)} or one of its roles allowed there"
        return Flaw(Reason.SERVICE_NOT_ALLOWED.text, message, action)
    return (
        _interface_flaw(need, service, name) or _values_flaw(need, service, name) or _isolation_flaw(service, candidate)
    )


def _interface_flaw(need: Need, service: Service, name: str) -> Flaw | None:
    for needed in need.interfaces:
        known = service.takes if needed.receives else service.gives
        if not known(needed.kind, needed.path):
            verb = "take" if needed.receives else "give"
            message = f"{service.name} on {name} does not {verb} {needed}"
            has = [
                str(each.kind.value) for each in service.interfaces if _verb_fits(service, each.kind, needed.receives)
            ]
            action = f"connect what it does {verb}: {listed(has)}" if has else f"leave out the edge: it {verb}s nothing"
            return Flaw(Reason.ILLEGAL_INTERFACE.text, message, action)
    return None


def _verb_fits(service: Service, kind: InterfaceKind, receives: bool) -> bool:
    return any(
        (each.takes if receives else each.gives)(kind, each.path) for each in service.interfaces if each.kind is kind
    )


def _values_flaw(need: Need, service: Service, name: str) -> Flaw | None:
    declared = {param.name for param in service.declaration.params}
    required = {param.name for param in service.declaration.params if param.default is None}
    reason = Reason.INVALID_ARGUMENT.text
    if unknown := need.params - declared:
        has = listed(declared) if declared else "none"
        message = f"{service.name} on {name} has no parameter {listed(unknown)}"
        return Flaw(reason, message, f"remove it; its parameters: {has}")
    if missing := required - need.params:
        return Flaw(reason, f"{service.name} on {name} needs {listed(missing)}", "give it under the job's 'params'")
    if unset := need.env - service.declaration.job_env:
        message = f"{service.name} on {name} does not let a job set {listed(unset)}"
        return Flaw(reason, message, "remove it from 'env', or have its owner list it under job_env")
    return None


def _isolation_flaw(service: Service, candidate: Candidate) -> Flaw | None:
    if service.declaration.kind is ServiceKind.CONTAINER:
        return None
    level = candidate.peer.isolation
    if registry_pb2.ISOLATION_LEVEL_UNSPECIFIED < level < service.declaration.isolation:
        name = name_of(candidate.peer)
        message = f"{service.name} demands more isolation than {name} has"
        return Flaw(
            Reason.ISOLATION_INSUFFICIENT.text, message, f"install bubblewrap on {name}, or choose another peer"
        )
    if registry_pb2.LIMITS_LEVEL_UNSPECIFIED < candidate.peer.limits < service.declaration.limits:
        name = name_of(candidate.peer)
        message = f"{service.name} demands that memory and processes are limited by control groups; {name} cannot"
        action = f"see what 'peerd doctor' says of limits on {name}, or choose another peer"
        return Flaw(Reason.ISOLATION_INSUFFICIENT.text, message, action)
    return None


def _find(services: Collection[catalog_pb2.Service], name_or_id: str) -> catalog_pb2.Service | None:
    # No name is all digits, so the two cannot be mixed up.
    return next(
        (each for each in services if name_or_id in (each.declaration.name, str(each.service_id))),
        None,
    )


def _allowed(service: Service) -> str:
    declared = service.declaration
    return listed([*(f"role {role}" for role in sorted(declared.allowed_roles)), *sorted(declared.allowed_peers)])
