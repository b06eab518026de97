"""Keeper: one task for each port that may be opened; it is discovery first and the monitor after, never both.

What is written follows what is heard, and each step holds a lease of the port in the store; the port itself is opened
for each of the two anew. Whatever ends the task - an unplug, a kill, an order - the next look at the port starts with
discovery, so that the truth on the wire decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from peerd.clock import Clock
from peerd.devices import repository
from peerd.devices.console import Console
from peerd.devices.dump import Configuration
from peerd.devices.events import Advanced, Described, Event, Finished, Outcome, Rebooted, Recognised, Reported
from peerd.devices.handshake import Handshake
from peerd.devices.inflow import Inflow
from peerd.devices.lines import LineAssembler
from peerd.devices.model import Device, Miner, Port, Stage, Status
from peerd.devices.plugging import learn, plug
from peerd.devices.serial_line import Opens
from peerd.devices.watching import Watcher
from peerd.errors import PeerdError, Reason
from peerd.failpoints import failpoint
from peerd.loops import Backoff, sleep_or_wake
from peerd.store import Store, Tx

DISCOVERY, MONITOR = "discovery", "monitor"
_FIRST_RETRY, _LONGEST_RETRY = 20.0, 600.0
"""Seconds: a miner that is no good now is listened to again and again."""
_A_MINER = frozenset({Outcome.STALLED, Outcome.REFUSED, Outcome.PORTAL})
"""It is a miner, with or without a name: it may be set up meanwhile, and boot without being plugged in anew."""
_FIRST_REOPEN, _LONGEST_REOPEN = 1.0, 60.0
"""Seconds, for a port that is busy or fails."""
_OF_THE_PORT = frozenset({Reason.DEVICE_BUSY, Reason.DEVICE_GONE, Reason.ILLEGAL_TRANSITION})


@dataclass(frozen=True, kw_only=True)
class Around:
    """What keepers are given."""

    store: Store
    clock: Clock
    open_line: Opens
    others: Callable[[Port], Sequence[Port]]
    """What else is plugged in."""
    trust_ports: bool
    reset_on_open: bool
    changed: Callable[[], None]
    """Something was written that others may want to hear of."""
    take_over: Callable[[Port, Sequence[Port]], Awaitable[bool]]
    """Make a miner of another peer ours, if that is what is plugged in; whether to try again later."""


class Keeper:
    """Of one port, from plug to unplug."""

    def __init__(self, port: Port, around: Around) -> None:
        self.port = port
        self.console = Console()
        self.watcher: Watcher | None = None
        """While it is the monitor."""
        self._around = around
        self._wake = asyncio.Event()
        self._reset = False
        self._last: Finished | None = None
        """How it ended the last time that it was listened to."""
        self.owner = ""
        """Who has the port now: discovery, monitor, or nobody."""
        self.reads = False
        """Whether the port is open."""
        self._moves = False
        """Whether it seems to belong to a peer that did not answer."""
        self._said = Configuration()
        """What it said of its settings since it was plugged in: it says them when it boots, and then no more."""

    def look_again(self, *, reset: bool = False) -> None:
        """An operator changed something: begin with discovery, whatever goes on."""
        self._reset = self._reset or reset
        self._wake.set()

    async def run(self) -> None:
        """Until it is cancelled, because it was unplugged or the daemon ends."""
        retry, reopen = Backoff(_FIRST_RETRY, _LONGEST_RETRY), Backoff(_FIRST_REOPEN, _LONGEST_REOPEN)
        try:
            while True:
                self._wake.clear()
                what = await self._around.store.write(self._plug)
                self._around.changed()
                if isinstance(what, Device) and what.ignored:
                    await self._wake.wait()
                    continue
                ended = await self._guarded(self._discover)
                if ended is not None:
                    reopen.reset()
                if ended is Outcome.MINING:
                    retry.reset()
                    ended = await self._guarded(self._watch)
                self.owner = ""
                if self._wake.is_set():
                    continue
                if ended is None:  # if it was unplugged, this ends here
                    await sleep_or_wake(self._around.clock, reopen.next(), self._wake)
                elif self._moves or ended in _A_MINER or await self._has_name():
                    await sleep_or_wake(self._around.clock, retry.next(), self._wake)
                else:
                    await self._wake.wait()
        finally:
            self.console.end()

    async def _guarded(self, step: Callable[[], Awaitable[Outcome]]) -> Outcome | None:
        """A step that fails when the port does: that is written, and nobody owns it any more; None."""
        try:
            return await step()
        except PeerdError as error:
            if error.reason not in _OF_THE_PORT:
                raise
            message, next_action = error.message, error.next_action
            await self._around.store.write(lambda tx: self._failed(tx, message, next_action))
            self._around.changed()
            return None

    # -- Discovery

    async def _discover(self) -> Outcome:
        """Listen until it is known what it is, or an operator changes something.

        Returns MINING for what is the monitor's now, one of the others for what is nobody's.
        """
        store, clock = self._around.store, self._around.clock
        # Not one that somebody may be setting up at this moment.
        reset = self._reset or (self._around.reset_on_open and not self._waits_to_be_set_up)
        self._reset = False
        self.owner = DISCOVERY
        if not await store.write(self._begin):
            return Outcome.NOT_A_MINER
        failpoint("devices.initializing.after_commit")
        self._around.changed()
        handshake, shown, inflow = Handshake(clock.monotonic()), LineAssembler(torn=True), Inflow(clock)
        async with self._around.open_line(self.port.path, inflow.receive, reset=reset) as gone:
            self.reads = True
            deadline = handshake.feed(b"", clock.monotonic())[1]
            while not handshake.finished and not self._wake.is_set():
                data = await inflow.next(gone, deadline, self._wake)
                if not data and gone.done():
                    raise PeerdError(Reason.DEVICE_GONE, f"{self.port.path}: {gone.result()}")
                for line in shown.feed(data):
                    self.console.add(line)
                if inflow.lost():
                    shown.tear()
                events, deadline = handshake.feed(data, clock.monotonic())
                events = [self._news(event) for event in events]
                if events:
                    await store.write(lambda tx, events=events: self._heard(tx, events))  # type: ignore[misc]
                    self._around.changed()
                    for event in events:
                        if isinstance(event, Advanced):
                            failpoint(f"devices.{event.stage.name.lower()}.after_commit")
        # Closed, and only then anybody else's.
        self.owner, self.reads = "", False
        if not handshake.finished:
            return Outcome.NOT_A_MINER
        self._moves = await self._around.take_over(self.port, self._around.others(self.port))
        return await store.write(self._judged)

    @property
    def _waits_to_be_set_up(self) -> bool:
        return self._last is not None and self._last.outcome is Outcome.PORTAL

    def _news(self, event: Event) -> Event:
        """What an event means after what is known: it may be remembered, or stand for what was there before."""
        match event:
            case Described():
                self._said = self._said.merged(event.configuration)
            case Finished(outcome=Outcome.SILENT) if self._last is not None and self._waits_to_be_set_up:
                return self._last  # it says so only when it boots; that it says nothing since is no news
            case Finished():
                self._last = event
        return event

    def _begin(self, tx: Tx) -> bool:
        """False when it is to be left alone: somebody said so since it was plugged in."""
        what = repository.occupant(tx, self.port.path)
        if isinstance(what, Device) and what.ignored:
            return False
        repository.lease(tx, self.port.path, DISCOVERY)
        if what is not None:
            said: dict[str, object] = {"outcome": ""}
            if what.outcome != Outcome.MINING.value:  # why it did not mine then: it is looked at anew
                said |= {"reason": "", "next_action": ""}
            repository.set_status(tx, what, Status.INITIALIZING, Stage.BOOTING.value, said)
        failpoint("devices.initializing.before_commit")
        return True

    def _heard(self, tx: Tx, events: Sequence[Event]) -> None:
        for event in events:
            what = repository.occupant(tx, self.port.path)
            if what is None or (isinstance(what, Device) and what.ignored):
                return
            match event:
                case Described():
                    learn(
                        tx,
                        self.port,
                        self._around.others(self.port),
                        event.configuration,
                        event.mac,
                        trust_ports=self._around.trust_ports,
                    )
                case Advanced():
                    repository.set_status(tx, what, Status.INITIALIZING, event.stage.value, {})
                case Rebooted():
                    repository.set_status(tx, what, Status.INITIALIZING, Stage.BOOTING.value, {})
                    if isinstance(what, Miner):
                        repository.note(tx, miner_id=what.miner_id, event="rebooted", detail="while it was looked at")
                case Finished():
                    kept = {"reason": what.reason, "next_action": what.next_action} if not event.message else {}
                    columns = {"reason": event.message, "next_action": event.next_action, **kept}
                    columns["outcome"] = event.outcome.value
                    repository.set_status(tx, what, Status.INITIALIZING, what.state, columns)
                case Recognised() | Reported():
                    pass

    def _judged(self, tx: Tx) -> Outcome:
        """Discovery is done with the port: a miner that mines is the monitor's, everything else is nobody's."""
        repository.release(tx, self.port.path)
        what = repository.occupant(tx, self.port.path)
        if what is None or not what.outcome:
            return Outcome.NOT_A_MINER
        outcome = Outcome(what.outcome)
        if outcome is Outcome.MINING and isinstance(what, Miner):
            # Active and the monitor's lease are one transaction; see _watch.
            repository.lease(tx, self.port.path, MONITOR)
            columns: dict[str, object] = {"reason": "", "next_action": ""}
            repository.set_status(tx, what, Status.ACTIVE, Stage.MINING.value, columns)
            return outcome
        said: dict[str, object] = {}
        if outcome is Outcome.MINING and not what.reason:
            said = {
                "reason": "it mines and has no name",
                "next_action": f"peerctl devices onboard {_id(what)} --name NAME --currency BTC",
            }
        repository.set_status(tx, what, Status.INACTIVE, what.state, said)
        return Outcome.NOT_A_MINER if outcome is Outcome.MINING else outcome

    # -- The monitor

    async def _watch(self) -> Outcome:
        """Read along while it is Active, until an operator changes something. Raises DEVICE_GONE."""
        store, clock = self._around.store, self._around.clock
        failpoint("devices.active.after_commit")
        self.owner = MONITOR
        miner = await store.write(lambda tx: repository.occupant(tx, self.port.path))
        if not isinstance(miner, Miner) or miner.status is not Status.ACTIVE:
            return Outcome.MINING  # somebody forgot it meanwhile, and woke us
        self._around.changed()
        watcher = Watcher(clock.monotonic(), pool=miner.pool_url, wallet=miner.wallet, configuration=self._said)
        lines, inflow = LineAssembler(torn=True), Inflow(clock)
        try:
            async with self._around.open_line(self.port.path, inflow.receive, reset=False) as gone:
                self.watcher = watcher
                while not self._wake.is_set():
                    data = await inflow.next(gone, None, self._wake)
                    if not data and gone.done():
                        raise PeerdError(Reason.DEVICE_GONE, f"{self.port.path}: {gone.result()}")
                    for line in lines.feed(data):
                        self.console.add(line)
                        watcher.line(line, clock.monotonic())
                    if inflow.lost():
                        lines.tear()
        finally:
            self.watcher, self._said = None, watcher.configuration
        await store.write(lambda tx: repository.release(tx, self.port.path))
        return Outcome.MINING

    # -- Both

    def _plug(self, tx: Tx) -> Device | Miner:
        return plug(tx, self.port, self._around.others(self.port), trust_ports=self._around.trust_ports)

    def _failed(self, tx: Tx, message: str, next_action: str) -> None:
        repository.release(tx, self.port.path)
        what = repository.occupant(tx, self.port.path)
        if what is not None:
            columns: dict[str, object] = {"reason": message, "next_action": next_action}
            repository.set_status(tx, what, Status.INACTIVE, what.state, columns)

    async def _has_name(self) -> bool:
        """Whether an operator said that it is a miner, however little it sounds like one now."""
        what = await self._around.store.write(lambda tx: repository.occupant(tx, self.port.path))
        return isinstance(what, Miner)


def _id(what: Device | Miner) -> str:
    return what.name if isinstance(what, Miner) else str(what.device_id)
