"""The shape of a definition: every reference leads somewhere, and nothing waits for itself. Pure.

One cycle is named for each knot of jobs that wait for each other: its shortest, starting with the job that stands
first in the definition.
"""

from __future__ import annotations

import difflib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from peerd.errors import PeerdError
from peerd.transfers.paths import parse_relative_path
from peerd.v1 import workflows_pb2
from peerd.workflows.edges import (
    DESTINATION_KINDS,
    INTERFACE_WORDS,
    SOURCE_KINDS,
    Place,
    Source,
    parse_place,
    parse_source,
)
from peerd.workflows.problems import FieldPath, Problem, ProblemReason
from peerd.workflows.selections import EdgeDefinition, selection_problems

# Comparing one misspelt name with 20,000 others takes a tenth of a second.
MAX_SUGGESTIONS = 10
# Jobs named in the message of a cycle; the rest are counted.
MAX_NAMED = 12


@dataclass(frozen=True, slots=True)
class Link:
    """An edge whose both ends make sense by themselves, with where it is written."""

    path: FieldPath
    text: str
    source: Source
    place: Place
    to: str


class Graph:
    """Reads the edges of a definition once; ``problems`` is complete after construction."""

    def __init__(self, definition: workflows_pb2.WorkflowDefinition) -> None:
        self.problems: list[Problem] = []
        self._index = {job.name: index for index, job in reversed(list(enumerate(definition.jobs)))}
        self._names = [job.name for job in definition.jobs]
        self._suggestions = MAX_SUGGESTIONS
        # Per job, its incoming edges; the last entry is Local Peer's.
        self.incoming: list[list[Link]] = []
        for index, job in enumerate(definition.jobs):
            links = [self._link(("jobs", index, "inputs", at), item, item.into) for at, item in enumerate(job.inputs)]
            self.incoming.append([link for link in links if link is not None])
        home = [self._link(("deliver", at), item, "") for at, item in enumerate(definition.deliver)]
        self._cycles([self._needs(index, job) for index, job in enumerate(definition.jobs)])
        self.incoming.append([link for link in home if link is not None])

    def _link(self, path: FieldPath, item: EdgeDefinition, into: str) -> Link | None:
        text, to = getattr(item, "from"), item.to
        source, place = parse_source(text), parse_place(into)
        before = len(self.problems)
        self.problems += self._source_problems((*path, "from"), text, source)
        self.problems += _place_problems((*path, "into"), place)
        if to and (flaw := path_flaw(to)):
            self.problems.append(Problem(reason=ProblemReason.BAD_PATH, message=flaw, path=(*path, "to")))
        if item.files or item.rename:
            self.problems += selection_problems(item, path, log=source.word in ("stdout", "stderr"))
        return Link(path, text, source, place, to) if len(self.problems) == before else None

    def _source_problems(self, path: FieldPath, text: str, source: Source) -> Iterator[Problem]:
        if not text:
            yield Problem(
                reason=ProblemReason.MISSING, message="'from' is missing: which output feeds this?", path=path
            )
            return
        if source.word in INTERFACE_WORDS and source.word not in SOURCE_KINDS:
            what = (
                "are kept by peerd; use stdout or stderr" if source.word == "logs" else "is an input and feeds nothing"
            )
            yield Problem(reason=ProblemReason.ILLEGAL_PAIR, message=f"{text!r}: {source.word} {what}", path=path)
        elif source.word not in SOURCE_KINDS:
            message = f"{text!r} does not name an output: {source.word!r} is none"
            yield Problem(reason=ProblemReason.BAD_REFERENCE, message=message, path=path)
        elif source.word == "mounts" or (source.word == "output" and source.path):
            if flaw := path_flaw(source.path):
                yield Problem(reason=ProblemReason.BAD_PATH, message=f"{text!r}: {flaw}", path=path)
        elif source.path:
            message = f"{text!r}: {source.word} has no parts; the whole of it is sent"
            yield Problem(reason=ProblemReason.BAD_REFERENCE, message=message, path=path)
        if source.node_id not in self._index:
            yield self._unknown(path, source)
        elif path[0] == "jobs" and isinstance(path[1], int) and source.node_id == self._names[path[1]]:
            message = f"job {source.node_id!r} takes its own {source.word}"
            yield Problem(reason=ProblemReason.SELF_REFERENCE, message=message, path=path)

    def _needs(self, index: int, job: workflows_pb2.JobDefinition) -> list[tuple[int, FieldPath]]:
        """The jobs that this one needs, with where that is written."""
        found: list[tuple[int, FieldPath]] = []
        for at, name in enumerate(job.needs):
            path = ("jobs", index, "needs", at)
            if name not in self._index:
                self.problems.append(self._unknown(path, Source(name, "needs")))
            elif name == job.name:
                message = f"job {name!r} needs itself"
                hint = "name another job"
                reason = ProblemReason.SELF_REFERENCE
                self.problems.append(Problem(reason=reason, message=message, path=path, next_action=hint))
            else:
                found.append((self._index[name], path))
        if job.HasField("map"):
            found += self._list(("jobs", index, "map", "from"), job)
        return found

    def _list(self, path: FieldPath, job: workflows_pb2.JobDefinition) -> list[tuple[int, FieldPath]]:
        """The job that makes the list of a map."""
        text = getattr(job.map, "from")
        source = parse_source(text)
        before = len(self.problems)
        self.problems += self._source_problems(path, text, source)
        return [(self._index[source.node_id], path)] if len(self.problems) == before else []

    def _unknown(self, path: FieldPath, source: Source) -> Problem:
        head, _, tail = source.node_id.rpartition(".")
        if head and source.word == "output" and head in self._index:
            message = f"job {head!r} has no output named {tail!r}"
            return Problem(reason=ProblemReason.BAD_REFERENCE, message=message, path=path)
        hint = ""
        if self._suggestions:
            self._suggestions -= 1
            near = difflib.get_close_matches(source.node_id, self._names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else ""
        message = f"there is no job {source.node_id!r} in this workflow"
        return Problem(reason=ProblemReason.UNKNOWN_JOB, message=message, path=path, next_action=hint)

    def _cycles(self, needs: Sequence[Sequence[tuple[int, FieldPath]]]) -> None:
        consumers: list[list[tuple[int, FieldPath]]] = [[] for _ in self._names]
        for consumer, links in enumerate(self.incoming):
            for link in links:
                consumers[self._index[link.source.node_id]].append((consumer, (*link.path, "from")))
            for source, path in needs[consumer]:
                consumers[source].append((consumer, path))
        following = [[consumer for consumer, _ in edges] for edges in consumers]
        for knot in _knots(following):
            cycle = _shortest_cycle(knot, following)
            closing = next(path for consumer, path in consumers[cycle[-1]] if consumer == cycle[0])
            names = [self._names[index] for index in cycle]
            shown = names if len(names) <= MAX_NAMED else [*names[:MAX_NAMED], f"... ({len(names) - MAX_NAMED} more)"]
            message = f"these jobs wait for each other: {' -> '.join([*shown, names[0]])}"
            self.problems.append(Problem(reason=ProblemReason.CYCLE, message=message, path=closing))


def path_flaw(text: str) -> str | None:
    """What is wrong with a relative path, or None."""
    try:
        parse_relative_path(text)
    except PeerdError as error:
        return error.message
    return None


def _place_problems(path: FieldPath, place: Place) -> Iterator[Problem]:
    word, slash, rest = place.word.partition("/")
    if place.word == "mounts":
        flaw = path_flaw(place.path) if place.path else "a mount needs a path: mounts/PATH"
        if flaw:
            yield Problem(reason=ProblemReason.BAD_PATH, message=flaw, path=path)
    elif place.word in DESTINATION_KINDS:
        return
    elif word in DESTINATION_KINDS and slash:
        message = f"{place.word!r}: {word} has no parts"
        hint = f"write 'into: {word}' and 'to: {rest}'"
        yield Problem(reason=ProblemReason.BAD_REFERENCE, message=message, path=path, next_action=hint)
    elif word == "package":
        message = "package takes no edges: its files come from the definition alone"
        hint = "list the files under the job's 'package', or feed input"
        yield Problem(reason=ProblemReason.ILLEGAL_PAIR, message=message, path=path, next_action=hint)
    elif word in INTERFACE_WORDS:
        message = f"{word} is an output and cannot be fed"
        yield Problem(reason=ProblemReason.ILLEGAL_PAIR, message=message, path=path)
    else:
        message = f"{place.word!r} is no input; there are input, stdin and mounts/PATH"
        yield Problem(reason=ProblemReason.BAD_REFERENCE, message=message, path=path, next_action="use one of these")


def _knots(following: Sequence[Sequence[int]]) -> list[list[int]]:
    """Strongly connected components of more than one job (Tarjan, without recursion), in definition order."""
    order: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    knots: list[list[int]] = []
    for root in range(len(following)):
        if root in order:
            continue
        work: list[tuple[int, int]] = [(root, 0)]
        while work:
            node, at = work.pop()
            if at == 0:
                order[node] = low[node] = len(order)
                stack.append(node)
                on_stack.add(node)
            for position in range(at, len(following[node])):
                other = following[node][position]
                if other not in order:
                    work += [(node, position + 1), (other, 0)]
                    break
                if other in on_stack:
                    low[node] = min(low[node], order[other])
            else:
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == order[node]:
                    knot = [stack.pop()]
                    while knot[-1] != node:
                        knot.append(stack.pop())
                    on_stack.difference_update(knot)
                    if len(knot) > 1:
                        knots.append(sorted(knot))
    return sorted(knots)


def _shortest_cycle(knot: list[int], following: Sequence[Sequence[int]]) -> list[int]:
    """The shortest way from the first job of the knot back to it."""
    start, inside = knot[0], set(knot)
    came_from: dict[int, int] = {}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        for other in following[node]:
            if other == start:
                way = [node]
                while way[-1] != start:
                    way.append(came_from[way[-1]])
                return way[::-1]
            if other in inside and other not in came_from:
                came_from[other] = node
                queue.append(other)
    raise AssertionError("a knot has a cycle through each of its jobs")
