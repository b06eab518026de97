"""Which scans are taken in: signature vectors, audience, time, scanners, and each scan only once."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from peerd.clock import DAY_MS, FakeClock
from peerd.config import ScansConfig
from peerd.errors import PeerdError, Reason
from peerd.identity.envelope import seal
from peerd.identity.key import Identity
from peerd.rpc.caller import ALL_GRANTS, Caller
from peerd.scans import data, scanners, submission
from peerd.scans.statement import JSON_TYPE, PROTOBUF_TYPE
from peerd.store import Tx
from peerd.v1 import scans_pb2
from peerd.v1.access_pb2 import Grant
from peerd.v1.scans_pb2 import ScanStatement
from peerd.v1.signed_pb2 import Envelope

from .desk import MESH, Desk, lines

RAW = lines(3)
HOUR = 3_600_000
OTHER = Identity.generate()


async def refused(desk: Desk, envelope: Envelope, raw: bytes = RAW) -> Reason:
    """The reason, and that nothing was kept, whichever way it came."""
    before = await desk.rows_of("ingest_jobs")
    with pytest.raises(PeerdError) as caught:
        await desk.hand_in(envelope, raw)
    with pytest.raises(PeerdError) as streamed:
        await desk.stream(envelope, raw)
    assert streamed.value.reason is caught.value.reason
    assert caught.value.next_action
    assert await desk.rows_of("ingest_jobs") == before
    assert await desk.rows_of("scan_data") == before
    return caught.value.reason


async def test_a_sound_scan_is_kept_before_it_is_answered_and_answers_as_itself_again(desk: Desk) -> None:
    envelope = desk.sealed(RAW, format="naabu", tool="naabu", organization="acme", vantage="office")
    first = await desk.hand_in(envelope, RAW)
    job = first.job
    assert not first.repeated and job.ingest_job_id == 1 and job.has_data
    assert (job.scanner, job.scan_id, job.tool, job.organization, job.vantage) == (
        desk.me.peer_id,
        "scan-1",
        "naabu",
        "acme",
        "office",
    )
    assert job.data_sha256 == hashlib.sha256(RAW).digest() and job.job_uuid[14] == "7"
    # The same envelope, the same scan signed anew, and both as a stream: one job.
    again = desk.sealed(RAW, format="naabu", tool="naabu", organization="acme", vantage="office", nonce=b"n" * 16)
    for sealed in (envelope, again):
        assert (await desk.hand_in(sealed, RAW)).repeated
        assert (await desk.stream(sealed)).job.ingest_job_id == 1  # it is answered before its bytes have come
    assert await desk.rows_of("scan_data") == await desk.rows_of("ingest_jobs") == 1


async def test_a_repeated_request_gets_its_first_answer(desk: Desk) -> None:
    envelope = desk.sealed(RAW)
    first = await desk.hand_in(envelope, RAW, request_id="r1")
    assert await desk.hand_in(envelope, RAW, request_id="r1") == first
    entries = await desk.store.all("SELECT method, target, result FROM audit_log")
    assert [(row["method"], row["result"]) for row in entries] == [("Submit", "ok")]
    assert json.loads(entries[0]["target"])["scan_id"] == "scan-1"


async def test_the_same_id_with_other_content_is_refused_and_audited_for_ever(desk: Desk) -> None:
    await desk.submit(RAW)
    others: list[tuple[bytes, dict[str, Any]]] = [
        (lines(4), {}),
        (RAW, {"tool": "other"}),
        (RAW, {"vantage": "elsewhere"}),
        (RAW, {"organization": "acme"}),
        (RAW, {"scanned_at": desk.clock.now() - HOUR}),
    ]
    for raw, fields in others:
        assert await refused(desk, desk.sealed(raw, **fields), raw) is Reason.SCAN_CONFLICT
    await desk.work()
    await desk.restart()
    desk.clock.advance(400 * 86_400)
    await desk.scans.prune(desk.clock.now())
    assert await desk.rows_of("scan_data") == 0
    with pytest.raises(PeerdError, match="ingest job 1"):
        await desk.submit(lines(4))
    conflicts = await desk.store.all("SELECT target FROM audit_log WHERE result = 'scan_conflict'")
    assert len(conflicts) == 2 * len(others) + 1
    assert json.loads(conflicts[0]["target"])["scanner"] == desk.me.peer_id
    assert (await desk.submit(RAW)).repeated


@pytest.mark.parametrize("as_json", [False, True])
async def test_every_field_counts(desk: Desk, as_json: bool) -> None:
    """A statement in which one bit of any field was flipped after signing is refused, whatever the field."""
    whole = desk.statement(
        RAW,
        desk.me,
        format="naabu",
        tool="t",
        tool_version="1",
        organization="o",
        vantage="v",
        scope="10.0.0.0/8",
        scanned_at=desk.clock.now() - 5,
    )
    envelope = sealed_as(desk.me, whole, as_json)
    for field in ScanStatement.DESCRIPTOR.fields:
        changed = ScanStatement()
        changed.CopyFrom(whole)
        flip(changed, field.name)
        assert changed != whole
        forged = Envelope()
        forged.CopyFrom(envelope)
        forged.payload = payload(changed, as_json)
        assert await refused(desk, forged) is Reason.INVALID_SIGNATURE, field.name
    assert not (await desk.hand_in(envelope, RAW)).repeated


async def test_every_bit_of_an_envelope_counts(desk: Desk) -> None:
    good = desk.sealed(RAW).SerializeToString()
    flipped = [good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :] for at in range(len(good))]
    tried = 0
    for bad in (*flipped, *(good[:length] for length in range(len(good)))):
        try:
            envelope = Envelope.FromString(bad)
        except DecodeError:
            continue  # the intake refuses it
        with pytest.raises(PeerdError):
            await desk.hand_in(envelope, RAW)
        tried += 1
    assert tried > 200
    assert (await desk.rows_of("ingest_jobs"), await desk.rows_of("scan_data")) == (0, 0)


async def test_what_is_signed_by_others_or_as_something_else_is_refused(desk: Desk) -> None:
    statement = desk.statement(RAW, desk.me)
    content = statement.SerializeToString()
    assert await refused(desk, seal(OTHER, content, PROTOBUF_TYPE)) is Reason.INVALID_SIGNATURE
    for kind in ("application/vnd.peerd.member.v1+protobuf", "application/vnd.peerd.scan.v2+protobuf", ""):
        assert await refused(desk, seal(desk.me, content, kind)) is Reason.INVALID_SIGNATURE
    relabelled = seal(desk.me, content, PROTOBUF_TYPE)
    relabelled.payload_type = JSON_TYPE
    assert await refused(desk, relabelled) is Reason.INVALID_SIGNATURE
    two = desk.sealed(RAW)
    two.signatures.append(two.signatures[0])
    assert await refused(desk, two) is Reason.INVALID_SIGNATURE
    assert await refused(desk, seal(desk.me, content, JSON_TYPE)) is Reason.INVALID_STATEMENT
    named = desk.sealed(RAW)
    named.signatures[0].peer_id = OTHER.peer_id
    assert await refused(desk, named) is Reason.INVALID_SIGNATURE


async def test_a_statement_for_somebody_else_is_refused(desk: Desk) -> None:
    assert await refused(desk, desk.sealed(RAW, audience=OTHER.peer_id)) is Reason.WRONG_AUDIENCE
    assert not (await desk.submit(RAW, audience=MESH)).repeated


@pytest.mark.parametrize(
    ("ahead_ms", "reason"),
    [
        (HOUR, Reason.CLOCK_SKEW),
        (5 * 60_000 + 1, Reason.CLOCK_SKEW),
        (5 * 60_000, None),
        (-HOUR, None),
        (-7 * DAY_MS, None),
        (-7 * DAY_MS - 1, Reason.STATEMENT_EXPIRED),
        (-(10**12), Reason.STATEMENT_EXPIRED),
    ],
)
async def test_a_statement_counts_for_a_week(desk: Desk, ahead_ms: int, reason: Reason | None) -> None:
    envelope = desk.sealed(RAW, issued_at=max(desk.clock.now() + ahead_ms, 946_684_800_000))
    if reason is not None:
        assert await refused(desk, envelope) is reason
    else:
        assert not (await desk.hand_in(envelope, RAW)).repeated


async def test_a_replay_makes_no_second_job_over_a_restart_and_whatever_the_clock_says(desk: Desk) -> None:
    envelope = desk.sealed(RAW)
    await desk.hand_in(envelope, RAW)
    for ahead in (0, 3600, -7200, 30 * 86_400):
        await desk.restart()
        desk.clock.set(ahead)
        assert (await desk.hand_in(envelope, RAW)).repeated
    await desk.work()
    assert (await desk.hand_in(envelope, RAW)).job.hosts == 3
    assert await desk.rows_of("ingest_jobs") == 1


async def test_a_nonce_is_used_for_one_scan(desk: Desk) -> None:
    await desk.submit(RAW, nonce=b"x" * 16)
    await desk.restart()
    assert await refused(desk, desk.sealed(RAW, nonce=b"x" * 16, scan_id="two")) is Reason.REPLAYED
    desk.clock.advance(6 * 86_400)
    await desk.scans.prune(desk.clock.now())
    late = desk.sealed(RAW, nonce=b"x" * 16, scan_id="two", issued_at=desk.clock.now() - 6 * DAY_MS)
    assert await refused(desk, late) is Reason.REPLAYED
    desk.clock.advance(3 * 86_400)
    await desk.scans.prune(desk.clock.now())
    assert await desk.rows_of("scan_nonces") == 0


async def test_only_peers_that_may_operate_and_registered_scanners_sign(desk: Desk) -> None:
    key = Identity.generate()
    assert await refused(desk, desk.sealed(RAW, key)) is Reason.UNKNOWN_SCANNER
    desk.mesh.members[key.peer_id] = frozenset({Grant.GRANT_OBSERVE, Grant.GRANT_EXECUTE})
    assert await refused(desk, desk.sealed(RAW, key)) is Reason.PERMISSION_DENIED
    desk.mesh.members[key.peer_id] = frozenset({Grant.GRANT_OPERATE})
    assert not (await desk.submit(RAW, key)).repeated
    desk.mesh.revoked.add(key.peer_id)
    assert await refused(desk, desk.sealed(RAW, key)) is Reason.REVOKED  # also of a scan that was taken

    probe = Identity.generate()
    await desk.store.write(lambda tx: scanners.add(tx, name="probe", scanner=probe.peer_id, created_by="me"))
    taken = await desk.submit(RAW, probe)
    assert (taken.job.ingest_job_id, taken.job.scanner_name) == (2, "probe")
    successor = Identity.generate()
    rotated = await desk.store.write(
        lambda tx: scanners.rotate(tx, "probe", scanner=successor.peer_id, created_by="me")
    )
    assert (rotated.name, rotated.scanner) == ("probe", successor.peer_id)
    assert await refused(desk, desk.sealed(RAW, probe)) is Reason.SCANNER_REVOKED
    assert not (await desk.submit(RAW, successor)).repeated
    await desk.restart()
    for again in (probe, successor):
        with pytest.raises(PeerdError, match=r"revoked|registered"):
            await desk.store.write(partial(scanners.add, name="new", scanner=again.peer_id, created_by=""))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scan_id", ""),
        ("scan_id", "../x"),
        ("scan_id", "x" * 129),
        ("format", "csv"),
        ("tool", "x" * 65),
        ("vantage", "a\nb"),
        ("organization", "\x00"),
        ("nonce", b"x" * 15),
        ("nonce", b"x" * 65),
        ("data_sha256", b"x" * 31),
        ("data_size", 0),
        ("data_size", -1),
        ("audience", ""),
        ("issued_at", 0),
        ("scanned_at", 86_400_000),
    ],
)
async def test_a_statement_with_a_bad_field_is_refused_by_its_name(desk: Desk, field: str, value: Any) -> None:
    envelope = desk.sealed(RAW, **{field: value})
    with pytest.raises(PeerdError) as caught:
        await desk.hand_in(envelope, RAW)
    assert caught.value.reason is Reason.INVALID_STATEMENT
    assert [violation.field for violation in caught.value.violations] == [field]
    assert await refused(desk, envelope) is Reason.INVALID_STATEMENT


async def test_other_bytes_than_were_stated_are_refused(desk: Desk) -> None:
    envelope = desk.sealed(RAW)
    for raw in (RAW[:-1], RAW + b"\n", RAW[:-2] + b"x\n", b""):
        assert await refused(desk, envelope, raw) is Reason.SCAN_DATA_MISMATCH
    for pieces in ((b"", RAW[:7], RAW[7:]), (RAW,)):
        assert (await desk.stream(envelope, *pieces)).job.ingest_job_id == 1
    assert await desk.rows_of("scan_data") == 1


async def test_a_large_scan_streams_in_and_is_the_same_bytes(desk: Desk) -> None:
    raw = lines(12_000, 4)
    assert len(raw) > 1_500_000
    pieces = [raw[at : at + 99_991] for at in range(0, len(raw), 99_991)]
    answer = await desk.stream(desk.sealed(raw), *pieces, request_id="once")
    assert not answer.repeated and answer.job.data_size == len(raw)
    assert (await desk.stream(desk.sealed(raw), *pieces, request_id="once")).job.ingest_job_id == 1
    await desk.work()
    job = await desk.job()
    assert (job.state.value, job.records, job.hosts, job.ports, job.skipped) == ("completed", 48_000, 12_000, 48_000, 0)
    row = await desk.store.one("SELECT sum(length(content)) AS kept FROM scan_pieces")
    assert row is not None and row["kept"] < len(raw) / 4


async def test_a_stream_that_stalls_loses_its_place(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = lines(3)

    async def stalls() -> AsyncIterator[scans_pb2.SubmitStreamRequest]:
        yield scans_pb2.SubmitStreamRequest(envelope=desk.sealed(raw))
        yield scans_pb2.SubmitStreamRequest(data=raw[:10])
        await asyncio.Event().wait()

    with monkeypatch.context() as impatient, pytest.raises(PeerdError) as caught:
        impatient.setattr(submission, "SILENT_SECONDS", 0.05)
        await asyncio.wait_for(desk.call("SubmitStream", stalls()), 30)
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED and "silent" in caught.value.message
    assert await desk.rows_of("scan_data") == 0
    assert not (await desk.stream(desk.sealed(raw), raw)).repeated


async def test_what_a_broken_stream_left_on_a_full_disk_goes_when_there_is_room(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: it stayed until the next start, and the full disk was said instead of what was wrong."""
    remove, full = data.remove_unowned, True

    def remove_unowned(tx: Tx, scan_data_id: int | None = None) -> None:
        if full:
            raise PeerdError(Reason.DISK_LOW, "the disk is full")
        remove(tx, scan_data_id)

    monkeypatch.setattr(data, "remove_unowned", remove_unowned)
    raw = lines(40_000)
    for _ in range(2):
        with pytest.raises(PeerdError) as caught:
            await desk.stream(desk.sealed(raw), raw[:1_100_000])
        assert caught.value.reason is Reason.SCAN_DATA_MISMATCH
    assert (await desk.stream(desk.sealed(RAW, scan_id="another"), RAW)).job.ingest_job_id == 1
    assert await desk.rows_of("scan_data") == 3
    full = False
    await desk.scans.prune(desk.clock.now())
    assert await desk.rows_of("scan_data") == await desk.rows_of("scan_pieces") == 1
    await desk.work()
    assert (await desk.job()).hosts == 3


