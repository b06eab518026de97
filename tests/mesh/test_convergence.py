"""Membership converges: whatever is signed by whom, and in whatever order it arrives, all come to think the same."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from peerd.errors import PeerdError
from peerd.identity.peer_id import PeerId
from peerd.mesh.admission import admission, revocation
from peerd.mesh.membership import Membership, merge
from peerd.mesh.model import ADMIN, OBSERVE, MemberState
from peerd.mesh.records import Draft
from tests.mesh.signing import (
    ADA,
    BOB,
    EVE,
    FOUNDER,
    FOUNDING,
    MESH,
    WIM,
    WORKER,
    ZOE,
    Chain,
    View,
    chain,
    chains_of,
    mesh_with,
)

SIGNERS = (FOUNDER, ADA, BOB, EVE)
SUBJECTS = tuple(identity.peer_id for identity in (ADA, BOB, EVE, WIM, ZOE))
GRANTS = (WORKER, frozenset({OBSERVE}), frozenset({OBSERVE, ADMIN}))

act = st.tuples(
    st.sampled_from(["admit", "admit", "revoke", "sync", "sync", "forge"]),
    st.integers(0, len(SIGNERS) - 1),
    st.sampled_from(SUBJECTS),
    st.sampled_from(GRANTS),
    st.integers(0, len(SIGNERS) - 1),
)
Act = tuple[str, int, PeerId, frozenset[int], int]


class World:
    """Four peers that may sign, each with its own view. Any key but the founder's may be in a thief's hands too."""

    def __init__(self) -> None:
        self.views = [View(identity=identity, membership=mesh_with()) for identity in SIGNERS]
        self.views[0].sequence = 1
        self.chains: list[Chain] = [chain(FOUNDING)]
        """Every chain that ever travelled."""

    def perform(self, step: Act) -> None:
        kind, who, subject, grants, other = step
        view = self.views[who]
        if kind == "sync":
            view.take(chains_of(self.views[other].membership))
            return
        try:
            draft = self._draft(kind, view, subject, grants)
            if draft is not None:
                # A thief signs whatever it likes under whatever number.
                self.chains.append(view.sign(draft, sequence=1 + other if kind == "forge" else None))
        except PeerdError:
            return  # refused, as it should be: nothing was signed

    def _draft(self, kind: str, view: View, subject: PeerId, grants: frozenset[int]) -> Draft | None:
        if kind == "forge":
            if view.identity is FOUNDER:
                return None  # a mesh whose founder's key is stolen is lost
            return Draft(subject=subject, state=MemberState.ACTIVE, grants=grants)
        acting = (view.identity.peer_id,)
        if kind == "admit":
            return admission(
                view.membership, acting=acting, subject=subject, grants=grants, roles=frozenset(), reason=""
            )
        return revocation(view.membership, acting=acting, subject=subject, reason="")


def played(steps: list[Act]) -> World:
    world = World()
    for step in steps:
        world.perform(step)
    return world


def heard(chains: list[Chain]) -> Membership:
    """What a newcomer thinks that hears one chain after the other, twice over, as gossip repeats itself."""
    known = Membership(mesh_id=MESH)
    for one in (*chains, *chains):
        known = merge(known, [one]).membership
    return known


@settings(max_examples=250, deadline=None)
@given(steps=st.lists(act, max_size=25), seed=st.integers(0, 2**16))
def test_the_order_of_arrival_does_not_matter(steps: list[Act], seed: int) -> None:
    chains = played(steps).chains
    shuffled = list(chains)
    random.Random(seed).shuffle(shuffled)
    assert heard(shuffled) == heard(chains)


@settings(max_examples=250, deadline=None)
@given(steps=st.lists(act, max_size=25))
def test_peers_that_pass_on_what_they_hold_come_to_hold_the_same(steps: list[Act]) -> None:
    world = played(steps)
    for _ in range(3):
        for view in world.views:
            for other in world.views:
                view.take(chains_of(other.membership))
    first, *others = (view.membership for view in world.views)
    assert all(membership == first for membership in others)


@settings(max_examples=250, deadline=None)
@given(steps=st.lists(act, max_size=25))
def test_the_founders_word_is_never_overruled(steps: list[Act]) -> None:
    world = played(steps)
    founder = world.views[0].membership
    for view in world.views:
        view.take(chains_of(founder))
        after = view.membership
        assert after.active(MESH) == FOUNDING
        for subject, record in founder.current.items():
            if record.by_founder and (record.revoked or record.admin):
                assert after.current[subject].state is record.state
                assert after.current[subject].grants == record.grants
        assert all(record.by_founder for record in after.current.values() if record.admin)


@settings(max_examples=250, deadline=None)
@given(steps=st.lists(act, max_size=25))
def test_whoever_is_revoked_stays_so_whatever_comes_later(steps: list[Act]) -> None:
    world = played(steps)
    everything = heard(world.chains)
    out = {subject for subject, record in everything.current.items() if record.revoked}
    for view in world.views:
        view.take(chains_of(everything))
        assert not out & {entry for entry, record in view.membership.current.items() if not record.revoked}


@settings(max_examples=100, deadline=None)
@given(steps=st.lists(act, max_size=20))
def test_merging_is_idempotent(steps: list[Act]) -> None:
    for view in played(steps).views:
        outcome = view.take(chains_of(view.membership))
        assert not outcome.changed and not outcome.refused
