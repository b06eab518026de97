"""Which peer runs a job: (need, candidates) -> a peer, or why each candidate is not it.

Pure, and the same for ``plan`` and for the engine: what plan shows is what a run does, as long as nothing changes in
between. Every peer that the need's selectors match, that is a member with the grant to execute, is online, takes work,
and offers the service with the interfaces the job's edges use, may run it. Of these the least loaded does, by jobs that
run, wait or were just given to it; of equals the one that already holds most of what the job takes; of those the one
that was given a job longest ago. A peer that is suspected of being away comes after all that are not.

What it does not know it does not refuse: a catalog that has not been read, a machine of unknown size, a configuration
that may or may not allow commands. The executor checks everything again and has the last word.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from peerd.catalog.declaration import INTERFACE_KINDS, to_declaration
from peerd.catalog.model import InterfaceKind, Service
from peerd.errors import Reason
from peerd.registry.expression import parse_expression
from peerd.registry.model import PeerStatus, PeerView
from peerd.registry.selection import Selector, listed, mismatch
from peerd.v1 import access_pb2, catalog_pb2, registry_pb2, workflows_pb2
from peerd.workflows.edges import Edge
from peerd.workflows.quantities import parse_memory

# Besides the reasons of peerd.errors, which are what the executor itself would answer:
NOT_SELECTED = "not_selected"
OFFLINE = "offline"
EXTERNAL = "external"


@dataclass(frozen=True, kw_only=True)
class NeededInterface:
    """An interface that an edge of the job uses."""

    kind: InterfaceKind
    # For mounts.
    path: str = ""
    # True: files come in there; False: files leave from there.
    receives: bool

    def __str__(self) -> str:
        return f"{self.kind.value} {self.path}".rstrip()


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a job asks of a peer; see :func:`need_of`."""

    node_id: str
    selector: Selector = field(default_factory=Selector)
    # Name or id; empty for an ad-hoc command.
    service: str = ""
    interfaces: tuple[NeededInterface, ...] = ()
    params: frozenset[str] = frozenset()
    env: frozenset[str] = frozenset()
    cpus: float = 0.0
    memory_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A peer with what is known of it now."""

    peer: PeerView
    # None: its catalog is not known (not read yet, or it did not answer).
    services: Collection[catalog_pb2.Service] | None = None
    # Jobs given to it that its running_jobs may not show yet.
    assigned: int = 0
    # Jobs placed there whose outputs this one takes.
    near: int = 0
    # Grows with each job that is given to any peer; what it was when this one got its last.
    turn: int = 0
    # False once it refused a command of ours with adhoc_not_allowed.
    allows_commands: bool = True


@dataclass(frozen=True, kw_only=True)
class Refused:
    """Why a candidate does not get the job, and the smallest change that would help."""

    # Empty when the job names a peer that does not exist.
    peer_id: str
    peer_name: str
    reason: str
    message: str
    next_action: str
    # It would take the job if it were online.
    when_back: bool = False

    def to_proto(self) -> workflows_pb2.Refusal:
        """As it goes over the wire."""
        return workflows_pb2.Refusal(
            peer_id=self.peer_id,
            peer_name=self.peer_name,
            reason=self.reason,
            message=self.message,
            next_action=self.next_action,
        )


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The peer that runs it; or None, and then it waits for ``waits_for`` if there are any, else nobody fits."""

    peer_id: str | None
    # Of every candidate that may not have it; not of those that were merely busier.
    refusals: tuple[Refused, ...] = ()
    # Those that would take it, best first.
    fitting: tuple[PeerView, ...] = ()
    # Why the first of them.
    rule: str = ""

    @property
    def waits_for(self) -> tuple[Refused, ...]:
        """Peers that would take it when they are back."""
        return () if self.peer_id else tuple(refused for refused in self.refusals if refused.when_back)


