"""standing(observations): what follows from all that was said of one port, until a moment. Pure.

Of one viewpoint - one scanner, from one place - the latest statement counts. A port is there when any viewpoint says
so: a scanner that sees less than another one, because it stands outside, takes nothing away. The order in which scans
arrive makes no difference.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from peerd.inventory.states import THERE, State


class Observation(NamedTuple):
    """What one scan said of one port."""

    seen_at: int
    scan_id: int
    viewpoint: int
    state: int
    service_id: int | None = None
    banner_id: int | None = None
    certificate_id: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """How a port stands."""

    state: int
    first_seen: int
    last_seen: int
    last_open: int | None
    service_id: int | None
    banner_id: int | None
    certificate_id: int | None

    @property
    def there(self) -> bool:
        """Whether any viewpoint sees it."""
        return self.state in THERE


def latest(observations: Iterable[Observation], at: int | None = None) -> dict[int, Observation]:
    """The last statement of each viewpoint."""
    found: dict[int, Observation] = {}
    for one in observations:
        if at is not None and one.seen_at > at:
            continue
        before = found.get(one.viewpoint)
        if before is None or one[:2] > before[:2]:
            found[one.viewpoint] = one
    return found


def standing(observations: Iterable[Observation], at: int | None = None) -> Standing | None:
    """How it stands at a moment, now when None; None if nobody had said anything of it."""
    known = sorted(one for one in observations if at is None or one.seen_at <= at)
    shown = [one for one in known if one.state != State.NOT_SHOWN]
    if not shown:
        return None
    last = sorted(latest(known).values())
    views = [view for view in last if view.state in THERE] or last
    state = State.OPEN if any(view.state == State.OPEN for view in views) else views[-1].state
    opened = [one.seen_at for one in shown if one.state in THERE]
    return Standing(
        state=int(state),
        first_seen=shown[0].seen_at,
        last_seen=shown[-1].seen_at,
        last_open=opened[-1] if opened else None,
        service_id=_last(one.service_id for one in shown),
        banner_id=_last(one.banner_id for one in shown),
        certificate_id=_last(one.certificate_id for one in shown),
    )


def _last(values: Iterable[int | None]) -> int | None:
    found = None
    for value in values:
        found = found if value is None else value
    return found
