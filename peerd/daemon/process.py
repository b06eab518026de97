"""The daemon as a process: it holds the data directory, takes a restored store, and ends in order at a signal."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager

import structlog

from peerd.clock import SystemClock
from peerd.config import Config
from peerd.daemon.daemon import Daemon
from peerd.datadir import DataDir
from peerd.errors import PeerdError, Reason
from peerd.identity.key import load_identity
from peerd.loops import run_every
from peerd.store.restore import swap_staged

_log = structlog.get_logger(__name__)

_HELD_SECONDS = 5.0
_HELD_LOOK_SECONDS = 0.05
_KEPT_SECONDS = 30.0
"""Time that the steady clock may lose when the machine is started anew with the wall clock in the past."""


async def run_until_signalled(config: Config) -> bool:
    """Hold the data directory, run the daemon, end it in order at SIGTERM or SIGINT.

    True if it wants to be started again, with a store that was restored.
    """
    folder = DataDir(config.data_dir)
    if not folder.initialized:
        raise PeerdError(Reason.NOT_INITIALIZED, f"there is no peer in {config.data_dir}")
    folder.check_mode()
    async with _held(folder):
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        clock = SystemClock(folder.steady_clock)
        replaced = swap_staged(
            folder.store,
            backup_dir=folder.store.parent / "backups",
            peer_id=load_identity(folder.identity_key).peer_id,
            now=clock.now(),
        )
        if replaced is not None:
            _log.warning("daemon.store_restored", replaced=str(replaced))
        daemon = await Daemon.build(config, clock)
        keeping = asyncio.create_task(run_every(clock.keep, seconds=_KEPT_SECONDS, clock=clock, name="steady clock"))
        try:
            await daemon.run(stop)
        except BaseExceptionGroup as group:
            refusals, rest = group.split(PeerdError)
            if refusals is None or rest is not None:
                raise
            raise next(_flat(refusals)) from group  # the store is damaged: that is all there is to say
        finally:
            keeping.cancel()
            await daemon.close()
        return daemon.restarts


@asynccontextmanager
async def _held(folder: DataDir) -> AsyncIterator[None]:
    """Hold the data directory. Raises DAEMON_RUNNING.

    A daemon that was killed while it started a program lives on in that for a moment, with all that it held: the
    directory, and its ports. Whoever starts the next one at once need not know.
    """
    clock = SystemClock()
    until = clock.monotonic() + _HELD_SECONDS
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(folder.lock())
                break
            except PeerdError:
                if clock.monotonic() > until:
                    raise
            await clock.sleep(_HELD_LOOK_SECONDS)
        try:
            yield
        finally:  # threads cannot be interrupted: what they still write there is not written beside the next daemon
            await asyncio.get_running_loop().shutdown_default_executor()


def _flat(group: BaseExceptionGroup[PeerdError]) -> Iterator[PeerdError]:
    for error in group.exceptions:
        if isinstance(error, PeerdError):
            yield error
        else:
            yield from _flat(error)