def need_of(job: workflows_pb2.JobDefinition, edges: Iterable[Edge]) -> Need:
    """The need of a job, from its definition and the edges of it (others are passed over)."""
    interfaces: dict[NeededInterface, None] = {}
    for edge in edges:
        if edge.destination == job.name:
            kind, path = edge.destination_kind, edge.destination_path
            interfaces[NeededInterface(kind=INTERFACE_KINDS[kind], path=path, receives=True)] = None
        elif edge.source == job.name:
            kind, path = edge.source_kind, edge.source_path
            interfaces[NeededInterface(kind=INTERFACE_KINDS[kind], path=path, receives=False)] = None
    return Need(
        node_id=job.name,
        selector=Selector(
            peer=job.on.peer,
            role=job.on.role,
            labels=frozenset(job.on.labels),
            group=job.on.group,
            region=job.on.region,
            where=parse_expression(job.on.where) if job.on.where else None,
        ),
        service=job.service,
        interfaces=tuple(interfaces),
        params=frozenset(job.params),
        env=frozenset(job.env),
        cpus=job.resources.cpus,
        memory_bytes=parse_memory(job.resources.memory) if job.resources.memory else 0,
    )


def place(need: Need, candidates: Iterable[Candidate]) -> Decision:
    """Choose a peer. The orchestrator is the candidate that ``is_self``; the order of candidates does not matter."""
    everyone = sorted(candidates, key=lambda each: (each.peer.name, each.peer.peer_id))
    orchestrator = next((each.peer for each in everyone if each.peer.is_self), None)
    fitting: list[Candidate] = []
    refusals: list[Refused] = []
    named = need.selector.peer
    if named and not any(_is_named(each.peer, named) for each in everyone):
        refusals.append(_nobody(named))
    namesakes = [each for each in everyone if each.peer.name == named and each.peer.status != PeerStatus.REVOKED]
    for candidate in everyone:
        refused = _refusal(need, candidate, orchestrator, ambiguous=len(namesakes) > 1)
        if refused is None:
            fitting.append(candidate)
        else:
            refusals.append(refused)
    fitting.sort(key=_preference)
    return Decision(
        peer_id=fitting[0].peer.peer_id if fitting else None,
        refusals=tuple(refusals),
        fitting=tuple(each.peer for each in fitting),
        rule=_rule(fitting),
    )


def _preference(candidate: Candidate) -> tuple[bool, int, int, int, int, str]:
    """Least first. The id comes last, so that the same question has the same answer."""
    peer = candidate.peer
    doubtful = peer.status is not PeerStatus.ONLINE
    return (doubtful, _load(candidate), -candidate.near, candidate.turn, candidate.assigned, peer.peer_id)


def _load(candidate: Candidate) -> int:
    return candidate.peer.running_jobs + candidate.peer.sample.queued_jobs + candidate.assigned


def _rule(fitting: Sequence[Candidate]) -> str:
    """By what the first beats the second."""
    if not fitting:
        return ""
    first, *others = fitting
    if not others:
        return "the only one that fits"
    mine, theirs = _preference(first), _preference(others[0])
    if mine[0] != theirs[0]:
        return "the only one that surely answers"
    if mine[1] != theirs[1]:
        return f"least loaded: {_load(first)} jobs there, at least {_load(others[0])} elsewhere"
    if mine[2] != theirs[2]:
        return f"holds what the job takes: {first.near} of the jobs before it are there"
    if mine[3:5] != theirs[3:5]:
        return "its turn: the others were given a job since"
    return "the first of equals"


def _refusal(need: Need, candidate: Candidate, orchestrator: PeerView | None, *, ambiguous: bool) -> Refused | None:
    """The first thing in the way: selectors, membership, offer, size, and last what passes by itself."""
    peer = candidate.peer
    flaw = (
        _selection_flaw(need.selector, peer, ambiguous=ambiguous)
        or _membership_flaw(peer)
        or (_service_flaw(need, candidate, orchestrator) if need.service else _command_flaw(candidate))
        or _size_flaw(need, peer)
    )
    if flaw is None and peer.status in (PeerStatus.ONLINE, PeerStatus.SUSPECT):
        return None
    passing = flaw is None
    if flaw is None and peer.status is PeerStatus.MAINTENANCE:
        flaw = _Flaw(
            Reason.MAINTENANCE.text,
            f"{_name(peer)} is in maintenance: {peer.why}",
            f"end it with 'peerctl peers resume {_name(peer)}'; the job waits for it",
        )
    if flaw is None:
        why = f": {peer.why}" if peer.why else ""
        flaw = _Flaw(OFFLINE, f"{_name(peer)} is not online{why}", f"bring {_name(peer)} back; the job waits for it")
    return Refused(
        peer_id=peer.peer_id,
        peer_name=peer.name,
        reason=flaw.reason,
        message=flaw.message,
        next_action=flaw.next_action,
        when_back=passing,
    )


