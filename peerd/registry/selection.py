"""Whether a peer is one that is asked for: the same function lists peers, searches them and places jobs. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from peerd.registry.expression import Expression, may_hold, parse_expression, unmet
from peerd.registry.model import PeerStatus, PeerView

MAX_TEXT_LENGTH = 200


@dataclass(frozen=True, kw_only=True)
class Selector:
    """What is asked of a peer; everything that is set must match."""

    peer: str = ""
    """Peer id or name."""
    role: str = ""
    labels: frozenset[str] = frozenset()
    group: str = ""
    region: str = ""
    where: Expression | None = None
    status: PeerStatus | None = None
    words: tuple[str, ...] = ()
    """All of these occur somewhere in what is said of it."""


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """The first thing in the way, and the smallest change that would remove it."""

    message: str
    change: str
    passes: bool = False
    """It may match in a while, with nobody changing anything: what it lacks is about its load, not about what it is."""


def selector(
    *, role: str = "", label: str = "", group: str = "", region: str = "", where: str = "", text: str = ""
) -> Selector:
    """A selector of texts. Raises INVALID_EXPRESSION."""
    return Selector(
        role=role,
        labels=frozenset({label} if label else ()),
        group=group,
        region=region,
        where=parse_expression(where) if where.strip() else None,
        words=tuple(text[:MAX_TEXT_LENGTH].casefold().split()),
    )


def mismatch(wanted: Selector, peer: PeerView) -> Mismatch | None:
    """Why the peer is not one that is asked for; None if it is."""
    name = peer.name or peer.peer_id
    if wanted.peer and wanted.peer not in (peer.peer_id, peer.name):
        return Mismatch(message=f"{wanted.peer} is asked for by name", change=f"name {name} instead, or no peer at all")
    if wanted.role and wanted.role not in peer.roles:
        has = f"its roles are {listed(peer.roles)}" if peer.roles else "it has no role"
        return Mismatch(
            message=f"{name} is no {wanted.role}; {has}",
            change=f"give {name} the role {wanted.role}, or ask for another: "
            f"peerctl peers roles {name} {listed({*peer.roles, wanted.role}, ',')}",
        )
    if missing := wanted.labels - peer.labels:
        plural = "s" if len(missing) > 1 else ""
        return Mismatch(
            message=f"{name} lacks the label{plural} {listed(missing)}",
            change=f"label {name} with {listed(missing)} ([peer] labels in its peerd.toml, or its role's profile)",
        )
    if wanted.group and wanted.group not in peer.groups:
        has = f"is in {listed(peer.groups)}" if peer.groups else "is in no group"
        return Mismatch(
            message=f"{name} {has}", change=f"put {name} into group {wanted.group} ([peer] groups in its peerd.toml)"
        )
    if wanted.region and wanted.region != peer.region:
        has = f"is in {peer.region}" if peer.region else "does not say where it is"
        return Mismatch(
            message=f"{name} {has}, not in {wanted.region}",
            change=f"set [peer] region in the peerd.toml of {name}, or ask for another region",
        )
    if wanted.where is not None and (lacks := unmet(wanted.where, peer)):
        found = "; ".join(str(entry) for entry in lacks)
        has = ", ".join(f"{entry.comparison.name} {entry.found}" for entry in lacks)
        return Mismatch(
            message=f"{name}: {found}",
            change=f"ask for what {name} has: {has}",
            passes=may_hold(wanted.where, peer),
        )
    if wanted.status is not None and wanted.status is not peer.status:
        return Mismatch(message=f"{name} is {peer.status.name.lower()}", change=f"ask for {peer.status.name.lower()}")
    if wanted.words and (absent := [word for word in wanted.words if word not in _said(peer)]):
        return Mismatch(message=f"nothing said of {name} holds {listed(absent)}", change="ask with other words")
    return None


def listed(words: Iterable[str], separator: str = ", ") -> str:
    """Words in order, each once."""
    return separator.join(sorted(set(words)))


def _said(peer: PeerView) -> str:
    """All that is said of a peer, for finding words in it."""
    hardware = peer.hardware
    return " ".join(
        [
            peer.name,
            peer.hostname,
            peer.peer_id,
            peer.platform,
            peer.region,
            peer.status.name,
            hardware.cpu_model,
            *peer.roles,
            *peer.labels,
            *peer.groups,
            *peer.addresses,
            *(f"{gpu.vendor} {gpu.model}" for gpu in hardware.gpus),
            *(port.path for port in hardware.serial_ports),
            *(runner.name for runner in hardware.runners),
        ]
    ).casefold()
