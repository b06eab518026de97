"""How signed documents spread: pushed at once on change, and compared with other members ever after.

Anti-entropy over ``MeshService.Exchange``: each says which version of each document it holds, and gets what it lacks.
A topic knows how its documents are ordered and verified; nothing is believed because of who passed it on.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import structlog

from peerd.clock import Clock
from peerd.digest import digest
from peerd.errors import PeerdError
from peerd.failpoints import failpoint
from peerd.identity.peer_id import PeerId
from peerd.loops import run_every
from peerd.mesh.membership import Membership
from peerd.mesh.mesh import Mesh
from peerd.rpc.channels import Channels
from peerd.rpc.status import remote_errors
from peerd.v1 import mesh_pb2, mesh_pb2_grpc
from peerd.v1.signed_pb2 import Envelope

_log = structlog.get_logger(__name__)

MESSAGE_BYTES = 1024**2
"""Documents in one message; what does not fit comes with the next exchange."""
_PUSH_SECONDS = 5.0
_FANOUT = 3
"""How many random members a round compares with, and how many hear at once of what we were told."""
_PARALLEL = 64
"""Members that are down each hold a place for up to the deadline; the others must not wait for them."""


class Topic(Protocol):
    """One kind of document that spreads."""

    name: str

    def summary(self) -> list[mesh_pb2.DocumentVersion]:
        """What this peer holds."""
        ...

    def lacking(self, theirs: Sequence[mesh_pb2.DocumentVersion]) -> list[str]:
        """Keys of which the other holds something that we do not."""
        ...

    def newer(self, theirs: Sequence[mesh_pb2.DocumentVersion]) -> list[str]:
        """Keys of which we hold something that the other does not."""
        ...

    def documents(self, keys: Iterable[str]) -> Iterator[mesh_pb2.DocumentChain]:
        """Our documents of these keys."""
        ...

    async def apply(self, chains: Sequence[mesh_pb2.DocumentChain], source: str) -> Collection[str]:
        """Take in what holds and return its keys; the rest changes nothing."""
        ...


class MemberTopic:
    """Member records: chains, compared by the digest of all that is held of a subject."""

    name = "member"

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    def summary(self) -> list[mesh_pb2.DocumentVersion]:
        return list(member_summary(self._mesh.membership).versions)

    def lacking(self, theirs: Sequence[mesh_pb2.DocumentVersion]) -> list[str]:
        return self._different(theirs)

    def newer(self, theirs: Sequence[mesh_pb2.DocumentVersion]) -> list[str]:
        known = {version.key for version in theirs}
        return [*self._different(theirs, ours_only=True), *(set(_held(self._mesh.membership)) - known)]

    def documents(self, keys: Iterable[str]) -> Iterator[mesh_pb2.DocumentChain]:
        chains = self._mesh.membership.by_subject()
        for key in keys:
            for chain in chains.get(PeerId(key), []):
                envelopes = [Envelope.FromString(record.envelope) for record in chain]
                yield mesh_pb2.DocumentChain(topic=self.name, key=key, envelopes=envelopes)

    async def apply(self, chains: Sequence[mesh_pb2.DocumentChain], source: str) -> Collection[str]:
        return (await self._mesh.apply(chains, source=source)).changed

    def _different(self, theirs: Sequence[mesh_pb2.DocumentVersion], *, ours_only: bool = False) -> list[str]:
        """Both ends of a difference send: which of two chains stands, only their contents can tell."""
        held = _held(self._mesh.membership)
        return [
            version.key
            for version in theirs
            if held.get(PeerId(version.key), (0, b""))[1] != version.digest and (not ours_only or version.key in held)
        ]


def member_summary(membership: Membership) -> mesh_pb2.TopicSummary:
    """What a peer says that it holds of member records."""
    versions = [
        mesh_pb2.DocumentVersion(key=subject, version=version, digest=held)
        for subject, (version, held) in _held(membership).items()
    ]
    return mesh_pb2.TopicSummary(topic=MemberTopic.name, versions=versions)


def _held(membership: Membership) -> dict[PeerId, tuple[int, bytes]]:
    """Subject -> (version that counts, digest over the newest record of each of its chains)."""
    return {
        subject: (
            membership.current[subject].version if subject in membership.current else 0,
            digest(b"".join(sorted(chain[-1].digest for chain in chains))),
        )
        for subject, chains in membership.by_subject().items()
    }


class Gossip:
    """Exchanges documents with the other members."""

    def __init__(self, mesh: Mesh, channels: Channels, clock: Clock, *, seconds: float = 5.0) -> None:
        self._mesh = mesh
        self._channels = channels
        self._clock = clock
        self._seconds = seconds
        self._topics: dict[str, Topic] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._introduced = False
        self.register(MemberTopic(mesh))

    def register(self, topic: Topic) -> None:
        """Spread this topic too."""
        self._topics[topic.name] = topic

    async def run(self) -> None:
        """Compare with everybody once, then with a few again and again, until cancelled."""
        try:
            await run_every(self._round, seconds=self._seconds, clock=self._clock, name="gossip")
        finally:
            for task in self._tasks:
                task.cancel()

    def push(self, topic: str, keys: Collection[str]) -> None:
        """Bring these documents to all members now, in the background.

        A peer that was revoked is told too: nobody will let it in to ask.
        """
        revoked = (PeerId(key) for key in keys if topic == MemberTopic.name and self._mesh.is_revoked(PeerId(key)))
        self._push(topic, keys, {*self._mesh.others(), *revoked})

    async def exchange_with(self, peer_id: PeerId) -> None:
        """Compare everything with one peer. Raises PeerdError when it cannot be reached."""
        stub = mesh_pb2_grpc.MeshServiceStub(self._channels.channel(peer_id))
        with remote_errors(peer_id):
            roots = mesh_pb2.ExchangeRequest(roots=self._roots())
            differing = set((await stub.Exchange(roots, timeout=_PUSH_SECONDS)).differing)
        if not differing:
            return
        request = mesh_pb2.ExchangeRequest(summaries=[part for part in self._summaries() if part.topic in differing])
        with remote_errors(peer_id):
            answer = await stub.Exchange(request, timeout=_PUSH_SECONDS)
        await self.take_in(answer.documents, peer_id)
        wanted = self._documents({part.topic: [entry.key for entry in part.versions] for part in answer.wanted})
        for part in in_messages(wanted):
            with remote_errors(peer_id):
                await stub.Exchange(mesh_pb2.ExchangeRequest(documents=part, push=True), timeout=_PUSH_SECONDS)

    async def answer(self, request: mesh_pb2.ExchangeRequest, caller: PeerId) -> mesh_pb2.ExchangeResponse:
        """The other side of an exchange."""
        changed = await self.take_in(request.documents, caller)
        if request.push:
            self._pass_on(changed, caller)
            return mesh_pb2.ExchangeResponse()
        if request.roots:
            held = {part.topic: part.digest for part in self._roots()}
            differing = [part.topic for part in request.roots if held.get(part.topic, part.digest) != part.digest]
            return mesh_pb2.ExchangeResponse(differing=differing)
        theirs = {part.topic: part.versions for part in request.summaries}
        asked = {name: topic for name, topic in self._topics.items() if name in theirs}
        newer = {name: topic.newer(theirs[name]) for name, topic in asked.items()}
        documents = next(in_messages(self._documents(newer)), [])
        wanted = [
            mesh_pb2.TopicSummary(topic=name, versions=[mesh_pb2.DocumentVersion(key=key) for key in keys])
            for name, topic in asked.items()
            if (keys := topic.lacking(theirs[name]))
        ]
        return mesh_pb2.ExchangeResponse(documents=documents, wanted=wanted)

    async def take_in(self, chains: Sequence[mesh_pb2.DocumentChain], source: str) -> dict[str, Collection[str]]:
        """Hand documents to their topics: members first, for whether an advert counts hangs on them.

        Returns the keys that changed, by topic.
        """
        changed = {}
        for name, topic in self._topics.items():
            mine = [chain for chain in chains if chain.topic == name]
            if mine:
                changed[name] = await topic.apply(mine, source)
        return changed

    def documents_for_joiner(self, joiner: PeerId) -> list[mesh_pb2.DocumentChain]:
        """One message of everything: what makes the joiner a member comes first, what does not fit by gossip."""
        everything = {name: [entry.key for entry in topic.summary()] for name, topic in self._topics.items()}
        first: list[str] = [self._mesh.mesh_id, self._mesh.self_id, joiner]
        for keys in everything.values():
            keys.sort(key=lambda key: key not in first)
        return next(in_messages(self._documents(everything)), [])

    def _summaries(self) -> list[mesh_pb2.TopicSummary]:
        return [mesh_pb2.TopicSummary(topic=name, versions=topic.summary()) for name, topic in self._topics.items()]

    def _roots(self) -> list[mesh_pb2.TopicRoot]:
        """One digest for each topic; independent of the order in which its documents came."""
        return [mesh_pb2.TopicRoot(topic=part.topic, digest=_root(part.versions)) for part in self._summaries()]

    def _documents(self, keys: Mapping[str, Collection[str]]) -> Iterator[mesh_pb2.DocumentChain]:
        for name, wanted in keys.items():
            if name in self._topics:
                yield from self._topics[name].documents(wanted)

    async def _round(self) -> None:
        others = self._mesh.others()
        count = min(_FANOUT, len(others)) if self._introduced else len(others)
        self._introduced = True
        await self._exchange_with_all(random.sample(others, count))

    async def _exchange_with_all(self, peers: Iterable[PeerId]) -> None:
        gate = asyncio.Semaphore(_PARALLEL)

        async def one(peer_id: PeerId) -> None:
            async with gate:
                try:
                    await self.exchange_with(peer_id)
                except PeerdError as error:
                    _log.debug("gossip.exchange_failed", peer=peer_id, reason=error.reason.text)

        await asyncio.gather(*(one(peer_id) for peer_id in peers))

    def _pass_on(self, changed: dict[str, Collection[str]], source: PeerId) -> None:
        """Tell a few others what a push told us: whoever pushed may not reach them."""
        others = [peer_id for peer_id in self._mesh.others() if peer_id != source]
        for topic, keys in changed.items():
            self._push(topic, keys, random.sample(others, min(_FANOUT, len(others))))

    def _push(self, topic: str, keys: Collection[str], peers: Collection[PeerId]) -> None:
        chains = list(self._documents({topic: keys}))
        others = [peer_id for peer_id in peers if peer_id != self._mesh.self_id]
        if chains and others:
            task = asyncio.ensure_future(self._push_to_all(chains, others))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _push_to_all(self, chains: Sequence[mesh_pb2.DocumentChain], peers: Collection[PeerId]) -> None:
        gate = asyncio.Semaphore(_PARALLEL)
        failpoint("mesh.push.before_send")

        async def one(peer_id: PeerId) -> None:
            async with gate:
                try:
                    stub = mesh_pb2_grpc.MeshServiceStub(self._channels.channel(peer_id))
                    for part in in_messages(chains):
                        with remote_errors(peer_id):
                            request = mesh_pb2.ExchangeRequest(documents=part, push=True)
                            await stub.Exchange(request, timeout=_PUSH_SECONDS)
                    failpoint("mesh.push.after_send")
                except PeerdError as error:
                    _log.info("gossip.push_failed", peer=peer_id, reason=error.reason.text)

        await asyncio.gather(*(one(peer_id) for peer_id in peers))


def _root(versions: Iterable[mesh_pb2.DocumentVersion]) -> bytes:
    entries = sorted((entry.key, entry.version, entry.digest) for entry in versions)
    return digest(b"".join(b"%b\0%d\0%b" % (key.encode(), version, held) for key, version, held in entries))


def in_messages(chains: Iterable[mesh_pb2.DocumentChain]) -> Iterator[list[mesh_pb2.DocumentChain]]:
    """The chains in groups that fit a message each. A chain is never split; a longer one travels alone."""
    part: list[mesh_pb2.DocumentChain] = []
    size = 0
    for chain in chains:
        if part and size + chain.ByteSize() > MESSAGE_BYTES:
            yield part
            part, size = [], 0
        part.append(chain)
        size += chain.ByteSize()
    if part:
        yield part
