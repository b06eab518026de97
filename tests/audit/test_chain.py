"""The chain of the audit log: whatever is done to it behind peerd's back shows, and pruning it does not."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from peerd.audit import repository
from peerd.audit.servicer import AuditServicer
from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.store import Store, Tx
from peerd.store.audit import OK, Entry, append, prune
from peerd.v1 import audit_pb2

ROWS = 10
SELF = PeerId("me")


def entry(number: int, *, at: int | None = None, caller: str = "me", method: str = "AdmitPeer") -> Entry:
    return Entry(
        at=1000 * number if at is None else at,
        caller=caller,
        method=method,
        target=f'{{"peer": "{number}"}}',
        result=OK,
        request_id=f"r{number}",
    )


async def fill(store: Store, *entries: Entry) -> None:
    for one in entries or [entry(number) for number in range(1, ROWS + 1)]:
        await store.write(lambda tx, one=one: append(tx, one))  # type: ignore[misc]


async def run(store: Store, *statements: str) -> None:
    def write(tx: Tx) -> None:
        for statement in statements:
            tx.execute(statement)

    await store.write(write)


@pytest.fixture(autouse=True)
def in_small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "_CHUNK", 3)


async def test_an_untouched_log_is_intact_and_its_head_is_the_newest_digest(store: Store) -> None:
    assert await repository.verify(store) == repository.Verdict(entries=0, head=bytes(32))
    await fill(store)
    found = await repository.verify(store)
    newest = await store.one("SELECT digest FROM audit_log WHERE id = ?", (ROWS,))
    assert newest is not None
    assert (found.entries, found.fault, found.head) == (ROWS, "", newest["digest"])


BREAKS: dict[str, tuple[int, tuple[str, ...]]] = {
    **{
        f"{column} changed": (4, (f"UPDATE audit_log SET {column} = {value} WHERE id = 4",))
        for column, value in {
            "at": "at + 1",
            "caller": "'other'",
            "method": "'RevokePeer'",
            "target": "'{}'",
            "result": "'permission_denied'",
            "request_id": "''",
            "digest": "zeroblob(32)",
            "previous": "zeroblob(32)",
        }.items()
    },
    "one removed from the middle": (6, ("DELETE FROM audit_log WHERE id = 5",)),
    "the first removed": (2, ("DELETE FROM audit_log WHERE id = 1",)),
    "the newest removed": (10, ("DELETE FROM audit_log WHERE id = 10",)),
    "all removed": (1, ("DELETE FROM audit_log",)),
    "one put between": (
        5,
        (
            "UPDATE audit_log SET id = id + 100 WHERE id >= 5",
            "INSERT INTO audit_log SELECT 5, at, caller, method, target, result, request_id, previous, digest"
            " FROM audit_log WHERE id = 4",
        ),
    ),
    "two swapped": (
        4,
        (
            "UPDATE audit_log SET id = 100 WHERE id = 4",
            "UPDATE audit_log SET id = 4 WHERE id = 5",
            "UPDATE audit_log SET id = 5 WHERE id = 100",
        ),
    ),
    "the anchor changed": (1, ("UPDATE audit_anchor SET digest = zeroblob(31)",)),
}


@pytest.mark.parametrize("what", BREAKS)
async def test_what_is_done_behind_our_back_shows_and_where(store: Store, what: str) -> None:
    await fill(store)
    broken_id, statements = BREAKS[what]
    await run(store, *statements)
    found = await repository.verify(store)
    assert (found.broken_id, bool(found.fault)) == (broken_id, True)
    assert found.entries < broken_id


async def test_an_edit_with_its_own_digest_made_right_shows_at_the_next_row(store: Store) -> None:
    await fill(store)
    forged = entry(4, caller="other")

    def forge(tx: Tx) -> None:
        from peerd.store.audit import link

        row = tx.one("SELECT previous FROM audit_log WHERE id = 4")
        assert row is not None
        tx.execute("UPDATE audit_log SET caller = 'other', digest = ? WHERE id = 4", (link(row["previous"], forged),))

    await store.write(forge)
    assert (await repository.verify(store)).broken_id == 5


# -- Retention


async def test_a_pruned_log_verifies_from_the_first_kept_row_on(store: Store) -> None:
    await fill(store)
    head = (await repository.verify(store)).head
    assert await store.write(lambda tx: prune(tx, before=4000)) == 3
    assert await repository.verify(store) == repository.Verdict(entries=7, head=head)
    await run(store, "DELETE FROM audit_log WHERE id = 4")
    assert (await repository.verify(store)).broken_id == 5, "what prune() did not take was taken by another"


async def test_a_log_that_is_all_pruned_goes_on_where_it_was(store: Store) -> None:
    await fill(store)
    head = (await repository.verify(store)).head
    assert await store.write(lambda tx: prune(tx, before=10**12)) == ROWS
    assert await repository.verify(store) == repository.Verdict(entries=0, head=head)
    await fill(store, entry(11))
    row = await store.one("SELECT previous FROM audit_log")
    assert row is not None
    assert row["previous"] == head
    assert (await repository.verify(store)).fault == ""


async def test_rows_of_a_clock_that_was_wrong_for_a_while_do_not_tear_the_chain(store: Store) -> None:
    await fill(store, entry(1, at=5000), entry(2, at=10), entry(3, at=5100), entry(4, at=9000))
    assert await store.write(lambda tx: prune(tx, before=5000)) == 0
    assert (await repository.verify(store)).fault == ""
    assert await store.write(lambda tx: prune(tx, before=5050)) == 2
    assert await repository.verify(store) == repository.Verdict(entries=2, head=(await repository.verify(store)).head)
    assert (await repository.verify(store)).fault == ""


async def test_what_is_pruned_during_the_walk_breaks_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(store)
    all_rows = store.all

    async def then_prune(sql: str, params: Any = ()) -> Any:
        rows = await all_rows(sql, params)
        if "audit_log WHERE id >" in sql and rows and rows[0]["id"] == 1:
            await store.write(lambda tx: prune(tx, before=8000))
        return rows

    monkeypatch.setattr(store, "all", then_prune)
    found = await repository.verify(store)
    assert (found.fault, found.entries) == ("", 6), "three before, and three that are left"


# -- Over the wire


@pytest.fixture
def servicer(store: Store) -> AuditServicer:
    return AuditServicer(SELF, store)


async def listed(servicer: AuditServicer, **fields: Any) -> tuple[list[str], str]:
    answer = await servicer.ListAudit(audit_pb2.ListAuditRequest(**fields), None)
    return [found.request_id for found in answer.entries], answer.next_page_token


async def test_pages_are_newest_first_and_end(store: Store, servicer: AuditServicer) -> None:
    await fill(store)
    seen: list[str] = []
    token = ""
    for _ in range(ROWS):
        page, token = await listed(servicer, page_size=4, page_token=token)
        seen += page
        if not token:
            break
    assert seen == [f"r{number}" for number in range(ROWS, 0, -1)]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"caller": "other"}, ["r3"]),
        ({"method": "RevokePeer"}, ["r2"]),
        ({"caller": "other", "method": "RevokePeer"}, []),
        ({"since": Timestamp(seconds=2)}, ["r3", "r2"]),
        ({"since": Timestamp(seconds=2, nanos=1_000_000)}, ["r3"]),
    ],
)
async def test_filters(store: Store, servicer: AuditServicer, fields: dict[str, Any], expected: list[str]) -> None:
    await fill(store, entry(1), entry(2, method="RevokePeer"), entry(3, caller="other"))
    assert (await listed(servicer, **fields))[0] == expected


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"page_token": "x"}, Reason.INVALID_PAGE_TOKEN),
        ({"page_token": "9" * 19}, Reason.INVALID_PAGE_TOKEN),
        ({"since": Timestamp(seconds=2**62)}, Reason.INVALID_ARGUMENT),
        ({"since": Timestamp(seconds=-(2**62))}, Reason.INVALID_ARGUMENT),
    ],
)
async def test_bad_input_is_refused_with_its_reason(
    servicer: AuditServicer, fields: dict[str, Any], reason: Reason
) -> None:
    with pytest.raises(PeerdError) as caught:
        await listed(servicer, **fields)
    assert caught.value.reason is reason


async def test_the_wire_says_what_the_walk_found(store: Store, servicer: AuditServicer) -> None:
    await fill(store)

    async def verify() -> audit_pb2.VerifyAuditResponse:
        return await servicer.VerifyAudit(audit_pb2.VerifyAuditRequest(), None)

    answer = await verify()
    assert (answer.intact, answer.entries, len(answer.head)) == (True, ROWS, 32)
    await run(store, "DELETE FROM audit_log WHERE id = 5")
    answer = await verify()
    assert (answer.intact, answer.broken_id) == (False, 6)
    assert "entry 6" in answer.message