async def test_what_a_broken_stream_left_goes_at_the_next_start(desk: Desk) -> None:
    raw = lines(12_000, 4)
    with pytest.raises(PeerdError):
        await desk.stream(desk.sealed(raw), raw[:1_100_000])
    assert await desk.rows_of("scan_data") == await desk.rows_of("scan_pieces") == 0
    await desk.store.write(lambda tx: tx.execute("INSERT INTO scan_data (created_at) VALUES (1)"))  # as after a kill
    await desk.restart()
    assert await desk.rows_of("scan_data") == 0


async def test_limits_are_told_with_when_to_come_again(tmp_path: Path, clock: FakeClock) -> None:
    desk = Desk(tmp_path, clock, ScansConfig(max_bytes=1000, submissions_per_minute=5, max_queued_per_scanner=2))
    await desk.start()
    try:
        with pytest.raises(PeerdError, match="1000 are taken") as large:
            await desk.submit(lines(100))
        assert large.value.reason is Reason.TOO_LARGE
        for number in range(2):
            await desk.submit(RAW, scan_id=f"s{number}")
        with pytest.raises(PeerdError) as full:
            await desk.submit(RAW, scan_id="s3")
        assert (full.value.reason, full.value.retry_after_seconds) == (Reason.OVERLOADED, 5.0)
        await desk.work()
        for number in range(20):  # over the unix socket nobody counts
            await desk.submit(RAW, scan_id=f"own{number}")
            await desk.work()
        desk.caller = Caller(peer_id=Identity.generate().peer_id, grants=ALL_GRANTS)
        for number in range(4):
            await desk.submit(RAW, scan_id=f"t{number}")
            await desk.work()
        await desk.submit(RAW, scan_id="s3")
        with pytest.raises(PeerdError) as often:
            await desk.submit(RAW, scan_id="s4")
        assert often.value.reason is Reason.RATE_LIMITED
        assert often.value.retry_after_seconds is not None and 0 < often.value.retry_after_seconds <= 12
        clock.advance(often.value.retry_after_seconds + 0.001)
        await desk.submit(RAW, scan_id="s4")
    finally:
        await desk.store.close()


