"""Which records stand, by example."""

from __future__ import annotations

import time

import pytest

from peerd.errors import PeerdError, Reason
from peerd.identity.envelope import seal
from peerd.identity.key import Identity
from peerd.mesh.membership import Membership, merge
from peerd.mesh.model import ADMIN, ALL_GRANTS, OBSERVE, MemberState, Record
from peerd.mesh.records import MEMBER_TYPE, Draft
from peerd.v1 import mesh_pb2
from peerd.v1.signed_pb2 import Envelope
from tests.mesh.signing import (
    ADA,
    ADA_ADMIN,
    ADMINS,
    BOB,
    BOB_ADMIN,
    EVE,
    FOUNDER,
    FOUNDING,
    MESH,
    WIM,
    WORKER,
    ZOE,
    chain,
    chains_of,
    key,
    mesh_with,
    refusal,
    sign,
)


def test_the_founder_is_a_member_by_its_own_word() -> None:
    outcome = merge(Membership(mesh_id=MESH), [chain(FOUNDING)])
    assert outcome.membership.active(MESH) == FOUNDING


def test_what_the_founder_and_its_admins_sign_makes_members() -> None:
    wim, zoe = sign(ADA, WIM.peer_id), sign(FOUNDER, ZOE.peer_id, sequence=4)
    outcome = merge(mesh_with(), [chain(wim), chain(zoe), chain(ADA_ADMIN)])
    assert not outcome.refused
    assert outcome.changed == {ADA.peer_id, WIM.peer_id, ZOE.peer_id}
    assert {entry for entry, record in outcome.membership.current.items() if not record.revoked} == {
        MESH,
        ADA.peer_id,
        WIM.peer_id,
        ZOE.peer_id,
    }


def test_a_chain_that_is_known_changes_nothing() -> None:
    wim = sign(ADA, WIM.peer_id)
    known = mesh_with(ADA_ADMIN, wim)
    outcome = merge(known, chains_of(known) * 2)
    assert outcome.membership == known
    assert not outcome.accepted and not outcome.changed and not outcome.refused


# -- What is refused for its form


def _tampered(envelope: Envelope, **changes: object) -> Envelope:
    message = mesh_pb2.MemberRecord.FromString(envelope.payload)
    for name, value in changes.items():
        setattr(message, name, value)
    return Envelope(
        payload=message.SerializeToString(), payload_type=envelope.payload_type, signatures=envelope.signatures
    )


def _envelope(record: Record) -> Envelope:
    return Envelope.FromString(record.envelope)


def test_a_changed_byte_breaks_the_signature() -> None:
    raised = _tampered(_envelope(sign(ADA, WIM.peer_id)), reason="and more")
    assert refusal(mesh_with(ADA_ADMIN), (WIM.peer_id, (raised,))).reason is Reason.INVALID_SIGNATURE


def test_a_record_of_another_mesh_is_refused() -> None:
    foreign = sign(WIM, ZOE.peer_id, mesh_id=WIM.peer_id)
    assert "another mesh" in refusal(mesh_with(ADA_ADMIN), chain(foreign)).message


def test_a_record_signed_by_another_key_than_it_names_is_refused() -> None:
    payload = _envelope(sign(ADA, WIM.peer_id)).payload
    forged = seal(EVE, payload, MEMBER_TYPE)
    assert "another key" in refusal(mesh_with(ADA_ADMIN), (WIM.peer_id, (forged,))).message


def test_a_record_of_another_type_is_refused() -> None:
    payload = _envelope(sign(ADA, WIM.peer_id)).payload
    mistyped = seal(ADA, payload, "application/vnd.peerd.advert.v1+protobuf")
    assert refusal(mesh_with(ADA_ADMIN), (WIM.peer_id, (mistyped,))).reason is Reason.INVALID_SIGNATURE


def test_a_chain_with_a_gap_is_refused() -> None:
    first = sign(ADA, WIM.peer_id)
    second = sign(ADA, WIM.peer_id, first, roles=["a"], sequence=2)
    third = sign(ADA, WIM.peer_id, second, roles=["b"], sequence=3)
    known = mesh_with(ADA_ADMIN)
    assert "follows version 1" in refusal(known, chain(first, third)).message
    assert "begin with version 1" in refusal(known, chain(second, third)).message
    assert refusal(known, (WIM.peer_id, ())).message == "an empty chain"


