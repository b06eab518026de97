"""``peerctl scans``: signed scans and how they are processed."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

import click

from peerd.cli.app import Noun
from peerd.cli.failures import WorkFailed
from peerd.cli.output import (
    duration,
    enum_word,
    local_time,
    print_fields,
    print_json,
    print_json_line,
    print_table,
    seconds_of,
    size,
    styled,
)
from peerd.cli.settings import Settings, call, pass_settings

if TYPE_CHECKING:
    from peerd.client import Client
    from peerd.v1 import scans_pb2

_FORMATS = ("auto", "naabu", "nmap_xml", "masscan_json", "masscan_ndjson", "masscan_xml", "host_port")
_STATES = ("pending", "processing", "completed", "failed", "cancelled")


@click.group(cls=Noun, default="list")
def scans() -> None:
    """Signed scans; 'peerctl scans' alone lists their ingest jobs."""


@scans.command("submit")
@click.argument("file", type=click.Path(allow_dash=True, exists=True, dir_okay=False))
@click.option(
    "--format", "format_", type=click.Choice(_FORMATS), default="auto", help="Told by the content by default."
)
@click.option("--scan-id", default="", help="Names the scan, once and for all; a random one by default.")
@click.option("--organization", default="", help="Slug or UUID of an organization, as a tag.")
@click.option("--vantage", default="", help="From where in the network it was seen, in your words.")
@click.option(
    "--scope",
    default="",
    help="What was looked at, as '10.0.0.0/24 tcp:1-1024'; what it does not show is gone.",
)
@click.option("--tool", default="", help="What made it.")
@click.option("--tool-version", default="")
@click.option("--wait", is_flag=True, help="Until it is processed; fails if that fails.")
@pass_settings
def submit(
    settings: Settings,
    file: str,
    format_: str,
    scan_id: str,
    organization: str,
    vantage: str,
    scope: str,
    tool: str,
    tool_version: str,
    wait: bool,
) -> None:
    """Sign FILE (- for standard input) as this machine's peer and hand it in."""
    from peerd.v1 import scans_pb2

    statement = scans_pb2.ScanStatement(
        format="" if format_ == "auto" else format_,
        scan_id=scan_id,
        organization=organization,
        vantage=vantage,
        scope=scope,
        tool=tool,
        tool_version=tool_version,
    )

    async def hand_in(peerd: Client) -> tuple[scans_pb2.SubmitResponse, scans_pb2.IngestJob]:
        with _opened(file) as content:
            answer = await peerd.submit_scan(content, statement)
        if not wait:
            return answer, answer.job
        return answer, await peerd.wait_for_ingest(answer.job.ingest_job_id, timeout=settings.timeout)

    answer, job = call(settings, hand_in)
    if settings.as_json:
        print_json({"job": job, "repeated": answer.repeated})
    else:
        again = ", as it was handed in before" if answer.repeated else ""
        click.echo(f"ingest job {job.ingest_job_id} is {_state(job)}: scan {job.scan_id}{again}")
    if wait:
        _end(settings, job)


@scans.command("list")
@click.option("--state", type=click.Choice(_STATES), help="Only these.")
@click.option("--scanner", default="", help="Only of this one: a name or a key.")
@click.option("--limit", type=click.IntRange(min=1), default=50, help="At most so many; 50 by default.")
@click.option("--oldest-first", is_flag=True)
@pass_settings
def list_jobs(settings: Settings, state: str | None, scanner: str, limit: int, oldest_first: bool) -> None:
    """Ingest jobs, newest first."""
    from peerd.v1 import scans_pb2

    wanted = scans_pb2.IngestState.Value(f"INGEST_STATE_{state.upper()}" if state else "INGEST_STATE_UNSPECIFIED")
    found = call(
        settings,
        lambda peerd: peerd.ingest_jobs(state=wanted, scanner=scanner, oldest_first=oldest_first, limit=limit),
    )
    if settings.as_json:
        print_json({"jobs": found})
        return
    rows = [
        (
            str(job.ingest_job_id),
            _state(job),
            job.scanner_name,
            job.scan_id,
            str(job.hosts),
            str(job.ports),
            str(job.skipped),
            local_time(job.created_at),
            job.message,
        )
        for job in found
    ]
    headings = ("ID", "STATE", "SCANNER", "SCAN", "HOSTS", "PORTS", "SKIPPED", "CAME", "WHY")
    print_table(headings, rows, empty="no scans")


@scans.command("show")
@click.argument("ingest_job_id", type=int)
@click.option("--skipped", is_flag=True, help="With the lines that were skipped, and why.")
@pass_settings
def show(settings: Settings, ingest_job_id: int, skipped: bool) -> None:
    """One ingest job."""

    async def fetch(peerd: Client) -> tuple[scans_pb2.IngestJob, list[scans_pb2.SkippedRecord]]:
        job = await peerd.ingest_job(ingest_job_id)
        return job, await peerd.skipped_records(ingest_job_id) if skipped else []

    job, records = call(settings, fetch)
    if settings.as_json:
        print_json({"job": job, "skipped": records})
        return
    _print_job(job)
    if skipped:
        click.echo()
        rows = [(str(record.line) if record.line else "", record.reason, record.excerpt) for record in records]
        print_table(("LINE", "REASON", "WHAT"), rows, empty="nothing was skipped")


