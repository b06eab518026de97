"""Which of the ready jobs start now. Pure: from what is stored alone, so that a restart changes no order.

1.  Nothing is over-committed: the jobs that run never reserve more than the machine has, in any resource.
2.  A higher priority comes first. Within a priority the orchestrator that holds the smallest share of this machine
    comes first, then the one whose last start is longest ago; its own jobs come in the order they were created.
    A share is that of the resource the orchestrator holds most of, places to run included.
3.  An orchestrator of whom nothing runs here, and that has waited for a minute since it last had a start, comes before
    all priorities: no orchestrator can starve another.
4.  The first job in that order for which there is no room reserves it: those behind it start only as far as what has
    started since it became ready, and they, leave it the room it needs once the others have ended. So a large job is
    not starved by small ones. A job that needs more than the machine now has to give reserves nothing.
5.  A job whose service has all it may run is passed over and reserves nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from peerd.clock import Millis
from peerd.jobs.model import Resources
from peerd.sizes import show_size

PATIENCE_MS = 60_000

_Amounts = tuple[int, int, int, int]
_NAMES = ("cpus", "memory", "disk", "gpus")


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What this machine gives to jobs."""

    slots: int
    resources: Resources


@dataclass(frozen=True, kw_only=True)
class Running:
    """A job that runs."""

    orchestrator: str
    service_id: int | None
    needs: Resources
    since: Millis


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A job that is ready."""

    id: int
    orchestrator: str
    service_id: int | None
    needs: Resources
    priority: int
    since: Millis
    max_concurrent: int = 0


@dataclass(frozen=True, kw_only=True)
class Turn:
    """An orchestrator's last start here."""

    number: int
    """Grows with each start of anybody."""
    at: Millis