@dataclass(frozen=True, slots=True)
class _Flaw:
    reason: str
    message: str
    next_action: str


def _selection_flaw(wanted: Selector, peer: PeerView, *, ambiguous: bool) -> _Flaw | None:
    if peer.external:
        message = f"{_name(peer)} runs no peerd"
        return _Flaw(EXTERNAL, message, f"install peerd on {_name(peer)} and let it join")
    found = mismatch(wanted, peer)
    if found is not None:
        return _Flaw(NOT_SELECTED, found.message, found.change)
    if ambiguous and peer.peer_id != wanted.peer:
        reason = Reason.AMBIGUOUS_NAME
        return _Flaw(reason.text, f"more than one peer is named {wanted.peer}", f"write 'peer: {peer.peer_id}'")
    return None


def _membership_flaw(peer: PeerView) -> _Flaw | None:
    name = _name(peer)
    if peer.status == PeerStatus.REVOKED:
        return _Flaw(Reason.REVOKED.text, f"{name} was revoked", "choose another peer: a revoked key never returns")
    # What a peer orders from itself needs nobody's leave.
    if access_pb2.GRANT_EXECUTE not in peer.grants and not peer.is_self:
        message = f"{name} does not have the grant to execute"
        return _Flaw(
            Reason.PERMISSION_DENIED.text,
            message,
            f"have an admin grant it: peerctl peers admit {name} --grants execute,...",
        )
    return None


def _command_flaw(candidate: Candidate) -> _Flaw | None:
    name = _name(candidate.peer)
    if candidate.peer.isolation == registry_pb2.ISOLATION_LEVEL_NONE:
        message = f"{name} has no isolation and runs declared services only"
        return _Flaw(Reason.ISOLATION_INSUFFICIENT.text, message, f"install bubblewrap on {name}, or declare a service")
    if not candidate.allows_commands:
        message = f"{name} does not take commands from here"
        action = f"allow this peer under [jobs] allow_commands_from on {name}, or declare a service there"
        return _Flaw(Reason.ADHOC_NOT_ALLOWED.text, message, action)
    return None


def _service_flaw(need: Need, candidate: Candidate, orchestrator: PeerView | None) -> _Flaw | None:
    if candidate.services is None:
        return None
    name = _name(candidate.peer)
    offered = _find(candidate.services, need.service)
    if offered is None:
        message = f"{name} offers no service {need.service}"
        return _Flaw(Reason.SERVICE_NOT_FOUND.text, message, f"add it on {name}: peerctl services add")
    try:
        service = Service(
            service_id=offered.service_id,
            active=offered.status == catalog_pb2.SERVICE_STATUS_ACTIVE,
            origin=offered.origin,
            declaration=to_declaration(offered.declaration),
        )
    except KeyError:
        # A newer peer may offer kinds that this version has no word for.
        message = f"{need.service} on {name} is of a kind that this version does not know"
        return _Flaw(Reason.SERVICE_KIND_UNSUPPORTED.text, message, "update peerd here, or use another service")
    if offered.declaration.kind == catalog_pb2.SERVICE_KIND_CONTAINER:
        reason = Reason.SERVICE_KIND_UNSUPPORTED
        return _Flaw(reason.text, f"{need.service} on {name} is a container", reason.next_action)
    if not service.active:
        message = f"{need.service} on {name} is inactive"
        return _Flaw(Reason.SERVICE_INACTIVE.text, message, f"on {name}: peerctl services activate {service.name}")
    if orchestrator and not candidate.peer.is_self and not service.allows(orchestrator.peer_id, orchestrator.roles):
        message = f"the owner of {need.service} on {name} allows {_allowed(service)} only"
        action = f"have {_name(orchestrator)} or one of its roles allowed there"
        return _Flaw(Reason.SERVICE_NOT_ALLOWED.text, message, action)
    return (
        _interface_flaw(need, service, name) or _values_flaw(need, service, name) or _isolation_flaw(service, candidate)
    )


