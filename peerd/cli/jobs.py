"""``peerctl jobs``: this peer as an executor, whoever ordered the job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from peerd.cli.app import Noun
from peerd.cli.output import (
    age,
    duration,
    enum_word,
    local_time,
    print_fields,
    print_json,
    print_table,
    seconds_of,
    short,
    size,
)
from peerd.cli.settings import Settings, call, comma_list, pass_settings
from peerd.sizes import show_size

if TYPE_CHECKING:
    from peerd.v1 import jobs_pb2

_STATUSES = ("created", "waiting_inputs", "ready", "running", "completed", "failed", "lost", "cancelled")


@click.group(cls=Noun, default="list")
def jobs() -> None:
    """What this peer runs; 'peerctl jobs' alone lists it."""


@jobs.command("list")
@click.option(
    "--status", "statuses", type=comma_list(*_STATUSES), default="", help="Only these, such as running,ready."
)
@click.option("--limit", type=click.IntRange(min=1), help="At most so many.")
@pass_settings
def list_jobs(settings: Settings, statuses: list[str], limit: int | None) -> None:
    """Job executions of this peer."""
    from peerd.v1 import jobs_pb2

    wanted = [jobs_pb2.JobStatus.Value(f"JOB_STATUS_{word.upper()}") for word in statuses]
    found = call(settings, lambda peerd: peerd.jobs(statuses=wanted, limit=limit))
    if settings.as_json:
        print_json({"jobs": found})
        return
    rows = [
        (
            str(job.job_execution_id),
            job.node_id,
            job.service or "(command)",
            enum_word(jobs_pb2.JobStatus, job.report.status),
            job.report.reason,
            age(job.report.since),
            short(job.orchestrator_peer_id),
            f"{job.report.key.workflow_execution_id}/{job.report.key.workflow_job_id}",
        )
        for job in found
    ]
    print_table(
        ("ID", "JOB", "SERVICE", "STATUS", "REASON", "SINCE", "ORCHESTRATOR", "ITS EXECUTION/JOB"),
        rows,
        empty="no jobs",
    )


@jobs.command("show")
@click.argument("job_execution_id", type=int)
@pass_settings
def show_job(settings: Settings, job_execution_id: int) -> None:
    """One job execution with its attempts and interfaces."""
    job = call(settings, lambda peerd: peerd.job(job_execution_id))
    if settings.as_json:
        print_json(job)
        return
    from peerd.v1 import catalog_pb2, jobs_pb2, registry_pb2

    print_fields(
        {
            "job execution": str(job.job_execution_id),
            "job": job.node_id,
            "service": job.service or "(command)",
            "sends again": f"job execution {job.reused_job_execution_id}" if job.reused_job_execution_id else "",
            "status": enum_word(jobs_pb2.JobStatus, job.report.status),
            "reason": job.report.reason,
            "message": job.report.message,
            "since": local_time(job.report.since),
            "orchestrator": job.orchestrator_peer_id,
            "its execution": str(job.report.key.workflow_execution_id),
            "its workflow job": str(job.report.key.workflow_job_id),
            "placement": str(job.report.key.placement),
            "generation": str(job.report.generation),
            "exit code": str(job.report.exit_code) if job.report.HasField("exit_code") else "",
            "received": size(job.report.bytes_received),
            "sent": size(job.report.bytes_sent),
            "priority": str(job.priority) if job.priority else "",
            "reserves": _amounts(job.resources, job.resources.gpus),
            "gpus": ", ".join(map(str, job.gpu_indices)),
            "isolation": enum_word(registry_pb2.IsolationLevel, job.isolation),
            "limits": _limits(job),
            "limit hit": job.report.limit,
            "lease until": local_time(job.lease_until),
            "directory": job.directory,
        }
    )
    for interface in job.interfaces:
        for end in interface.peers:
            arrow = "from" if end.mount_function == catalog_pb2.MOUNT_FUNCTION_OUTPUT else "to"
            kind = enum_word(catalog_pb2.InterfaceKind, interface.kind)
            place = f"{kind} {interface.path}".strip()
            click.echo(
                f"{place}  {arrow} {short(end.peer_id)} workflow job {end.peer_workflow_job_id}, "
                f"job execution {end.peer_job_execution_id}  (edge {end.edge_id})"
            )
    for attempt in job.attempts:
        ended = seconds_of(attempt.ended_at) - seconds_of(attempt.started_at) if attempt.ended_at.seconds else None
        code = f" {attempt.exit_code}" if attempt.HasField("exit_code") else ""
        lasted = f" after {duration(ended)}" if ended is not None else ""
        click.echo(f"attempt {attempt.attempt}  {attempt.outcome}{code}{lasted}")


def _amounts(of: Any, gpus: int = 0) -> str:
    """What is not 0 of resources or limits."""
    parts = (
        f"{of.cpus:g} cpus" if of.cpus else "",
        f"{show_size(of.memory_bytes)} of memory" if of.memory_bytes else "",
        f"{show_size(of.disk_bytes)} of disk" if of.disk_bytes else "",
        f"{gpus} gpus" if gpus else "",
    )
    return ", ".join(part for part in parts if part)


def _limits(job: jobs_pb2.JobExecution) -> str:
    """What was in force for its process, and how."""
    from peerd.v1 import registry_pb2

    if not job.HasField("limits"):
        return ""
    pids = f", {job.limits.pids} processes" if job.limits.pids else ""
    by = enum_word(registry_pb2.LimitsLevel, job.limits.level)
    return f"{_amounts(job.limits)}{pids} (by {by})".lstrip(", ")
