"""Scans made to hurt, handed in to a real daemon: refused with a reason, in little time and memory; others go on."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from peerd.client import Client
from peerd.errors import PeerdError, Reason
from peerd.v1 import scans_pb2
from tests.scans.formats import hostile
from tests.scans.formats.test_hostile import INVALID, RECORDS, SKIPPED_ONLY

from .fleet import Daemon, Fleet, run_async

MIB = 1 << 20
LARGE = 24 * MIB
"""In place of a gigabyte: more than any bound within a scan, and soon sent."""
CPU_SECONDS = 2.0
MEMORY_MIB = 64
TRIES = 3
ORDINARY = b"".join(b'{"ip":"10.0.%d.%d","port":80}\n' % (n // 250, n % 250 + 1) for n in range(20_000))


@pytest.fixture(scope="module")
def alone() -> Iterator[Daemon]:
    made = Fleet(("c",))
    try:
        made.found(configure={"c": "\n[scans]\nsubmissions_per_minute = 0\n"})
        hand_in(made["c"], ORDINARY, "ordinary")  # so that all code is loaded before anything is measured
        yield made["c"]
    finally:
        made.close()


def hand_in(daemon: Daemon, raw: bytes, scan_id: str, format_: str = "") -> scans_pb2.IngestJob:
    """Its ingest job, once that is final."""

    async def call() -> scans_pb2.IngestJob:
        statement = scans_pb2.ScanStatement(scan_id=scan_id, format=format_)
        async with Client(socket=daemon.socket, timeout=120) as peerd:
            answer = await peerd.submit_scan(io.BytesIO(raw), statement)
            return await peerd.wait_for_ingest(answer.job.ingest_job_id, timeout=120)

    job: scans_pb2.IngestJob = run_async(call())
    return job


def cpu_seconds(daemon: Daemon) -> float:
    assert daemon.process is not None
    fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(daemon: Daemon, field: str) -> float:
    """VmRSS or VmHWM (the most since the start, or since it was reset), in MiB."""
    assert daemon.process is not None
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(field)).split()[1]) / 1024


def measured(daemon: Daemon, raw: bytes, scan_id: str, format_: str) -> tuple[scans_pb2.IngestJob, float, float]:
    """Its ingest job, the seconds of processor time that the daemon spent meanwhile, and how many MiB it grew by."""
    assert daemon.process is not None
    Path(f"/proc/{daemon.process.pid}/clear_refs").write_text("5")  # the most memory is measured anew
    memory_before, cpu_before = memory(daemon, "VmRSS"), cpu_seconds(daemon)
    job = hand_in(daemon, raw, scan_id, format_)
    return job, cpu_seconds(daemon) - cpu_before, memory(daemon, "VmHWM") - memory_before


@pytest.mark.parametrize("name", hostile.CASES)
def test_a_hostile_scan_fails_with_its_reason(alone: Daemon, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostile, "GIB", LARGE)
    format_, pieces = hostile.CASES[name]
    raw = b"".join(pieces())
    for number in range(TRIES):  # all else that the daemon does meanwhile counts, and other tests have its caches
        scan_id = f"hostile-{list(hostile.CASES).index(name)}-{number}"
        job, spent, grown = measured(alone, raw, scan_id, format_.value if format_ else "")
        if spent < CPU_SECONDS and grown < MEMORY_MIB:
            break
    assert spent < CPU_SECONDS and grown < MEMORY_MIB, f"{spent:.1f} s of processor time, {grown:.0f} MiB"
    records = RECORDS.get(name, 0)
    assert job.records == records
    if records and name in SKIPPED_ONLY:
        assert job.state == scans_pb2.INGEST_STATE_COMPLETED and job.skipped > 0
        return
    assert job.state == scans_pb2.INGEST_STATE_FAILED and job.message and job.next_action
    if name in INVALID:
        assert job.reason == "invalid_scan"
    elif name in SKIPPED_ONLY:
        assert (job.reason, job.skipped > 0) == ("no_valid_hosts", True)
    else:
        assert job.reason in ("scan_limit", "unknown_scan_format")


def test_after_all_of_them_it_still_takes_scans(alone: Daemon) -> None:
    async def state_a_gigabyte() -> None:
        async with Client(socket=alone.socket) as peerd:
            statement = scans_pb2.ScanStatement(scan_id="huge", data_sha256=bytes(32), data_size=1 << 30)
            envelope = (await peerd.sign_scan(statement)).envelope
            await peerd.submit_envelope(envelope, io.BytesIO(b" " * MIB), 1 << 30)

    with pytest.raises(PeerdError) as caught:
        run_async(state_a_gigabyte())
    assert caught.value.reason is Reason.TOO_LARGE
    job = hand_in(alone, b'{"ip":"192.0.2.200","port":443}\n', "last")
    assert (job.state, job.hosts) == (scans_pb2.INGEST_STATE_COMPLETED, 1)