def test_a_key_is_read_in_every_spelling() -> None:
    import base64

    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = OTHER.private_key.public_key()
    raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    for text in (OTHER.peer_id, base64.b64encode(raw).decode(), raw.hex(), pem, f" {OTHER.peer_id}\n"):
        assert scanners.parse_key(text) == OTHER.peer_id
    assert scanners.key_base64(OTHER.peer_id) == base64.b64encode(raw).decode()
    for bad in ("", "x", OTHER.peer_id[:-1] + "1", base64.b64encode(raw[:31]).decode(), pem[:60], "é" * 44, "A" * 5000):
        with pytest.raises(PeerdError) as caught:
            scanners.parse_key(bad)
        assert caught.value.reason is Reason.INVALID_ARGUMENT


def flip(statement: ScanStatement, name: str) -> None:
    value = getattr(statement, name)
    if isinstance(value, str):
        setattr(statement, name, value[:-1] + chr(ord(value[-1]) ^ 1))
    elif isinstance(value, bytes):
        setattr(statement, name, bytes([value[0] ^ 1]) + value[1:])
    elif isinstance(value, int):
        setattr(statement, name, value ^ 1)
    else:
        value.seconds ^= 1


def payload(statement: ScanStatement, as_json: bool) -> bytes:
    if not as_json:
        return statement.SerializeToString()
    to_json: Callable[..., str] = json_format.MessageToJson
    return to_json(statement).encode()


def sealed_as(signer: Identity, statement: ScanStatement, as_json: bool) -> Envelope:
    return seal(signer, payload(statement, as_json), JSON_TYPE if as_json else PROTOBUF_TYPE)
