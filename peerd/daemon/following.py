"""This peer follows the profiles of its roles: labels, services, limits, and how often it probes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Set
from dataclasses import replace

import structlog

from peerd.catalog.catalog import Catalog
from peerd.config import Config, JobsConfig
from peerd.detector.model import Timing
from peerd.detector.prober import Prober
from peerd.errors import PeerdError
from peerd.jobs.assembly import Bounds, bounds_of
from peerd.mesh.documents import DocumentTopic
from peerd.profiles.profile import Followed, follow
from peerd.registry.adverts import MAX_LABELS
from peerd.v1.profiles_pb2 import Profile

_log = structlog.get_logger(__name__)


def timing_of(config: Config, followed: Followed) -> Timing:
    """How often this peer probes: as it is configured, else as its profile says."""
    period = config.mesh.probe_seconds
    if followed.heartbeat_seconds and "mesh.probe_seconds" not in config.origins:
        period = followed.heartbeat_seconds
    return Timing(period=period, timeout=period / 2)


class Following:
    """What counts now, and bringing it about when it changes."""

    def __init__(
        self,
        config: Config,
        topic: DocumentTopic[Profile],
        own_roles: Callable[[], Iterable[str]],
        *,
        catalog: Catalog,
        prober: Prober,
        changed: Callable[[], Awaitable[None]],
    ) -> None:
        """``changed`` publishes the advert, which says what is followed."""
        self._config = config
        self._topic = topic
        self._own_roles = own_roles
        self._catalog = catalog
        self._prober = prober
        self._changed = changed
        self.followed = Followed()
        self._owed = False
        """Whether the store could not take the services of what is followed."""

    def bounds(self, config: JobsConfig) -> Bounds:
        """How many jobs are taken now."""
        return bounds_of(config, max_running=self.followed.max_running_jobs, max_queued=self.followed.max_queued_jobs)

    async def apply(self) -> None:
        """Do what the profiles say now; nothing if that is done."""
        found = [self._topic.find(role) for role in self._own_roles()]
        followed = follow(document.value for document in found if document is not None)
        labels = _that_fit(followed.labels, self._config.peer.labels)
        left_out, followed = followed.labels - labels, replace(followed, labels=labels)
        if followed == self.followed and not self._owed:
            return
        self.followed = followed
        _log.info("profile.followed", version=followed.version, labels=sorted(followed.labels))
        if left_out:
            _log.warning("profile.labels_left_out", labels=sorted(left_out), most=MAX_LABELS)
        self._prober.retime(timing_of(self._config, followed))
        try:
            await self._catalog.follow(followed.services if self._config.peer.accept_profile_services else ())
            self._owed = False
        except PeerdError as error:  # it was checked when it was signed, but not against this machine
            self._owed = error.retryable
            _log.warning("profile.services_refused", reason=error.reason.text, message=error.message)
        await self._changed()


def _that_fit(labels: Set[str], own: Iterable[str]) -> frozenset[str]:
    """Those that an advert has room for beside the peer's own: many profiles together may have more."""
    more = sorted(labels - set(own))
    return frozenset([*(labels & set(own)), *more[: max(0, MAX_LABELS - len(set(own)))]])
