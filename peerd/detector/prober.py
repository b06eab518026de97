"""Runs the machine over the channels that peers have anyway: sends what it says, tells it what comes back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

import structlog

from peerd.clock import Clock, Millis
from peerd.detector.contact import Contact, Measurement, believed
from peerd.detector.machine import Action, AskOther, Compare, Detector, Ping
from peerd.detector.model import State, Timing, Transition, Update
from peerd.detector.wire import SignedVoice, to_entries, to_messages, to_updates
from peerd.errors import PeerdError, Reason
from peerd.identity.key import Identity
from peerd.identity.peer_id import PeerId
from peerd.mesh.mesh import Mesh
from peerd.mesh.model import from_timestamp
from peerd.rpc.channels import Channels
from peerd.rpc.status import remote_errors
from peerd.v1 import detector_pb2, detector_pb2_grpc
from peerd.v1.registry_pb2 import Sample

_log = structlog.get_logger(__name__)

RELAY_SHARE = 0.8
"""A relay says after this share of the time it was given that it had no answer either."""
_COMPARE_SECONDS = 10.0
_AGAIN_SECONDS = 0.1
_DUPLICATE_SECONDS = 600.0
"""How long a twin is reported after it last spoke."""


class Prober:
    """One daemon's failure detector, running."""

    def __init__(
        self,
        mesh: Mesh,
        identity: Identity,
        channels: Channels,
        clock: Clock,
        *,
        incarnation: int,
        timing: Timing | None = None,
        own_sample: Callable[[], Sample] = Sample,
    ) -> None:
        self._mesh = mesh
        self._channels = channels
        self._clock = clock
        self._own_sample = own_sample
        rng = random.SystemRandom()
        voice = SignedVoice(identity, rng.getrandbits(63) | 1)
        self.machine = Detector(
            identity.peer_id,
            voice,
            timing or Timing(),
            random.Random(rng.random()),  # noqa: S311 - turns, not secrets
            incarnation=incarnation,
            now=clock.monotonic(),
        )
        self._started = clock.now()
        self._contacts: dict[PeerId, Contact] = {}
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._on_change: list[Callable[[Transition], None]] = []
        self._on_measurement: list[Callable[[Measurement], None]] = []
        mesh.on_change(lambda _: self._follow_members())

    def on_change(self, callback: Callable[[Transition], None]) -> None:
        """Call this whenever a peer's state changes in our eyes."""
        self._on_change.append(callback)

    def on_measurement(self, callback: Callable[[Measurement], None]) -> None:
        """Call this after each probe of a peer."""
        self._on_measurement.append(callback)

    # -- What is known

    def contact(self, peer_id: PeerId) -> Contact:
        """Where we stand with a peer."""
        contact = self._contacts.get(peer_id) or Contact(since=self._started)
        member = self.machine.members.get(peer_id)
        twin = member.duplicate_at if member is not None else None
        if peer_id == self.machine.self_id:
            twin = self.machine.duplicate_at
        recent = twin is not None and self._clock.monotonic() - twin < _DUPLICATE_SECONDS
        return replace(contact, duplicate=recent)

    @property
    def local_health(self) -> int:
        """0 is well; above that this machine doubts itself."""
        return self.machine.health

    # -- Running

    async def run(self) -> None:
        """Probe until cancelled."""
        self._follow_members()
        self._perform(self.machine.announce())
        while True:
            now = self._clock.monotonic()
            self._perform(self.machine.poll(now))
            self._settle()
            self._wake.clear()
            pause = self.machine.next_due() - self._clock.monotonic()
            if pause > 0:
                await self._sleep(pause)
            else:
                await asyncio.sleep(0)

    async def leave(self, seconds: float) -> None:
        """Tell others that this peer goes, within so many seconds."""
        for task in list(self._tasks):
            task.cancel()
        try:
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(self._take_leave(ping, seconds) for ping in self.machine.leave()))
        except TimeoutError:
            _log.info("detector.leaving_unheard")

    def retime(self, timing: Timing) -> None:
        """Go on with another rhythm."""
        self.machine.retime(timing)
        self._wake.set()

    def hurry(self, peer_id: PeerId) -> None:
        """Something shows that a peer may be back."""
        self.machine.hurry(peer_id, self._clock.monotonic())
        self._wake.set()

    # -- What others ask

    def pinged(self, sender: PeerId, request: detector_pb2.PingRequest) -> detector_pb2.PingResponse:
        """Answer a ping."""
        updates = to_updates(request.updates, self.machine, source=sender)
        said = self.machine.pinged(sender, request.known_incarnation, updates, self._clock.monotonic())
        if request.HasField("sample"):
            self._seen(sender, sample=believed(request.sample))
        self._settle()
        response = detector_pb2.PingResponse(
            updates=to_messages(said), view_digest=self.machine.view_digest, sample=self._own_sample()
        )
        response.now.FromMilliseconds(self._clock.now())
        return response

    async def ping_for(
        self, sender: PeerId, request: detector_pb2.PingForRequest, seconds: float
    ) -> detector_pb2.PingForResponse:
        """Try a peer in another's place. Raises NOT_FOUND for one that is not a member."""
        target = PeerId(request.peer_id)
        if self._mesh.grants(target) is None:
            raise PeerdError(Reason.NOT_FOUND, f"{target[:60]} is not a member of this mesh")
        about = to_updates(request.updates, self.machine, source=sender)
        try:
            answer, said = await self._call_ping(target, 0, about, seconds * RELAY_SHARE)
        except PeerdError:
            return detector_pb2.PingForResponse(reached=False)
        self.machine.take_in(said, self._clock.monotonic())
        self._settle()
        own = [message for message in answer.updates if message.alive.signatures[0].peer_id == target]
        return detector_pb2.PingForResponse(reached=True, updates=own)

    def entries(self, groups: Sequence[int]) -> detector_pb2.CompareViewsResponse:
        """What we hold where the digests differ. Raises INVALID_ARGUMENT."""
        if len(groups) != len(self.machine.groups):
            raise PeerdError(Reason.INVALID_ARGUMENT, f"{len(groups)} groups; there are {len(self.machine.groups)}")
        differing, entries = self.machine.entries(groups)
        return detector_pb2.CompareViewsResponse(
            differing=differing,
            entries=[
                detector_pb2.ViewEntry(peer_id=entry.peer_id, incarnation=entry.incarnation, present=entry.present)
                for entry in entries
            ],
        )

    def exchanged(
        self, sender: PeerId, request: detector_pb2.ExchangeUpdatesRequest
    ) -> detector_pb2.ExchangeUpdatesResponse:
        """Take what we lack, give what the other lacks."""
        self.machine.take_in(to_updates(request.updates, self.machine, source=sender), self._clock.monotonic())
        self._settle()
        known = self.machine.known(PeerId(peer_id) for peer_id in request.wanted)
        return detector_pb2.ExchangeUpdatesResponse(updates=to_messages(known))

    # -- What the machine wants

    def _perform(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Ping):
                self._start(self._ping(action))
            elif isinstance(action, AskOther):
                self._start(self._ask(action))
            elif isinstance(action, Compare):
                self._start(self._compare(action.target))
        self._wake.set()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("detector.step_crashed", exc_info=error)

    async def _ping(self, ping: Ping) -> None:
        at, started = self._clock.now(), self._clock.monotonic()
        try:
            answer, said = await self._call_ping(ping.target, ping.known_incarnation, ping.updates, ping.timeout)
        except PeerdError:
            if self.machine.state(ping.target).present:
                self._measured(Measurement(peer_id=ping.target, at=at, latency_ms=None))
            self._perform(self.machine.unanswered(ping.number))
            return
        seconds = self._clock.monotonic() - started
        offset = from_timestamp(answer.now) - (at + seconds * 500)
        sample = believed(answer.sample)
        self._seen(ping.target, sample=sample)
        measured = replace(self._contacts[ping.target], latency_ms=seconds * 1000, clock_offset_ms=offset)
        self._contacts[ping.target] = measured
        self._measured(
            Measurement(
                peer_id=ping.target,
                at=at,
                latency_ms=seconds * 1000,
                clock_offset_ms=offset,
                sample=sample,
            )
        )
        now = self._clock.monotonic()
        self._perform(self.machine.answered(ping.number, ping.target, said, answer.view_digest, now))
        self._settle()

    async def _take_leave(self, ping: Ping, seconds: float) -> None:
        """Until it is heard: a word that is lost here would make a failure of an orderly end."""
        while True:
            try:
                await self._call_ping(ping.target, ping.known_incarnation, ping.updates, seconds)
            except PeerdError:
                await self._clock.sleep(_AGAIN_SECONDS)
            else:
                return

    async def _call_ping(
        self, target: PeerId, known: int, updates: Sequence[Update], seconds: float
    ) -> tuple[detector_pb2.PingResponse, list[Update]]:
        request = detector_pb2.PingRequest(
            updates=to_messages(updates), known_incarnation=known, sample=self._own_sample()
        )
        with remote_errors(target):
            answer = await self._stub(target).Ping(request, timeout=seconds)
        return answer, to_updates(answer.updates, self.machine, source=target)

    async def _ask(self, ask: AskOther) -> None:
        request = detector_pb2.PingForRequest(peer_id=ask.target, updates=to_messages(ask.updates))
        try:
            with remote_errors(ask.relay):
                answer = await self._stub(ask.relay).PingFor(request, timeout=ask.timeout)
        except PeerdError:
            return  # its silence is counted when the round ends
        said = to_updates(answer.updates, self.machine, source=ask.relay)
        self.machine.relayed(ask.number, reached=answer.reached, updates=said, now=self._clock.monotonic())
        self._settle()

    async def _compare(self, target: PeerId) -> None:
        try:
            with remote_errors(target):
                stub = self._stub(target)
                request = detector_pb2.CompareViewsRequest(groups=self.machine.groups)
                theirs = await stub.CompareViews(request, timeout=_COMPARE_SECONDS)
                give, want = self.machine.compared(
                    theirs.differing, to_entries(theirs.entries), self._clock.monotonic()
                )
                if not give and not want:
                    return
                exchange = detector_pb2.ExchangeUpdatesRequest(updates=to_messages(give), wanted=want)
                told = await stub.ExchangeUpdates(exchange, timeout=_COMPARE_SECONDS)
        except PeerdError as error:
            _log.debug("detector.comparison_failed", peer=target, reason=error.reason.text)
            return
        self.machine.take_in(to_updates(told.updates, self.machine, source=target), self._clock.monotonic())
        self._settle()

    def _stub(self, peer_id: PeerId) -> detector_pb2_grpc.DetectorServiceAsyncStub:
        return detector_pb2_grpc.DetectorServiceStub(self._channels.probe_channel(peer_id))

    # -- What follows

    def _seen(self, peer_id: PeerId, *, sample: Sample) -> None:
        now = self._clock.now()
        contact = self._contacts.get(peer_id) or Contact(since=self._started)
        self._contacts[peer_id] = replace(contact, last_seen=now, sample=sample, sample_at=now)

    def _measured(self, measurement: Measurement) -> None:
        for callback in self._on_measurement:
            callback(measurement)

    def _settle(self) -> None:
        """Tell of all changes; the machine may have more to do now."""
        for change in self.machine.take_transitions():
            contact = self._contacts.get(change.peer_id) or Contact(since=self._started)
            now: Millis = self._clock.now()
            # From suspect back to alive nothing had really changed.
            since = contact.since if change.before is State.SUSPECT and change.after is State.ALIVE else now
            self._contacts[change.peer_id] = replace(contact, state=change.after, since=since, accusers=change.accusers)
            if change.after.present and not change.before.present:
                self._channels.redial(change.peer_id)
            _log.info(
                "detector.changed",
                peer=change.peer_id,
                before=change.before.value,
                after=change.after.value,
                accusers=[accuser[:12] for accuser in change.accusers],
            )
            for callback in self._on_change:
                callback(change)
        self._wake.set()

    def _follow_members(self) -> None:
        self.machine.set_members(self._mesh.others())
        for peer_id in set(self._contacts) - set(self.machine.members):
            del self._contacts[peer_id]
        self._wake.set()

    async def _sleep(self, seconds: float) -> None:
        sleeping = asyncio.ensure_future(self._clock.sleep(seconds))
        waking = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait({sleeping, waking}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            waking.cancel()
