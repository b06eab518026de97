"""Devices: looks at what is plugged in and keeps a keeper for each port that may be opened; what surfaces ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from peerd import metrics
from peerd.clock import DAY_MS, Clock
from peerd.config import DevicesConfig
from peerd.devices import repository, telemetry
from peerd.devices.health import Health, Level
from peerd.devices.keeper import DISCOVERY, Around, Keeper
from peerd.devices.model import Device, Live, Miner, Port, Status
from peerd.devices.moving import Moves
from peerd.devices.serial_line import Opens, open_line
from peerd.devices.watch import Simulated, Udev, matches
from peerd.errors import PeerdError
from peerd.loops import run_every
from peerd.store import Store, Tx

_log = structlog.get_logger(__name__)

_LOOK_SECONDS = 5.0
"""Beside events, which come at once: whatever was missed heals."""
_LOOK_SIMULATED_SECONDS = 0.25
"""Simulators make no events."""
_SURVEY_SECONDS = 2.0
_SETTLE_SECONDS = 5.0
_RECORD_SECONDS = 20.0


class Devices:
    """Those of this peer."""

    def __init__(
        self, config: DevicesConfig, store: Store, clock: Clock, *, opens: Opens = open_line, moves: Moves | None = None
    ) -> None:
        self._config = config
        self._store = store
        self._clock = clock
        self._moves = moves
        self._udev = Udev()
        self._simulated = Simulated(Path(config.simulated)) if config.simulated else None
        self._keepers: dict[str, tuple[Keeper, asyncio.Task[None]]] = {}
        self._ports: list[Port] = []
        self._wake = asyncio.Event()
        self._on_change: list[Callable[[], None]] = []
        self._said_health: dict[int, str] = {}
        self.started = False
        """Whether it has looked once."""
        self._around = Around(
            store=store,
            clock=clock,
            open_line=opens,
            others=lambda port: [other for other in self.watched() if other.path != port.path],
            trust_ports=config.trust_ports,
            reset_on_open=config.reset_on_open,
            changed=self.changed,
            take_over=self._take_over,
        )

    @property
    def trouble(self) -> str:
        """Why devices cannot be seen; empty when they can."""
        return self._udev.trouble

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call this on the event loop when something was written."""
        self._on_change.append(callback)

    async def forget_old(self, now: int) -> None:
        """Make hours of minutes that are old, and remove what is older than it is to be kept."""

        def write(tx: Tx) -> None:
            telemetry.down_sample(tx, self._config, now)
            repository.forget_events(tx)
            repository.forget_unseen(tx, before=now - round(self._config.history_days * DAY_MS))

        await self._store.write(write)

    # -- Life

    async def run(self) -> None:
        """Until the daemon ends."""
        self._udev.start(self._wake.set)
        seconds = _LOOK_SIMULATED_SECONDS if self._simulated is not None else _LOOK_SECONDS
        try:
            async with asyncio.TaskGroup() as tasks:
                look = lambda: self._look(tasks)  # noqa: E731
                for step, pause, name, wake in (
                    (look, seconds, "devices", self._wake),
                    (self._survey, _SURVEY_SECONDS, "health of miners", None),
                    (self._settle, _SETTLE_SECONDS, "miners handed over", None),
                    (self._record, _RECORD_SECONDS, "readings of miners", None),
                ):
                    tasks.create_task(run_every(step, seconds=pause, clock=self._clock, name=name, wake=wake))
        finally:
            self._udev.stop()

    async def _look(self, tasks: asyncio.TaskGroup) -> None:
        """Bring the keepers in line with what is plugged in."""
        if not self.started:  # a store that refuses is asked again at the next look
            await self._store.write(repository.unplug_all)
        ports = {port.path: port for port in await asyncio.to_thread(self._present)}
        self._ports, self.started = list(ports.values()), True
        wanted = {port.path: port for port in self.watched()}
        for path, (keeper, task) in list(self._keepers.items()):
            present = wanted.get(path)
            if present is None or present.token != keeper.port.token or task.done():
                await self._end(path)
        for path, port in wanted.items():
            if path not in self._keepers:
                keeper = Keeper(port, self._around)
                self._keepers[path] = (keeper, tasks.create_task(self._keep(keeper)))

    def _present(self) -> list[Port]:
        return [*self._udev.present(), *(self._simulated.present() if self._simulated is not None else ())]

    async def _end(self, path: str) -> None:
        """It is unplugged: its port is closed, then nobody owns it."""
        _, task = self._keepers[path]
        task.cancel()
        await asyncio.wait({task})
        await self._store.write(lambda tx: repository.unplug(tx, path))
        del self._keepers[path]  # not before: what the store refuses is written at the next look
        self.changed()

    async def _keep(self, keeper: Keeper) -> None:
        try:
            await keeper.run()
        except PeerdError as error:  # the store refuses; the next look begins anew
            _log.warning("devices.keeper_ended", path=keeper.port.path, message=error.message)
        except Exception:  # noqa: BLE001 - one port must not end the daemon; the traceback goes to the log
            _log.exception("devices.keeper_crashed", path=keeper.port.path)

    # -- What is known

    def watched(self) -> list[Port]:
        """Ports that may be opened."""
        return [port for port in self._ports if self._may(port)]

    def unwatched(self) -> list[Port]:
        """Ports that are never opened, since no rule is for them."""
        return [port for port in self._ports if not self._may(port)]

    def _may(self, port: Port) -> bool:
        return port.path.startswith("/dev/pts/") or matches(port, self._config.watch)

    def keeper(self, path: str) -> Keeper | None:
        """Of what is plugged in there."""
        found = self._keepers.get(path)
        return None if found is None else found[0]

    def live(self, miner: Miner) -> Live | None:
        """What the monitor knows of it now; None while it does not watch it."""
        keeper = self.keeper(miner.port.path)
        # Once: this is asked in transactions, too, on the thread of the writer, and the watcher may end at any moment.
        watcher = None if keeper is None else keeper.watcher
        if watcher is None:
            return None
        now = self._clock.monotonic()
        return Live(
            health=watcher.health(now),
            reading=watcher.reading_at(now),
            pool=watcher.configuration.pool_url,
            wallet=watcher.configuration.wallet,
        )

    async def known(self) -> tuple[list[Device], list[Miner]]:
        """Everything here."""
        return await repository.all_of(self._store)

    # -- What operators order, after it is durable

    def named(self, path: str) -> None:
        """What is plugged in there has a name now: unless discovery listens to it anyway, it does so again."""
        keeper = self.keeper(path)
        if keeper is not None and keeper.owner != DISCOVERY:
            keeper.look_again()
        self.changed()

    def look_again(self, path: str, *, reset: bool = False) -> None:
        """Begin with discovery, whatever goes on there."""
        keeper = self.keeper(path)
        if keeper is not None:
            keeper.look_again(reset=reset)
        self.changed()

    def expect(self, miner: Miner) -> None:
        """Its pool and wallet are others from now on."""
        keeper = self.keeper(miner.port.path)
        if keeper is not None and keeper.watcher is not None:
            keeper.watcher.expected_pool, keeper.watcher.expected_wallet = miner.pool_url, miner.wallet
        self.changed()

    async def _take_over(self, port: Port, others: Sequence[Port]) -> bool:
        return self._moves is not None and await self._moves.take_over(port, others)

    def changed(self) -> None:
        """Something was written."""
        for callback in self._on_change:
            callback()

    # -- By and by

    async def _survey(self) -> None:
        """Write down when a miner's health changes."""
        changed: list[tuple[int, Health]] = []
        devices, miners = await self.known()
        lives = {miner.name: self.live(miner) for miner in miners}
        _measure(devices, miners, [live for live in lives.values() if live is not None])
        said = self._said_health
        said = {each.miner_id: said[each.miner_id] for each in miners if each.miner_id in said}
        for miner in miners:
            live = lives[miner.name]
            if live is not None and said.get(miner.miner_id) != live.health.reason:
                said[miner.miner_id] = live.health.reason
                changed.append((miner.miner_id, live.health))
        if not changed:
            self._said_health = said
            return

        def write(tx: Tx) -> None:
            for miner_id, health in changed:
                if tx.one("SELECT 1 FROM miners WHERE id = ?", (miner_id,)) is not None:
                    detail = health.message or health.reason
                    repository.note(tx, miner_id=miner_id, event=f"health {health.reason}", detail=detail)

        await self._store.write(write)
        self._said_health = said  # not before: what the store refuses is written at the next look
        self.changed()

    async def _record(self) -> None:
        windows = {}
        for miner in await self._active():
            keeper = self.keeper(miner.port.path)
            if keeper is not None and keeper.watcher is not None:
                windows[miner.miner_id] = keeper.watcher.window()
        if windows:
            await self._store.write(lambda tx: telemetry.record_all(tx, windows, tx.now))
            self.changed()

    async def _settle(self) -> None:
        if self._moves is not None:
            await self._moves.forget_handed_over()

    async def _active(self) -> Sequence[Miner]:
        if not self._keepers:
            return ()
        _, miners = await repository.all_of(self._store)
        return [miner for miner in miners if miner.plugged]


def _measure(devices: Sequence[Device], miners: Sequence[Miner], lives: Sequence[Live]) -> None:
    for status in Status:
        metrics.miners.labels(status.value).set(sum(miner.status is status for miner in miners))
    metrics.miners_unwell.set(sum(live.health.level in (Level.BAD, Level.WARNING) for live in lives))
    metrics.miners_hash_rate.set(1000 * sum(live.reading.hash_rate_khs or 0.0 for live in lives))
    metrics.devices_unconfigured.set(sum(device.plugged for device in devices))