@dataclass(frozen=True, kw_only=True)
class Wait:
    """Why a ready job does not start: a stable word, and a sentence."""

    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What starts, in this order, and why the others do not."""

    start: tuple[int, ...]
    waits: Mapping[int, Wait]


FREE_PLACE = Wait(reason="slot", message="waits for a free place to run")


def choose(
    running: Iterable[Running],
    ready: Iterable[Waiting],
    capacity: Capacity,
    *,
    turns: Mapping[str, Turn],
    now: Millis,
) -> Choice:
    """Decide by the rules above."""
    return _Choosing(running, capacity, turns, now).go(ready)


@dataclass
class _Holding:
    """What one orchestrator has of this machine."""

    amounts: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    jobs: int = 0
    turn: int = 0
    patient_until: int = 0


class _Choosing:
    def __init__(self, running: Iterable[Running], capacity: Capacity, turns: Mapping[str, Turn], now: Millis) -> None:
        self._running = list(running)
        self._total = _amounts(capacity.resources)
        self._slots = capacity.slots
        self._used = [0, 0, 0, 0]
        self._now = now
        self._held: defaultdict[str, _Holding] = defaultdict(_Holding)
        self._services: Counter[int] = Counter()
        self._start: list[int] = []
        self._waits: dict[int, Wait] = {}
        self._head: Waiting | None = None
        self._late = [0, 0, 0, 0]
        """What runs beside a head that could keep it waiting."""
        self._next_turn = 1 + max((turn.number for turn in turns.values()), default=0)
        for name, turn in turns.items():
            self._held[name].turn = turn.number
            self._held[name].patient_until = turn.at + PATIENCE_MS
        for job in self._running:
            self._count(job.orchestrator, job.service_id, _amounts(job.needs))

    def go(self, ready: Iterable[Waiting]) -> Choice:
        queues: dict[str, list[Waiting]] = {}
        for job in sorted(ready, key=lambda job: (-job.priority, job.id), reverse=True):  # the first one is popped
            queues.setdefault(job.orchestrator, []).append(job)
        for name, queue in queues.items():
            oldest = min(job.since for job in queue)
            held = self._held[name]
            held.patient_until = max(held.patient_until, oldest + PATIENCE_MS)
        taken = len(self._running)
        while queues and taken < self._slots:
            name = min(queues, key=lambda name: self._rank(name, queues[name][-1]))
            job = queues[name].pop()
            if not queues[name]:
                del queues[name]
            wait = self._why_not(job)
            if wait is None:
                taken += 1
                self._begin(job)
            else:
                self._waits[job.id] = wait
        for queue in queues.values():
            self._waits.update((job.id, FREE_PLACE) for job in queue)
        return Choice(start=tuple(self._start), waits=self._waits)

    def _rank(self, name: str, first: Waiting) -> tuple[bool, int, float, int, int]:
        held = self._held[name]
        starves = not held.jobs and self._now >= held.patient_until
        return (not starves, -first.priority, self._share(held), held.turn, first.id)

    def _share(self, held: _Holding) -> float:
        shares = [held.jobs / self._slots]
        shares += [has / total for has, total in zip(held.amounts, self._total, strict=True) if total]
        return max(shares)

    def _why_not(self, job: Waiting) -> Wait | None:
        """None when it starts; the first for which there is no room becomes the head."""
        if job.service_id is not None and 0 < job.max_concurrent <= self._services[job.service_id]:
            running = self._services[job.service_id]
            message = f"waits for another job of its service to end: {running} run, {job.max_concurrent} may"
            return Wait(reason="service_limit", message=message)
        needs = _amounts(job.needs)
        lacking = next((i for i in range(4) if self._used[i] + needs[i] > self._total[i] and needs[i]), None)
        if lacking is not None:
            if self._head is None and all(need <= total for need, total in zip(needs, self._total, strict=True)):
                self._reserve(job)
            return _lacks(lacking, needs[lacking], self._used[lacking], self._total[lacking])
        if self._head is not None:
            wanted = _amounts(self._head.needs)
            for i in range(4):
                if wanted[i] and needs[i] and self._late[i] + needs[i] + wanted[i] > self._total[i]:
                    message = f"waits behind job execution {self._head.id}, which waits for {_says(i, wanted[i])}"
                    return Wait(reason="reserved", message=message)
        return None

    def _reserve(self, job: Waiting) -> None:
        self._head = job
        for other in self._running:
            if other.since >= job.since:
                self._add(self._late, _amounts(other.needs))

    def _begin(self, job: Waiting) -> None:
        needs = _amounts(job.needs)
        self._start.append(job.id)
        self._count(job.orchestrator, job.service_id, needs)
        if self._head is not None:
            self._add(self._late, needs)
        held = self._held[job.orchestrator]
        held.turn = self._next_turn
        self._next_turn += 1

    def _count(self, orchestrator: str, service_id: int | None, needs: _Amounts) -> None:
        held = self._held[orchestrator]
        held.jobs += 1
        self._add(held.amounts, needs)
        self._add(self._used, needs)
        if service_id is not None:
            self._services[service_id] += 1

    @staticmethod
    def _add(to: list[int], amounts: Sequence[int]) -> None:
        for i, amount in enumerate(amounts):
            to[i] += amount


def _amounts(resources: Resources) -> _Amounts:
    """Whole numbers, so that a sum of tenths of a cpu is what it says."""
    return (round(resources.cpus * 1000), resources.memory_bytes, resources.disk_bytes, resources.gpus)


def _lacks(which: int, need: int, used: int, total: int) -> Wait:
    taken = f"{_number(which, used)} of {_number(which, total)} are taken"
    return Wait(reason=_NAMES[which], message=f"waits for {_says(which, need)}: {taken}")


def _says(which: int, amount: int) -> str:
    return f"{_number(which, amount)}{(' cpus', ' of memory', ' of disk', ' gpus')[which]}"


def _number(which: int, amount: int) -> str:
    if which == 0:
        return f"{amount / 1000:g}"
    return str(amount) if which == 3 else show_size(amount)