def test_a_chain_of_two_subjects_is_refused() -> None:
    wim, zoe = sign(ADA, WIM.peer_id), sign(ADA, ZOE.peer_id, sequence=2)
    mixed = (WIM.peer_id, (*chain(wim)[1], *chain(zoe)[1]))
    assert "in the chain of" in refusal(mesh_with(ADA_ADMIN), mixed).message


def test_a_record_on_another_fork_is_not_a_link() -> None:
    one, other = sign(ADA, WIM.peer_id, roles=["one"]), sign(ADA, WIM.peer_id, roles=["other"], sequence=2)
    child = sign(ADA, WIM.peer_id, other, roles=["child"], sequence=3)
    assert "does not follow" in refusal(mesh_with(ADA_ADMIN), chain(one, child)).message


def test_bytes_that_are_no_record_are_refused() -> None:
    noise = seal(FOUNDER, b"\xff\xff\xff", MEMBER_TYPE)
    assert refusal(mesh_with(), (WIM.peer_id, (noise,))).reason is Reason.INVALID_RECORD


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": WIM.peer_id[:-1] + "9"},
        {"version": 0},
        {"version": 5000},
        {"version": 2},
        {"signer_sequence": 0},
        {"state": 7},
        {"roles": ["../up"]},
        {"roles": [f"role{number}" for number in range(17)]},
        {"reason": "x" * 501},
        {"reason": "x" * 600_000},
        {"previous_digest": b"short", "version": 2},
        {"standing_digests": [b"short"]},
    ],
)
def test_a_malformed_record_is_refused_even_from_the_founder(changes: dict[str, object]) -> None:
    message = mesh_pb2.MemberRecord.FromString(_envelope(sign(FOUNDER, WIM.peer_id, sequence=9)).payload)
    for name, value in changes.items():
        if isinstance(value, list):
            getattr(message, name).extend(value)
        else:
            setattr(message, name, value)
    envelope = seal(FOUNDER, message.SerializeToString(), MEMBER_TYPE)
    assert refusal(mesh_with(), (WIM.peer_id, (envelope,))).reason is Reason.INVALID_RECORD


# -- What is refused for lack of power


def test_a_stranger_and_a_plain_member_admit_nobody() -> None:
    known = mesh_with(sign(FOUNDER, ZOE.peer_id, sequence=2))
    assert "no member" in refusal(known, chain(sign(EVE, WIM.peer_id))).message
    assert "not an admin" in refusal(known, chain(sign(ZOE, WIM.peer_id))).message


@pytest.mark.parametrize("signer", [ADA, EVE])
def test_nobody_but_the_founder_grants_admin(signer: Identity) -> None:
    with pytest.raises(PeerdError, match="grants admin"):
        sign(signer, WIM.peer_id, grants=ADMINS)


def test_an_admin_cannot_admit_itself() -> None:
    with pytest.raises(PeerdError, match="about its own signer"):
        sign(ADA, ADA.peer_id)


def test_an_admin_neither_changes_nor_revokes_another_admin() -> None:
    known = mesh_with(ADA_ADMIN, BOB_ADMIN)
    demotion, revocation = sign(ADA, BOB.peer_id, BOB_ADMIN), sign(ADA, BOB.peer_id, BOB_ADMIN, revoked=True)
    assert "changes an admin" in refusal(known, chain(BOB_ADMIN, demotion)).message
    assert "changes an admin" in refusal(known, chain(BOB_ADMIN, revocation)).message


def test_an_admin_does_not_get_round_another_admin_by_a_chain_of_its_own() -> None:
    known = mesh_with(ADA_ADMIN, BOB_ADMIN)
    beside = sign(ADA, BOB.peer_id, revoked=True)
    assert refusal(known, chain(beside)).reason is Reason.INVALID_RECORD
    assert known.active(BOB.peer_id) == BOB_ADMIN


