"""No two edges may write into each other's directory. Pure.

Within a place (``input`` of a job, one of its mounts, the ``input`` of Local Peer) the directories of all edges must
be apart: neither equal nor one inside the other; and so must the mounts of a job. Otherwise one producer's files
could replace another's, depending on who is faster. Names that differ only in case count as equal, because some file
systems cannot tell them apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from peerd.workflows.edges import directories
from peerd.workflows.graph import Link
from peerd.workflows.problems import FieldPath, Problem, ProblemReason, format_path


@dataclass(frozen=True, slots=True)
class _Target:
    # Case-folded, so that a comparison is a comparison.
    components: tuple[str, ...]
    directory: str
    path: FieldPath
    text: str


def collisions(links: list[Link]) -> Iterator[Problem]:
    """The edges into one job, or into Local Peer, that would end in each other's directory."""
    if len(links) < 2:
        return
    wheres = directories([(link.source, link.place, link.to) for link in links])
    places: dict[str, list[_Target]] = defaultdict(list)
    for link, where in zip(links, wheres, strict=True):
        place = link.place.directory
        directory = f"{place}/{where}/" if where else f"{place}/"
        places[place].append(_Target(_components(where), directory, link.path, link.text))
    for targets in places.values():
        for outer, inner in _overlaps(targets):
            yield _collision(outer, inner, "give each of them a directory of its own with 'to'")
    roots = [
        _Target(_components(place), f"{place}/", targets[0].path, targets[0].text) for place, targets in places.items()
    ]
    for outer, inner in _overlaps(roots):
        yield _collision(outer, inner, "mount them beside each other, or use one mount and 'to'")


def _overlaps(targets: Iterable[_Target]) -> Iterator[tuple[_Target, _Target]]:
    """Pairs of which the second is equal to or inside the first. In sorted order what is inside follows at once."""
    open_ones: list[_Target] = []
    for target in sorted(targets, key=lambda each: each.components):
        while open_ones and target.components[: len(open_ones[-1].components)] != open_ones[-1].components:
            open_ones.pop()
        if open_ones:
            yield open_ones[-1], target
        open_ones.append(target)


def _collision(outer: _Target, inner: _Target, next_action: str) -> Problem:
    # Edges of one list: their paths differ in the last step only.
    first, second = sorted((outer, inner), key=lambda each: int(each.path[-1]))
    if outer.components == inner.components:
        what = f"{first.text!r} and {second.text!r} both end in {second.directory}"
    else:
        what = f"{inner.text!r} ends in {inner.directory}, inside of {outer.directory} where {outer.text!r} ends"
    return Problem(
        reason=ProblemReason.COLLIDING_DESTINATIONS,
        message=f"{what} ({format_path(first.path)} and {format_path(second.path)})",
        path=second.path,
        next_action=next_action,
    )


def _components(path: str) -> tuple[str, ...]:
    return tuple(part.casefold() for part in path.split("/")) if path else ()
