"""Tokens: made, checked, ended, and forgotten in time."""

from __future__ import annotations

import pytest

from peerd.clock import FakeClock
from peerd.errors import PeerdError, Reason
from peerd.store import Store
from peerd.tokens import tokens as module
from peerd.tokens.tokens import READ, REGISTER, Token, Tokens

DAY = 86_400


@pytest.fixture
def tokens(store: Store, clock: FakeClock) -> Tokens:
    return Tokens(store, clock)


async def make(store: Store, tokens: Tokens, *, scope: int = READ, ttl: int = 0, name: str = "") -> tuple[Token, str]:
    return await store.write(lambda tx: tokens.create(tx, scope=scope, name=name, ttl_seconds=ttl))


async def refusal(tokens: Tokens, text: str, scope: int = READ) -> PeerdError:
    with pytest.raises(PeerdError) as caught:
        await tokens.check(text, scope)
    return caught.value


async def test_a_token_holds_for_its_scope_alone(store: Store, tokens: Tokens) -> None:
    made, text = await make(store, tokens, scope=REGISTER, name="printers")
    assert (await tokens.check(text, REGISTER)).token_id == made.token_id
    wrong = await refusal(tokens, text, READ)
    assert (wrong.reason, "--scope read" in wrong.next_action) == (Reason.PERMISSION_DENIED, True)
    assert [(entry.name, entry.scope) for entry in await tokens.page(0, 10)] == [("printers", REGISTER)]


async def test_whatever_differs_in_one_place_is_no_token(store: Store, tokens: Tokens) -> None:
    _, text = await make(store, tokens)
    other = (await make(store, tokens))[1]
    last = "0" if text[-1] != "0" else "1"
    spelled = [text[:-1] + last, text[:-1], text + "0", text.upper(), f" {text}", text + "\n", "", "peerd__", "é" * 67]
    for wrong in (*spelled, text[:19] + other[19:]):
        assert (await refusal(tokens, wrong)).reason is Reason.NOT_AUTHENTICATED, wrong
    assert (await tokens.check(text, READ)).scope == READ


async def test_the_secret_is_not_kept(store: Store, tokens: Tokens) -> None:
    secret = (await make(store, tokens))[1].rpartition("_")[2]
    row = await store.one("SELECT * FROM http_tokens")
    assert row is not None
    assert secret not in " ".join(str(value) for value in row)
    assert bytes.fromhex(secret) not in row["digest"]
    assert secret.encode() not in row["digest"]


async def test_it_ends_when_revoked_or_expired(store: Store, tokens: Tokens, clock: FakeClock) -> None:
    made, text = await make(store, tokens)
    short = (await make(store, tokens, ttl=60))[1]
    await store.write(lambda tx: tokens.revoke(tx, made.token_id))
    assert (await refusal(tokens, text)).message == "this token was revoked"
    clock.advance(59)
    assert (await tokens.check(short, READ)).scope == READ
    clock.advance(1)
    assert (await refusal(tokens, short)).message == "this token has expired"
    again = await store.write(lambda tx: tokens.revoke(tx, made.token_id))
    assert again.revoked_at == made.created_at, "revoking again changes nothing"
    with pytest.raises(PeerdError) as caught:
        await store.write(lambda tx: tokens.revoke(tx, "no such"))
    assert caught.value.reason is Reason.NOT_FOUND


async def test_its_last_use_is_written_once_a_minute(store: Store, tokens: Tokens, clock: FakeClock) -> None:
    _, text = await make(store, tokens)

    async def last_used() -> int | None:
        return (await tokens.page(0, 1))[0].last_used_at

    assert await last_used() is None
    first = clock.now()
    await tokens.check(text, READ)
    clock.advance(59)
    await tokens.check(text, READ)
    assert await last_used() == first
    clock.advance(1)
    await tokens.check(text, READ)
    assert await last_used() == first + 60_000


async def test_a_full_disk_does_not_make_a_token_wrong(
    store: Store, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, text = await make(store, tokens)

    async def full(work: object) -> None:
        raise PeerdError(Reason.DISK_LOW, "the disk is full: nothing was stored")

    monkeypatch.setattr(store, "write", full)
    assert (await tokens.check(text, READ)).scope == READ


async def test_there_are_only_so_many_and_ended_ones_do_not_count(
    store: Store, tokens: Tokens, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_TOKENS", 3)
    kept, _ = await make(store, tokens)
    gone, _ = await make(store, tokens)
    await make(store, tokens, ttl=60)
    with pytest.raises(PeerdError) as caught:
        await make(store, tokens)
    assert caught.value.reason is Reason.QUOTA_EXCEEDED
    await store.write(lambda tx: tokens.revoke(tx, gone.token_id))
    await make(store, tokens)
    clock.advance(60)
    await make(store, tokens)
    assert len(await tokens.page(0, 100)) == 5, "what ended is still listed"
    monkeypatch.setattr(module, "MAX_TOKENS", 10)
    clock.advance(91 * DAY)
    await make(store, tokens)
    left = {entry.token_id for entry in await tokens.page(0, 100)}
    assert len(left) == 4, "those that ended long ago are not"
    assert kept.token_id in left
    assert gone.token_id not in left


@pytest.mark.parametrize(
    "change", [{"scope": 0}, {"scope": 99}, {"name": "x" * 101}, {"name": "a\x1b[31m"}, {"ttl": -1}, {"ttl": 10**12}]
)
async def test_a_token_that_makes_no_sense_is_not_made(store: Store, tokens: Tokens, change: dict[str, object]) -> None:
    with pytest.raises(PeerdError) as caught:
        await make(store, tokens, **change)  # type: ignore[arg-type]
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert await tokens.page(0, 10) == []