def test_nobody_revokes_or_weakens_the_founder() -> None:
    with pytest.raises(PeerdError, match="the founder did not sign"):
        sign(ADA, MESH, FOUNDING, revoked=True)
    with pytest.raises(PeerdError, match="revoke the founder"):
        sign(FOUNDER, MESH, FOUNDING, revoked=True)
    with pytest.raises(PeerdError, match="revoke the founder"):
        sign(FOUNDER, MESH, FOUNDING, grants=ALL_GRANTS - {ADMIN})


# -- Revocation


def test_an_old_chain_does_not_bring_a_revoked_peer_back() -> None:
    admitted = sign(ADA, WIM.peer_id)
    revoked = sign(ADA, WIM.peer_id, admitted, revoked=True, sequence=2)
    known = mesh_with(ADA_ADMIN, admitted, revoked)
    outcome = merge(known, [chain(admitted)])
    assert outcome.membership == known
    assert known.active(WIM.peer_id) is None


def test_nothing_follows_a_revocation() -> None:
    admitted = sign(ADA, WIM.peer_id)
    revoked = sign(ADA, WIM.peer_id, admitted, revoked=True, sequence=2)
    again = sign(FOUNDER, WIM.peer_id, revoked, sequence=9)
    assert "final" in refusal(mesh_with(ADA_ADMIN, admitted, revoked), chain(admitted, revoked, again)).message


def test_revoked_wins_over_any_number_of_concurrent_changes() -> None:
    admitted = sign(ADA, WIM.peer_id)
    revoked = sign(ADA, WIM.peer_id, admitted, revoked=True, sequence=2)
    second = sign(BOB, WIM.peer_id, admitted, roles=["a"])
    third = sign(BOB, WIM.peer_id, second, roles=["b"], sequence=2)
    known = mesh_with(ADA_ADMIN, BOB_ADMIN, admitted, second, third)
    assert known.active(WIM.peer_id) == third
    after = merge(known, [chain(admitted, revoked)]).membership
    assert after.active(WIM.peer_id) is None
    assert after == mesh_with(ADA_ADMIN, BOB_ADMIN, admitted, revoked, second, third)


def test_of_two_records_of_one_version_the_lower_digest_counts() -> None:
    one, other = sign(ADA, WIM.peer_id, roles=["one"]), sign(BOB, WIM.peer_id, roles=["other"])
    known = mesh_with(ADA_ADMIN, BOB_ADMIN, one, other)
    assert known.active(WIM.peer_id) == min((one, other), key=lambda record: record.digest)
    assert len(known.chains(WIM.peer_id)) == 2, "the other is kept: it counts if this one falls"


# -- Revoking an admin


def test_of_a_revoked_admin_only_what_the_founder_lists_stands() -> None:
    before, after = sign(ADA, WIM.peer_id, sequence=1), sign(ADA, ZOE.peer_id, sequence=2)
    known = mesh_with(ADA_ADMIN, before, after)
    ended = sign(FOUNDER, ADA.peer_id, ADA_ADMIN, revoked=True, sequence=3, stands=[before])
    outcome = merge(known, [chain(ADA_ADMIN, ended)])
    assert outcome.membership.active(WIM.peer_id) == before
    assert outcome.membership.active(ZOE.peer_id) is None
    assert ZOE.peer_id in outcome.changed


def test_a_stolen_admin_key_signs_nothing_new_under_old_numbers() -> None:
    before = sign(ADA, WIM.peer_id, sequence=5)
    ended = sign(FOUNDER, ADA.peer_id, ADA_ADMIN, revoked=True, sequence=3, stands=[before])
    known = mesh_with(ADA_ADMIN, before, ended)
    for sequence in (1, 5, 6):
        assert "revoked" in refusal(known, chain(sign(ADA, EVE.peer_id, sequence=sequence))).message


def test_a_record_that_reaches_a_newcomer_before_the_revocation_falls_with_it() -> None:
    stolen = sign(ADA, EVE.peer_id, sequence=1)
    ended = sign(FOUNDER, ADA.peer_id, ADA_ADMIN, revoked=True, sequence=3)
    early = merge(mesh_with(), [chain(ADA_ADMIN), chain(stolen)]).membership
    assert early.active(EVE.peer_id) == stolen
    assert merge(early, [chain(ADA_ADMIN, ended)]).membership == mesh_with(ADA_ADMIN, ended)