def _interface_flaw(need: Need, service: Service, name: str) -> _Flaw | None:
    for needed in need.interfaces:
        known = service.takes if needed.receives else service.gives
        if not known(needed.kind, needed.path):
            verb = "take" if needed.receives else "give"
            message = f"{service.name} on {name} does not {verb} {needed}"
            has = [
                str(each.kind.value) for each in service.interfaces if _verb_fits(service, each.kind, needed.receives)
            ]
            action = f"connect what it does {verb}: {listed(has)}" if has else f"leave out the edge: it {verb}s nothing"
            return _Flaw(Reason.ILLEGAL_INTERFACE.text, message, action)
    return None


def _verb_fits(service: Service, kind: InterfaceKind, receives: bool) -> bool:
    return any(
        (each.takes if receives else each.gives)(kind, each.path) for each in service.interfaces if each.kind is kind
    )


def _values_flaw(need: Need, service: Service, name: str) -> _Flaw | None:
    declared = {param.name for param in service.declaration.params}
    required = {param.name for param in service.declaration.params if param.default is None}
    reason = Reason.INVALID_ARGUMENT.text
    if unknown := need.params - declared:
        has = listed(declared) if declared else "none"
        message = f"{service.name} on {name} has no parameter {listed(unknown)}"
        return _Flaw(reason, message, f"remove it; its parameters: {has}")
    if missing := required - need.params:
        return _Flaw(reason, f"{service.name} on {name} needs {listed(missing)}", "give it under the job's 'params'")
    if unset := need.env - service.declaration.job_env:
        message = f"{service.name} on {name} does not let a job set {listed(unset)}"
        return _Flaw(reason, message, "remove it from 'env', or have its owner list it under job_env")
    return None


def _isolation_flaw(service: Service, candidate: Candidate) -> _Flaw | None:
    level = candidate.peer.isolation
    if registry_pb2.ISOLATION_LEVEL_UNSPECIFIED < level < service.declaration.isolation:
        name = _name(candidate.peer)
        message = f"{service.name} demands more isolation than {name} has"
        return _Flaw(
            Reason.ISOLATION_INSUFFICIENT.text, message, f"install bubblewrap on {name}, or choose another peer"
        )
    return None


def _size_flaw(need: Need, peer: PeerView) -> _Flaw | None:
    # 0 is what an advert says that does not know.
    name = _name(peer)
    reason = Reason.RESOURCES_INSUFFICIENT.text
    cores, memory = peer.hardware.cpu_cores, peer.hardware.memory_bytes
    if cores and need.cpus > cores:
        message = f"{name} has {cores} cores, the job asks for {need.cpus:g}"
        return _Flaw(reason, message, f"ask for {cores} cpus or less, or choose a larger machine")
    if memory and need.memory_bytes > memory:
        fits = memory >> 20
        message = f"{name} has {fits}M of memory, the job asks for {need.memory_bytes >> 20}M"
        return _Flaw(reason, message, f"ask for {fits}M or less, or choose a larger machine")
    return None


def _find(services: Collection[catalog_pb2.Service], name_or_id: str) -> catalog_pb2.Service | None:
    # No name is all digits, so the two cannot be mixed up.
    return next(
        (each for each in services if name_or_id in (each.declaration.name, str(each.service_id))),
        None,
    )


def _nobody(name: str) -> Refused:
    return Refused(
        peer_id="",
        peer_name=name,
        reason=Reason.NOT_FOUND.text,
        message=f"no peer of this mesh is called {name}",
        next_action="see 'peerctl peers list' and correct 'on.peer'",
    )


def _is_named(peer: PeerView, text: str) -> bool:
    return text in (peer.peer_id, peer.name)


def _name(peer: PeerView) -> str:
    return peer.name or peer.peer_id


def _allowed(service: Service) -> str:
    declared = service.declaration
    return listed([*(f"role {role}" for role in sorted(declared.allowed_roles)), *sorted(declared.allowed_peers)])