@scans.command("hand-ins")
@click.option("--state", type=click.Choice(("waiting", "handed_in", "refused")), help="Only these.")
@click.option("--limit", type=click.IntRange(min=1), default=50, help="At most so many; 50 by default.")
@pass_settings
def list_hand_ins(settings: Settings, state: str | None, limit: int) -> None:
    """Scans that jobs here left, and what became of handing them in, newest first."""
    from peerd.v1 import scans_pb2

    wanted = scans_pb2.HandInState.Value(f"HAND_IN_STATE_{(state or 'unspecified').upper()}")
    found = call(settings, lambda peerd: peerd.scan_hand_ins(state=wanted, limit=limit))
    if settings.as_json:
        print_json({"hand_ins": found})
        return
    rows = [
        (
            str(one.hand_in_id),
            enum_word(scans_pb2.HandInState, one.state).replace("_", " "),
            one.service,
            str(one.job_execution_id),
            one.path,
            one.to_name,
            str(one.ingest_job_id or ""),
            str(one.attempts),
            local_time(one.updated_at),
            f"{one.message}; {one.next_action}" if one.next_action else one.message,
        )
        for one in found
    ]
    headings = ("ID", "STATE", "SERVICE", "JOB", "FILE", "TO", "INGEST JOB", "TRIES", "SINCE", "WHY")
    print_table(headings, rows, empty="no scans were handed in from here")


@scans.command("watch")
@click.argument("ingest_job_id", type=int)
@pass_settings
def watch(settings: Settings, ingest_job_id: int) -> None:
    """Follow an ingest job to its end; fails if it fails."""

    async def follow(peerd: Client) -> scans_pb2.IngestJob:
        seen = ""
        async for job in peerd.watch_ingest_job(ingest_job_id, timeout=settings.timeout):
            line = f"{_state(job)}  {job.records} records, {job.skipped} skipped" + (
                f"  {job.reason}: {job.message}" if job.reason else ""
            )
            if settings.as_json:
                print_json_line(job)
            elif line != seen:
                click.echo(line)
            seen = line
        return job

    _end(settings, call(settings, follow))


@scans.command("cancel")
@click.argument("ingest_job_id", type=int)
@click.option("--reason", default="", help="Why, for whoever reads it later.")
@pass_settings
def cancel(settings: Settings, ingest_job_id: int, reason: str) -> None:
    """Process no more of it; what is stored stays."""
    job = call(settings, lambda peerd: peerd.cancel_ingest_job(ingest_job_id, reason=reason))
    if settings.as_json:
        print_json(job)
    else:
        click.echo(f"ingest job {ingest_job_id} is {_state(job)}")


@scans.command("retry")
@click.argument("ingest_job_id", type=int)
@pass_settings
def retry(settings: Settings, ingest_job_id: int) -> None:
    """Process one that has failed or was cancelled once more, from its beginning."""
    job = call(settings, lambda peerd: peerd.retry_ingest_job(ingest_job_id))
    if settings.as_json:
        print_json(job)
    else:
        click.echo(f"ingest job {ingest_job_id} is {_state(job)}")


@contextlib.contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    """The file, or what standard input says as one: it is read twice, to sign and to send."""
    if file != "-":
        with open(file, "rb") as content:
            yield content
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
        copy.seek(0)
        yield copy


def _end(settings: Settings, job: scans_pb2.IngestJob) -> None:
    from peerd.v1 import scans_pb2

    if not settings.as_json:
        if job.state == scans_pb2.INGEST_STATE_COMPLETED:
            click.echo(f"{job.hosts} hosts, {job.ports} ports, {job.skipped} skipped")
        elif job.message:
            click.echo(f"{job.reason}: {job.message}\nnext: {job.next_action}", err=True)
    if job.state != scans_pb2.INGEST_STATE_COMPLETED:
        raise WorkFailed


def _state(job: scans_pb2.IngestJob) -> str:
    from peerd.v1 import scans_pb2

    return styled(enum_word(scans_pb2.IngestState, job.state))


def _print_job(job: scans_pb2.IngestJob) -> None:
    took = ""
    if job.completed_at.seconds:
        took = f", after {duration(seconds_of(job.completed_at) - seconds_of(job.created_at))}"
    fields = {
        "ingest job": f"{job.ingest_job_id} ({job.job_uuid})",
        "state": f"{_state(job)}{took}",
        "why": f"{job.reason}: {job.message}" if job.reason else "",
        "to do": job.next_action,
        "tried again": local_time(job.next_attempt_at),
        "scan": job.scan_id,
        "scanner": f"{job.scanner_name} {job.scanner}",
        "tool": f"{job.tool} {job.tool_version}".strip(),
        "format": job.format or "told by its content",
        "organization": job.organization,
        "vantage": job.vantage,
        "scope": job.scope,
        "made": local_time(job.scanned_at),
        "signed": local_time(job.issued_at),
        "came": f"{local_time(job.created_at)} from {job.submitted_by}",
        "bytes": f"{size(job.data_size)}, {'kept' if job.has_data else 'removed'}, SHA-256 {job.data_sha256.hex()}",
        "records": f"{job.records}, {job.skipped} skipped",
        "found": f"{job.hosts} hosts, {job.ports} ports",
    }
    print_fields(fields)