def test_when_a_change_falls_the_record_before_it_counts_again() -> None:
    first = sign(BOB, WIM.peer_id, roles=["kept"])
    second = sign(ADA, WIM.peer_id, first, roles=["fallen"])
    ended = sign(FOUNDER, ADA.peer_id, ADA_ADMIN, revoked=True, sequence=4)
    assert mesh_with(ADA_ADMIN, BOB_ADMIN, first, second).active(WIM.peer_id) == second
    assert mesh_with(ADA_ADMIN, BOB_ADMIN, ended, first, second).active(WIM.peer_id) == first


def test_what_others_built_on_a_fallen_record_falls_but_a_revocation_does_not() -> None:
    fallen = sign(ADA, WIM.peer_id)
    roles = sign(BOB, WIM.peer_id, fallen, roles=["a"])
    ended = sign(FOUNDER, ADA.peer_id, ADA_ADMIN, revoked=True, sequence=4)
    without = mesh_with(ADA_ADMIN, BOB_ADMIN, ended, fallen, roles)
    assert WIM.peer_id not in without.current
    assert fallen.digest not in without.records, "nothing that stands is built on it"
    revoked = sign(BOB, WIM.peer_id, fallen, revoked=True, sequence=2)
    with_revocation = mesh_with(ADA_ADMIN, BOB_ADMIN, ended, fallen, roles, revoked)
    assert with_revocation.current[WIM.peer_id] == revoked
    assert fallen.digest in with_revocation.records, "it carries the revocation"


def test_what_the_founder_built_on_a_fallen_record_stands() -> None:
    fallen = sign(ADA, WIM.peer_id)
    confirmed = sign(FOUNDER, WIM.peer_id, fallen, roles=["confirmed"], sequence=4)
    ended = sign(FOUNDER, ADA.peer_id, ADA_ADMIN, revoked=True, sequence=5)
    assert mesh_with(ADA_ADMIN, fallen, confirmed, ended).active(WIM.peer_id) == confirmed


def test_a_demoted_admin_stays_a_member_signs_no_more_and_may_become_admin_again() -> None:
    before = sign(ADA, WIM.peer_id, sequence=1)
    demoted = sign(FOUNDER, ADA.peer_id, ADA_ADMIN, grants=WORKER, sequence=4, stands=[before])
    known = mesh_with(ADA_ADMIN, before, demoted)
    assert known.active(ADA.peer_id) == demoted
    assert known.active(WIM.peer_id) == before
    assert "not an admin" in refusal(known, chain(sign(ADA, ZOE.peer_id, sequence=2))).message
    again = sign(FOUNDER, ADA.peer_id, demoted, grants=ADMINS, sequence=5)
    restored = mesh_with(ADA_ADMIN, before, demoted, again)
    accepted = merge(restored, [chain(sign(ADA, ZOE.peer_id, sequence=2))])
    assert accepted.membership.active(ZOE.peer_id) is not None
    under_an_old_number = refusal(restored, chain(sign(ADA, EVE.peer_id, sequence=1)))
    assert under_an_old_number.reason is Reason.INVALID_RECORD


def test_a_former_admin_may_be_changed_by_admins_again() -> None:
    demoted = sign(FOUNDER, ADA.peer_id, ADA_ADMIN, grants=WORKER, sequence=4)
    changed = sign(BOB, ADA.peer_id, demoted, grants=frozenset({OBSERVE}))
    assert mesh_with(ADA_ADMIN, BOB_ADMIN, demoted, changed).active(ADA.peer_id) == changed


def test_a_reader_of_a_draft_gets_back_what_was_drafted() -> None:
    draft = Draft(subject=WIM.peer_id, state=MemberState.ACTIVE, grants=WORKER, roles=frozenset({"röntgen"}))
    record = sign(FOUNDER, draft.subject, grants=draft.grants, roles=draft.roles)
    assert (record.subject, record.state, record.grants, record.roles) == (
        draft.subject,
        draft.state,
        draft.grants,
        draft.roles,
    )


def test_a_thousand_members_are_judged_in_well_under_a_second() -> None:
    records = [sign(FOUNDER, key(1000 + number).peer_id, sequence=number) for number in range(1, 1001)]
    started = time.thread_time()
    known = mesh_with(*records)
    assert time.thread_time() - started < 0.5
    assert len(known.current) == 1001
