"""What a profile may say, and what follows for a peer. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from peerd.catalog.declaration import check_declaration
from peerd.errors import PeerdError, Reason, Violation
from peerd.identity.peer_id import PeerId
from peerd.mesh.mesh import Mesh
from peerd.mesh.model import ADMIN, check_name, to_timestamp
from peerd.v1.catalog_pb2 import ServiceDeclaration
from peerd.v1.profiles_pb2 import Profile, ProfileConfig

PROFILE_TYPE = "application/vnd.peerd.profile.v1+protobuf"
HISTORY = 50
"""Versions of a profile that are kept."""

_ANY_DATA_DIR = Path("/var/lib/peerd")
"""Where most peers live; each checks again with its own."""
_MAX_LABELS = 32
_MAX_SERVICES = 64
_MAX_COMMENT = 500
_HEARTBEAT_SECONDS = (0.2, 60.0)
"""Faster costs more than it tells; slower is no failure detector."""


class ProfileKind:
    """Profiles as documents, keyed by role. Implements :class:`peerd.mesh.documents.Kind`."""

    name = "profile"
    payload_type = PROFILE_TYPE
    history = HISTORY
    dated = False

    def parse(self, payload: bytes) -> tuple[str, int, Profile]:
        try:
            profile = Profile.FromString(payload)
        except DecodeError as error:
            raise PeerdError(Reason.INVALID_RECORD, "the signed bytes are not a profile") from error
        check_profile(profile.role, profile.config, profile.comment)
        return profile.role, profile.version, profile

    def serialise(self, value: Profile, *, version: int, now: int) -> bytes:
        profile = Profile()
        profile.CopyFrom(value)
        profile.ClearField("signer")
        profile.version = version
        profile.issued_at.CopyFrom(to_timestamp(now))
        return profile.SerializeToString(deterministic=True)

    def may_sign(self, mesh: Mesh, signer: PeerId, value: Profile) -> bool:
        grants = mesh.grants(signer)
        return grants is not None and ADMIN in grants


@dataclass(frozen=True, kw_only=True)
class Followed:
    """What a peer takes from the profiles of its roles."""

    version: int = 0
    """The sum of their versions: it grows with every change."""
    labels: frozenset[str] = frozenset()
    services: tuple[ServiceDeclaration, ...] = ()
    max_running_jobs: int = 0
    max_queued_jobs: int = 0
    heartbeat_seconds: float = 0.0


def follow(profiles: Iterable[Profile]) -> Followed:
    """All that the profiles of a peer's roles say, put together; of limits and rhythms the smallest counts."""
    mine = sorted((profile for profile in profiles if not profile.deleted), key=lambda profile: profile.role)
    services: dict[str, ServiceDeclaration] = {}
    for profile in mine:
        for service in profile.config.services:
            services.setdefault(service.name, service)
    return Followed(
        version=sum(profile.version for profile in mine),
        labels=frozenset(label for profile in mine for label in profile.config.labels),
        services=tuple(services.values()),
        max_running_jobs=_smallest(profile.config.limits.max_running_jobs for profile in mine),
        max_queued_jobs=_smallest(profile.config.limits.max_queued_jobs for profile in mine),
        heartbeat_seconds=min((p.config.heartbeat_seconds for p in mine if p.config.heartbeat_seconds), default=0.0),
    )


def check_profile(role: str, config: ProfileConfig, comment: str) -> None:
    """Refuse what no peer could follow. Raises INVALID_PROFILE with every field that is wrong."""
    check_name(role, "role")
    wrong: list[Violation] = []
    if len(config.labels) > _MAX_LABELS:
        wrong.append(Violation(field="labels", message=f"{len(config.labels)}; at most {_MAX_LABELS} are allowed"))
    for index, label in enumerate(config.labels[:_MAX_LABELS]):
        for part in label.split("=", 1):
            wrong.extend(_name_faults(part, f"labels[{index}]"))
    wrong.extend(_service_faults(config.services))
    low, high = _HEARTBEAT_SECONDS
    seconds = config.heartbeat_seconds
    if seconds and not (math.isfinite(seconds) and low <= seconds <= high):
        wrong.append(Violation(field="heartbeat_seconds", message=f"must be between {low} and {high}, not {seconds:g}"))
    if len(comment) > _MAX_COMMENT or not comment.isprintable():
        message = f"at most {_MAX_COMMENT} characters and no control ones"
        wrong.append(Violation(field="comment", message=message))
    if wrong:
        fields = "; ".join(f"{entry.field}: {entry.message}" for entry in wrong[:5])
        raise PeerdError(Reason.INVALID_PROFILE, f"the profile of {role}: {fields}", violations=wrong)


def _name_faults(text: str, field: str) -> list[Violation]:
    try:
        check_name(text, field)
    except PeerdError as error:
        return list(error.violations)
    return []


def _service_faults(services: Sequence[ServiceDeclaration]) -> list[Violation]:
    if len(services) > _MAX_SERVICES:
        return [Violation(field="services", message=f"{len(services)}; at most {_MAX_SERVICES} are allowed")]
    wrong: list[Violation] = []
    seen: set[str] = set()
    for index, service in enumerate(services):
        field = f"services[{index}]"
        if service.name in seen:
            wrong.append(Violation(field=field, message=f"{service.name} is declared twice"))
        seen.add(service.name)
        try:
            check_declaration(service, data_dir=_ANY_DATA_DIR)
        except PeerdError as error:
            wrong.append(Violation(field=field, message=error.message))
    return wrong


def _smallest(values: Iterable[int]) -> int:
    return min((value for value in values if value), default=0)
