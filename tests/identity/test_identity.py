"""Ids, keys and envelopes: what is accepted, and every way it can be wrong."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerd.clock import FakeClock
from peerd.errors import PeerdError, Reason
from peerd.identity.certificates import anchor_pem, issue_leaf, verify_leaf
from peerd.identity.envelope import open_envelope, pre_authentication_encoding, seal
from peerd.identity.key import Identity, create_identity, identity_from_seed, load_identity
from peerd.identity.peer_id import parse_peer_id, peer_id_of, public_key_of
from peerd.v1.signed_pb2 import Envelope

KIND = "application/vnd.peerd.test.v1+protobuf"


def test_an_id_is_its_key_and_has_one_spelling(identity: Identity) -> None:
    peer_id = identity.peer_id
    assert len(peer_id) == 52
    assert peer_id_of(public_key_of(peer_id)) == peer_id
    alphabet = "abcdefghijklmnopqrstuvwxyz234567"
    twins = [peer_id[:-1] + letter for letter in alphabet]
    same_key = [t for t in twins if base64.b32decode(t.upper() + "====") == base64.b32decode(peer_id.upper() + "====")]
    assert len(same_key) == 16, "the trap this guards against"
    accepted = []
    for twin in same_key:
        try:
            accepted.append(parse_peer_id(twin))
        except PeerdError:
            continue
    assert accepted == [peer_id]


@given(st.text(max_size=60))
def test_no_other_text_is_an_id(text: str) -> None:
    with pytest.raises(PeerdError) as caught:
        parse_peer_id(text)
    assert caught.value.reason is Reason.INVALID_PEER_ID


def test_a_key_file_is_private_durable_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    made = create_identity(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_identity(path).peer_id == made.peer_id
    with pytest.raises(PeerdError) as caught:
        create_identity(path)
    assert caught.value.reason is Reason.ALREADY_INITIALIZED
    assert load_identity(path).peer_id == made.peer_id


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o660])
def test_a_key_that_others_can_read_is_refused_with_the_cure(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "identity.key"
    create_identity(path)
    os.chmod(path, mode)
    with pytest.raises(PeerdError) as caught:
        load_identity(path)
    assert caught.value.reason is Reason.KEY_EXPOSED
    assert f"chmod 600 {path}" in caught.value.next_action


def test_a_link_garbage_and_nothing_are_no_keys(tmp_path: Path) -> None:
    create_identity(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "garbage").write_text("no key")
    os.chmod(tmp_path / "garbage", 0o600)
    for name, reason in (
        ("link", Reason.KEY_EXPOSED),
        ("garbage", Reason.NOT_INITIALIZED),
        ("none", Reason.NOT_INITIALIZED),
    ):
        with pytest.raises(PeerdError) as caught:
            load_identity(tmp_path / name)
        assert caught.value.reason is reason


def test_the_signed_bytes_are_those_of_the_standard() -> None:
    # The example of https://github.com/secure-systems-lab/dsse/blob/master/protocol.md
    signed = pre_authentication_encoding("http://example.com/HelloWorld", b"hello world")
    assert signed == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_a_seal_opens_to_the_same_bytes_and_signer() -> None:
    identity = identity_from_seed(bytes(32))
    opened = open_envelope(seal(identity, b"payload", KIND), KIND)
    assert (opened.payload, opened.signer) == (b"payload", identity.peer_id)


def break_payload(envelope: Envelope) -> None:
    envelope.payload += b"x"


def break_type(envelope: Envelope) -> None:
    envelope.payload_type += "x"


def break_signature(envelope: Envelope) -> None:
    envelope.signatures[0].signature = (
        bytes([envelope.signatures[0].signature[0] ^ 1]) + envelope.signatures[0].signature[1:]
    )


def cut_signature(envelope: Envelope) -> None:
    envelope.signatures[0].signature = envelope.signatures[0].signature[:63]


def high_s(envelope: Envelope) -> None:
    """S + L is the same point arithmetic and must not be a second valid signature."""
    order = 2**252 + 27742317777372353535851937790883648493
    raw = envelope.signatures[0].signature
    s = int.from_bytes(raw[32:], "little") + order
    envelope.signatures[0].signature = raw[:32] + s.to_bytes(32, "little")


def other_signer(envelope: Envelope) -> None:
    envelope.signatures[0].peer_id = Identity.generate().peer_id


def no_signature(envelope: Envelope) -> None:
    del envelope.signatures[:]


def two_signatures(envelope: Envelope) -> None:
    envelope.signatures.add().CopyFrom(envelope.signatures[0])


@pytest.mark.parametrize(
    "damage",
    [break_payload, break_type, break_signature, cut_signature, high_s, other_signer, no_signature, two_signatures],
)
def test_any_damage_to_an_envelope_is_noticed(identity: Identity, damage: object) -> None:
    envelope = seal(identity, b"payload", KIND)
    damage(envelope)  # type: ignore[operator]
    with pytest.raises(PeerdError) as caught:
        open_envelope(envelope, KIND)
    assert caught.value.reason is Reason.INVALID_SIGNATURE


def test_one_kind_of_statement_never_passes_for_another(identity: Identity) -> None:
    with pytest.raises(PeerdError):
        open_envelope(seal(identity, b"payload", KIND), "application/vnd.peerd.member.v1+protobuf")


def test_a_leaf_names_its_identity_until_it_expires(identity: Identity) -> None:
    clock = FakeClock()
    leaf = issue_leaf(identity, clock)
    assert verify_leaf(leaf.certificate_pem, clock.now()) == identity.peer_id
    assert leaf.not_after - clock.now() <= 30 * 86_400_000
    clock.advance(31 * 86_400)
    with pytest.raises(PeerdError) as caught:
        verify_leaf(leaf.certificate_pem, clock.now())
    assert caught.value.reason is Reason.NOT_AUTHENTICATED


def test_a_leaf_is_replaced_at_half_its_life_and_before_a_clock_that_was_set_back_makes_it_useless(
    identity: Identity,
) -> None:
    clock = FakeClock()
    leaf, day = issue_leaf(identity, clock), 86_400
    for days, due in ((0, False), (14, False), (16, True), (-3, False), (-5, True), (-365, True), (365, True)):
        clock.set(days * day)
        assert leaf.due(clock.now()) is due, days
        if not due:
            assert verify_leaf(leaf.certificate_pem, clock.now()) == identity.peer_id
        clock.set(-days * day)


def test_an_anchor_or_two_certificates_are_no_leaf(identity: Identity) -> None:
    clock = FakeClock()
    leaf = issue_leaf(identity, clock).certificate_pem
    for pem in (anchor_pem(identity.peer_id), leaf + leaf, b"", b"no certificate"):
        with pytest.raises(PeerdError) as caught:
            verify_leaf(pem, clock.now())
        assert caught.value.reason is Reason.NOT_AUTHENTICATED
