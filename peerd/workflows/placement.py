"""Which peer runs a job: (need, candidates) -> a peer, or why each candidate is not it.

Pure, and the same for ``plan`` and for the engine: what plan shows is what a run does, as long as nothing changes in
between. Every peer that the need's selectors match, that is a member with the grant to execute, is online, takes work,
and offers the service with the interfaces the job's edges use, may run it. Of these the least loaded does, by jobs that
run, wait or were just given to it, for each of its cores; of equals the one that already holds most of what the job
takes; of those the one that was given a job longest ago. A peer that is suspected of being away comes after all that
are not. Cores count because a peer runs as many jobs at once as it has cores for: by jobs alone a small board would be
given as much as a server. Load in percent does not: it is seconds old, and would make the choice a matter of luck.

What it does not know it does not refuse: a catalog that has not been read, a machine of unknown size, a configuration
that may or may not allow commands. The executor checks everything again and has the last word.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from peerd.errors import Reason
from peerd.registry.model import PeerStatus, PeerView
from peerd.registry.selection import Mismatch, Selector, mismatch
from peerd.v1 import access_pb2, workflows_pb2
from peerd.workflows.needs import Candidate, Need
from peerd.workflows.offers import Flaw, command_flaw, name_of, service_flaw

# Besides the reasons of peerd.errors, which are what the executor itself would answer:
NOT_SELECTED = "not_selected"
OFFLINE = "offline"
EXTERNAL = "external"
REFUSED = "refused"


@dataclass(frozen=True, kw_only=True)
class Refused:
    """Why a candidate does not get the job, and the smallest change that would help."""

    # Empty when the job names a peer that does not exist.
    peer_id: str
    peer_name: str
    reason: str
    message: str
    next_action: str
    # It would take the job as it is; what is in the way passes: it is away, in maintenance, or too busy for `where`.
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


def _preference(candidate: Candidate) -> tuple[bool, Fraction, int, int, str]:
    """Least first. The id comes last, so that the same question has the same answer."""
    peer = candidate.peer
    doubtful = peer.status is not PeerStatus.ONLINE
    load = Fraction(_jobs(candidate), _cores(candidate))
    return (doubtful, load, -candidate.near, candidate.turn, peer.peer_id)


def _jobs(candidate: Candidate) -> int:
    return candidate.peer.running_jobs + candidate.peer.sample.queued_jobs + candidate.assigned


def _cores(candidate: Candidate) -> int:
    """One where it is not known."""
    return max(1, candidate.peer.hardware.cpu_cores)


def _busy(candidate: Candidate) -> str:
    jobs, cores = _jobs(candidate), _cores(candidate)
    return f"{jobs} job{'' if jobs == 1 else 's'} on {cores} core{'' if cores == 1 else 's'}"


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
        return f"least loaded: {_busy(first)}; {name_of(others[0].peer)} has {_busy(others[0])}"
    if mine[2] != theirs[2]:
        plural = "s" if first.near > 1 else ""
        return f"holds what the job takes: the outputs of {first.near} job{plural} before it"
    if mine[3] != theirs[3]:
        return "its turn: the others were given a job since"
    return "the first of equals"


def _refusal(need: Need, candidate: Candidate, orchestrator: PeerView | None, *, ambiguous: bool) -> Refused | None:
    """The first thing in the way: selectors, membership, offer, size, and last what passes by itself."""
    peer = candidate.peer
    unselected = mismatch(need.selector, peer)
    lasting = (
        _selection_flaw(need.selector, peer, unselected, ambiguous=ambiguous)
        or _membership_flaw(peer)
        or _own_flaw(candidate)
        or (service_flaw(need, candidate, orchestrator) if need.service else command_flaw(candidate))
        or _size_flaw(need, peer)
    )
    flaw = lasting or _passing_flaw(peer, unselected)
    if flaw is None:
        return None
    return Refused(
        peer_id=peer.peer_id,
        peer_name=peer.name,
        reason=flaw.reason,
        message=flaw.message,
        next_action=flaw.next_action,
        when_back=lasting is None,
    )


def _passing_flaw(peer: PeerView, unselected: Mismatch | None) -> Flaw | None:
    """What keeps the job off it for now."""
    name = name_of(peer)
    suspected = peer.status is PeerStatus.SUSPECT  # shown before maintenance, which it may be in all the same
    if peer.status is PeerStatus.MAINTENANCE or (suspected and peer.maintenance is not None):
        why = peer.maintenance.reason or "taken out" if suspected and peer.maintenance is not None else peer.why
        action = f"end it with 'peerctl peers resume {name}'; the job waits for it"
        return Flaw(Reason.MAINTENANCE.text, f"{name} is in maintenance: {why}", action)
    if peer.status not in (PeerStatus.ONLINE, PeerStatus.SUSPECT):
        why = f": {peer.why}" if peer.why else ""
        return Flaw(OFFLINE, f"{name} is not online{why}", f"bring {name} back; the job waits for it")
    if unselected is not None:
        return Flaw(NOT_SELECTED, unselected.message, f"{unselected.change}; the job waits for it")
    return None


def _selection_flaw(wanted: Selector, peer: PeerView, unselected: Mismatch | None, *, ambiguous: bool) -> Flaw | None:
    if peer.external:
        message = f"{name_of(peer)} runs no peerd"
        return Flaw(EXTERNAL, message, f"install peerd on {name_of(peer)} and let it join")
    if unselected is not None and not unselected.passes:
        return Flaw(NOT_SELECTED, unselected.message, unselected.change)
    if ambiguous and peer.peer_id != wanted.peer:
        reason = Reason.AMBIGUOUS_NAME
        return Flaw(reason.text, f"more than one peer is named {wanted.peer}", f"write 'peer: {peer.peer_id}'")
    return None


def _membership_flaw(peer: PeerView) -> Flaw | None:
    name = name_of(peer)
    if peer.status == PeerStatus.REVOKED:
        return Flaw(Reason.REVOKED.text, f"{name} was revoked", "choose another peer: a revoked key never returns")
    # What a peer orders from itself needs nobody's leave.
    if access_pb2.GRANT_EXECUTE not in peer.grants and not peer.is_self:
        grants = sorted({*peer.grants, access_pb2.GRANT_EXECUTE})
        words = ",".join(access_pb2.Grant.Name(access_pb2.Grant.ValueType(grant)) for grant in grants)
        message = f"{name} does not have the grant to execute"
        action = f"have an admin grant it: peerctl peers grants {name} {words.replace('GRANT_', '').lower()}"
        return Flaw(Reason.PERMISSION_DENIED.text, message, action)
    return None


def _own_flaw(candidate: Candidate) -> Flaw | None:
    if not candidate.refused:
        return None
    name = name_of(candidate.peer)
    action = f"mend that on {name} and run the workflow again: this job does not go back there"
    return Flaw(REFUSED, f"{name} refused it when it was given to it: {candidate.refused}", action)


def _size_flaw(need: Need, peer: PeerView) -> Flaw | None:
    # 0 is what an advert says that does not know.
    name = name_of(peer)
    reason = Reason.RESOURCES_INSUFFICIENT.text
    cores, memory = peer.hardware.cpu_cores, peer.hardware.memory_bytes
    if cores and need.cpus > cores:
        message = f"{name} has {cores} cores, the job asks for {need.cpus:g}"
        return Flaw(reason, message, f"ask for {cores} cpus or less, or choose a larger machine")
    if memory and need.memory_bytes > memory:
        fits = memory >> 20
        message = f"{name} has {fits}M of memory, the job asks for {need.memory_bytes >> 20}M"
        return Flaw(reason, message, f"ask for {fits}M or less, or choose a larger machine")
    if cores and need.gpus > len(peer.hardware.gpus):
        message = f"{name} has {len(peer.hardware.gpus)} gpus, the job asks for {need.gpus}"
        return Flaw(reason, message, "ask for less, or choose another machine: on.where 'gpus>=N'")
    return None


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
