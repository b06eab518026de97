"""Placement with what this peer knows now: the registry's peers and, for each, the catalog it last told.

The rules are in :mod:`peerd.workflows.placement`; here is only where its candidates come from. A catalog is asked for
when the digest in its peer's advert changes, and taken as unknown when the peer does not answer soon: the executor
checks again and has the last word.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from peerd.clock import Clock
from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.registry.expression import Expression, parse_expression
from peerd.registry.model import PeerView
from peerd.rpc.channels import Channels
from peerd.rpc.status import remote_errors
from peerd.v1 import catalog_pb2, catalog_pb2_grpc, workflows_pb2
from peerd.workflows.edges import Edge
from peerd.workflows.needs import Candidate, need_of
from peerd.workflows.placement import OFFLINE, Decision, Refused, place

ASK_SECONDS = 2.0
# A catalog may change before the advert that says so has come; one that did not answer is not asked at once again.
FRESH_SECONDS = 0.5
SILENT_SECONDS = 15.0
_NOWHERE: Mapping[str, int] = {}
_NOBODY: Mapping[str, str] = {}
_PAGE_SIZE = 1000
_MAX_PAGES = 20
_MAX_AWAITED = 64


class Peers(Protocol):
    """What placing asks of the registry."""

    def peers(self) -> tuple[PeerView, ...]:
        """All that are known, this one included."""
        ...


@dataclass(frozen=True, kw_only=True)
class Placed:
    """This peer gets it."""

    peer: str


@dataclass(frozen=True, kw_only=True)
class Waits:
    """Nobody now; somebody when back."""

    message: str
    next_action: str


@dataclass(frozen=True, kw_only=True)
class Nobody:
    """No peer would take it, whoever comes back."""

    message: str


@dataclass(frozen=True, kw_only=True)
class _Known:
    digest: bytes
    asked_at: float
    services: tuple[catalog_pb2.Service, ...] | None


class Placer:
    """Answers where a job runs."""

    def __init__(self, peers: Peers, channels: Channels, clock: Clock) -> None:
        self._peers = peers
        self._channels = channels
        self._clock = clock
        self._catalogs: dict[PeerId, _Known] = {}
        self._asking = asyncio.Lock()
        self._turns: dict[str, int] = {}
        self._given = 0
        self._awaited: dict[str, Expression] = {}

    async def refresh(self) -> None:
        """Ask every online peer whose catalog is not known, or not any more; once, however many want to know."""
        if self._stale():
            async with self._asking:
                await asyncio.gather(*map(self._ask, self._stale()))

    def place(
        self,
        job: workflows_pb2.JobDefinition,
        edges: Sequence[Edge],
        *,
        excluded: Collection[str] = (),
        assigned: Mapping[str, int],
        near: Mapping[str, int] = _NOWHERE,
    ) -> Placed | Waits | Nobody:
        """Choose among all but the excluded; ``edges`` are those of the job.

        ``assigned`` counts jobs by peer, ``near`` those of them whose outputs this one takes.
        """
        decision = self.decide(job, edges, excluded=excluded, assigned=assigned, near=near)
        if decision.peer_id is not None:
            self._given += 1
            self._turns[decision.peer_id] = self._given
            return Placed(peer=decision.peer_id)
        if waits := decision.waits_for:
            self._await(job.on.where)
            return Waits(message=_waited_for(waits), next_action=waits[0].next_action)
        if job.on.peer and (mute := self._mute(job.on.peer)):
            return Waits(
                message=f"nobody is called {job.on.peer}; {', '.join(mute[:3])} has not said yet what it is",
                next_action=f"start it, or correct the name {job.on.peer!r} and run it again",
            )
        reasons = [f"{refused.message} ({refused.reason})" for refused in decision.refusals[:3]]
        return Nobody(message="; ".join(reasons) or "every peer that fits has refused it")

    def decide(
        self,
        job: workflows_pb2.JobDefinition,
        edges: Sequence[Edge],
        *,
        excluded: Collection[str] = (),
        assigned: Mapping[str, int],
        near: Mapping[str, int] = _NOWHERE,
        refused_by: Mapping[str, str] = _NOBODY,
    ) -> Decision:
        """The same with every refusal, for plans; ``refused_by`` has what peers said that would not take this job."""
        candidates = [
            Candidate(
                peer=peer,
                services=self._services(peer),
                assigned=assigned.get(peer.peer_id, 0),
                near=near.get(peer.peer_id, 0),
                turn=self._turns.get(peer.peer_id, 0),
                refused=refused_by.get(peer.peer_id, ""),
            )
            for peer in self._peers.peers()
            if peer.peer_id not in excluded
        ]
        return place(need_of(job, edges), candidates)

    def fingerprint(self) -> object:
        """Changes when a decision may."""
        return tuple(
            (
                peer.peer_id,
                peer.name,
                peer.hostname,
                peer.status,
                peer.catalog_digest,
                peer.roles,
                peer.labels,
                peer.groups,
                peer.location.region,
                peer.platform,
                peer.peerd_version,
                peer.isolation,
                peer.hardware.SerializeToString(deterministic=True),
                peer.grants,
                # Load changes with every probe; only what a job waits for is looked at.
                tuple(where.holds(peer) for where in self._awaited.values()),
            )
            for peer in self._peers.peers()
        )

    def _mute(self, wanted: str) -> list[str]:
        """Members whose advert is not here, as after a damaged row, if one of them may have the name looked for."""
        if any(wanted == peer.name or peer.peer_id.startswith(wanted) for peer in self._peers.peers()):
            return []
        return [peer.peer_id for peer in self._peers.peers() if not peer.external and not peer.peerd_version]

    def _await(self, where: str) -> None:
        """A job waits until a peer is as this says. The oldest are dropped: that costs a look, and loses none."""
        if where and where not in self._awaited:
            self._awaited[where] = parse_expression(where)
            if len(self._awaited) > _MAX_AWAITED:
                del self._awaited[next(iter(self._awaited))]

    def _services(self, peer: PeerView) -> tuple[catalog_pb2.Service, ...] | None:
        known = self._catalogs.get(peer.peer_id)
        return known.services if known is not None else None

    def _stale(self) -> list[PeerView]:
        peers = self._peers.peers()
        return [peer for peer in peers if peer.status.present and not peer.external and not self._is_fresh(peer)]

    def _is_fresh(self, peer: PeerView) -> bool:
        known = self._catalogs.get(peer.peer_id)
        if known is None or known.digest != peer.catalog_digest:
            return False
        kept = FRESH_SECONDS if known.services is not None else SILENT_SECONDS
        return self._clock.monotonic() - known.asked_at < kept

    async def _ask(self, peer: PeerView) -> None:
        try:
            services, digest = await self._list(peer.peer_id)
        except PeerdError:
            services, digest = None, peer.catalog_digest
        self._catalogs[peer.peer_id] = _Known(digest=digest, asked_at=self._clock.monotonic(), services=services)

    async def _list(self, peer_id: PeerId) -> tuple[tuple[catalog_pb2.Service, ...], bytes]:
        stub: catalog_pb2_grpc.CatalogServiceAsyncStub = catalog_pb2_grpc.CatalogServiceStub(
            self._channels.channel(peer_id)
        )
        request = catalog_pb2.ListServicesRequest(page_size=_PAGE_SIZE)
        services: list[catalog_pb2.Service] = []
        for _ in range(_MAX_PAGES):
            with remote_errors(peer_id):
                answer = await stub.ListServices(request, timeout=ASK_SECONDS)
            services.extend(answer.services)
            if not answer.next_page_token:
                break
            request.page_token = answer.next_page_token
        return tuple(services), answer.catalog_digest


def _waited_for(waits: Sequence[Refused]) -> str:
    """The first few, each with what is in the way: ``waits for beta (offline) or gamma (maintenance)``."""
    names = [f"{refused.peer_name or refused.peer_id} ({_STATES.get(refused.reason, 'busy')})" for refused in waits[:3]]
    if len(waits) > 3:
        names.append(f"one of {len(waits) - 3} more")
    first = waits[0]
    why = f": {first.message}" if first.reason not in _STATES else ""
    return f"waits for {' or '.join(names)}{why}"


_STATES = {OFFLINE: "offline", Reason.MAINTENANCE.text: "in maintenance"}
