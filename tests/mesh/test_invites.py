"""Tokens that survive the clipboard or say that they did not, and what an invite's state allows."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerd.clock import Millis
from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.mesh.invites import (
    MAX_TTL_SECONDS,
    Invite,
    InviteStatus,
    Token,
    check_invite_grants,
    check_ttl,
    check_use,
    format_token,
    invite_id_of,
    invite_seed,
    parse_token,
)
from peerd.mesh.model import ADMIN, ALL_GRANTS, EXECUTE, OBSERVE, format_grants, parse_grants
from tests.mesh.signing import ADA, BOB, MESH, WIM, ZOE

TOKEN = Token(mesh_id=MESH, inviter=ADA.peer_id, addresses=("127.0.0.1:7401", "[::1]:7401"), seed=bytes(range(32)))
PENDING = Invite(
    number=1,
    invite_id=BOB.peer_id,
    nonce=b"n" * 16,
    roles=frozenset(),
    grants=frozenset({OBSERVE}),
    created_by=MESH,
    created_at=Millis(1_000),
    expires_at=Millis(10_000),
)


@given(
    seed=st.binary(min_size=32, max_size=32),
    addresses=st.lists(st.from_regex(r"[a-z0-9.\-]{1,60}:[0-9]{1,5}", fullmatch=True), max_size=8),
)
def test_a_token_says_what_was_put_in(seed: bytes, addresses: list[str]) -> None:
    token = Token(mesh_id=MESH, inviter=WIM.peer_id, addresses=tuple(addresses), seed=seed)
    assert parse_token(format_token(token)) == token


def test_a_token_is_one_printable_word() -> None:
    text = format_token(TOKEN)
    assert text.startswith("peerd1.")
    assert text.isascii() and text.isprintable() and " " not in text


def test_line_breaks_of_a_terminal_do_no_harm() -> None:
    text = format_token(TOKEN)
    assert parse_token(f"  {text[:60]}\n{text[60:]} \n") == TOKEN


@given(position=st.integers(7, len(format_token(TOKEN)) - 1), character=st.sampled_from("Aa0-_x"))
def test_a_changed_character_is_named_as_damage(position: int, character: str) -> None:
    text = format_token(TOKEN)
    mangled = text[:position] + character + text[position + 1 :]
    if mangled == text:
        return
    try:
        assert parse_token(mangled) == TOKEN, "only unused bits of the last character may differ unnoticed"
        assert position == len(text) - 1
    except PeerdError as error:
        assert error.reason is Reason.INVITE_INVALID
        assert "damaged" in error.message
        assert "copy it again" in error.next_action


@pytest.mark.parametrize("cut", range(7, len(format_token(TOKEN)), 9))
def test_a_cut_token_is_named_as_damage(cut: int) -> None:
    with pytest.raises(PeerdError, match="damaged"):
        parse_token(format_token(TOKEN)[:cut])


@pytest.mark.parametrize("text", ["", "hello", "peerd2.abc", MESH])
def test_what_is_no_token_is_called_that(text: str) -> None:
    with pytest.raises(PeerdError, match="an invite begins with") as caught:
        parse_token(text)
    assert caught.value.reason is Reason.INVITE_INVALID


def test_the_seed_is_not_shown_by_accident() -> None:
    assert repr(TOKEN.seed) not in repr(TOKEN)
    assert "***" in repr(TOKEN)


def test_the_seed_follows_from_the_nonce_for_the_inviter_alone() -> None:
    assert invite_seed(ADA, b"n") == invite_seed(ADA, b"n")
    assert len({invite_seed(ADA, b"n"), invite_seed(ADA, b"m"), invite_seed(BOB, b"n")}) == 3
    assert invite_id_of(invite_seed(ADA, b"n")) != ADA.peer_id


@pytest.mark.parametrize(
    ("invite", "now", "status"),
    [
        (PENDING, 9_999, InviteStatus.PENDING),
        (PENDING, 10_000, InviteStatus.EXPIRED),
        (replace(PENDING, revoked_at=Millis(2_000)), 3_000, InviteStatus.REVOKED),
        (replace(PENDING, revoked_at=Millis(2_000)), 99_000, InviteStatus.REVOKED),
        (replace(PENDING, used_at=Millis(2_000), joiner=WIM.peer_id), 3_000, InviteStatus.USED),
        (replace(PENDING, used_at=Millis(2_000), joiner=WIM.peer_id), 99_000, InviteStatus.USED),
    ],
)
def test_the_status_of_an_invite(invite: Invite, now: int, status: InviteStatus) -> None:
    assert invite.status(now) is status


USED = replace(PENDING, used_at=Millis(2_000), joiner=WIM.peer_id)


def test_a_pending_invite_is_used_up_and_its_joiner_may_ask_again() -> None:
    assert check_use(PENDING, WIM.peer_id, 3_000) is True
    assert check_use(USED, WIM.peer_id, 3_000) is False


@pytest.mark.parametrize(
    ("invite", "joiner", "now", "reason"),
    [
        (None, WIM.peer_id, 3_000, Reason.INVITE_INVALID),
        (USED, ZOE.peer_id, 3_000, Reason.INVITE_USED),
        (USED, WIM.peer_id, 10_000, Reason.INVITE_EXPIRED),
        (PENDING, WIM.peer_id, 10_000, Reason.INVITE_EXPIRED),
        (replace(PENDING, revoked_at=Millis(2_000)), WIM.peer_id, 3_000, Reason.INVITE_REVOKED),
    ],
)
def test_an_invite_is_refused_with_its_reason(invite: Invite | None, joiner: PeerId, now: int, reason: Reason) -> None:
    with pytest.raises(PeerdError) as caught:
        check_use(invite, joiner, now)
    assert caught.value.reason is reason


def test_the_life_of_an_invite_has_a_default_and_a_limit() -> None:
    assert check_ttl(0) == 900
    assert check_ttl(MAX_TTL_SECONDS) == 7 * 86_400
    for seconds in (-1, MAX_TTL_SECONDS + 1):
        with pytest.raises(PeerdError) as caught:
            check_ttl(seconds)
        assert caught.value.violations[0].field == "ttl_seconds"


def test_an_invite_carries_neither_admin_nor_more_than_the_inviter_has() -> None:
    check_invite_grants(frozenset({OBSERVE}), held=ALL_GRANTS)
    with pytest.raises(PeerdError, match="never grants admin"):
        check_invite_grants(frozenset({ADMIN}), held=ALL_GRANTS)
    with pytest.raises(PeerdError, match="execute"):
        check_invite_grants(frozenset({EXECUTE}), held=frozenset({OBSERVE, ADMIN}))


@given(st.frozensets(st.sampled_from(sorted(ALL_GRANTS))))
def test_a_list_of_grants_reads_back(grants: frozenset[int]) -> None:
    assert parse_grants(format_grants(grants)) == grants


def test_an_unknown_grant_is_named() -> None:
    with pytest.raises(PeerdError, match="'root'"):
        parse_grants("observe,root")
