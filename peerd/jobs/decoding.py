"""From the wire to our own values. Everything another peer sends is checked here, and nowhere later."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from peerd.catalog.declaration import INTERFACE_KINDS
from peerd.catalog.model import RECEIVING, SENDING, InterfaceKind
from peerd.digest import digest
from peerd.errors import PeerdError, Reason, Violation
from peerd.identity.peer_id import PeerId, parse_peer_id
from peerd.jobs.creation import Order
from peerd.jobs.model import Edge, JobKey, JobStatus, Resources, RetryPolicy
from peerd.jobs.reuse import Reused
from peerd.jobs.secrets import WantedSecrets
from peerd.sizes import MAX_SIZE_BYTES
from peerd.transfers.paths import parse_relative_path
from peerd.transfers.selection import EVERYTHING, MAX_PATTERNS, Rename, Selection, pattern_flaw, rename_flaw
from peerd.v1 import catalog_pb2, jobs_pb2

MAX_EDGES = 20_000
MAX_ATTEMPTS = 100
MAX_PRIORITY = 100
MAX_EXIT_CODES = 64
_RETRY_REASONS = frozenset({"exit", "timeout", "limit", "lost"})
_DEFAULT_RETRY_REASONS = frozenset({"exit", "timeout"})
_DEFAULT_LEASE_SECONDS = 60.0
_MAX_SECONDS = 10 * 365 * 86_400.0
_MAX_TEXT = 256
_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def to_key(orchestrator: PeerId, proto: jobs_pb2.JobKey) -> JobKey:
    """The key, with the authenticated caller as orchestrator. Raises INVALID_ARGUMENT."""
    if _ID.fullmatch(proto.store_id) is None:
        raise _invalid("key.store_id", "1 to 128 letters, digits, '.', '_' and '-'")
    for name in ("workflow_execution_id", "workflow_job_id", "placement"):
        if getattr(proto, name) < 1:
            raise _invalid(f"key.{name}", "must be positive")
    return JobKey(
        orchestrator=orchestrator,
        store_id=proto.store_id,
        workflow_execution_id=proto.workflow_execution_id,
        workflow_job_id=proto.workflow_job_id,
        placement=proto.placement,
    )


def to_order(orchestrator: PeerId, proto: jobs_pb2.CreateJobRequest) -> Order:
    """What is asked for. Raises INVALID_ARGUMENT naming the field."""
    for name in ("workflow_id", "node_id", "job_name", "service"):
        if len(getattr(proto, name)) > _MAX_TEXT:
            raise _invalid(name, f"longer than {_MAX_TEXT} characters")
    if proto.WhichOneof("work") is None or (proto.HasField("service") and not proto.service):
        raise _invalid("service", "name a service or give a command")
    return Order(
        key=to_key(orchestrator, proto.key),
        digest=_content(proto),
        workflow_id=proto.workflow_id,
        node_id=proto.node_id,
        job_name=proto.job_name,
        request_id=proto.request_id,
        service=proto.service,
        argv=tuple(proto.command.argv),
        network=proto.command.network,
        params=dict(proto.params),
        env=dict(proto.env),
        secrets=WantedSecrets(env=dict(proto.secrets), files=tuple(proto.secret_files)),
        timeout_seconds=_seconds("timeout_seconds", proto.timeout_seconds) or None,
        retry=_retry(proto.retry),
        waits_for_inputs=proto.execution_constraint != jobs_pb2.EXECUTION_CONSTRAINT_NONE,
        stop_without_lease=proto.partition_policy == jobs_pb2.PARTITION_POLICY_STOP,
        lease_seconds=_seconds("lease_seconds", proto.lease_seconds) or _DEFAULT_LEASE_SECONDS,
        resources=Resources(
            cpus=_seconds("resources.cpus", proto.resources.cpus),
            memory_bytes=_size("resources.memory_bytes", proto.resources.memory_bytes),
            disk_bytes=_size("resources.disk_bytes", proto.resources.disk_bytes),
            gpus=proto.resources.gpus,
        ),
        priority=_priority(proto.priority),
        reused=to_reused(proto.reused) if proto.HasField("reused") else None,
    )


def to_reused(proto: jobs_pb2.ReusedJob) -> Reused:
    """Which job is to be used again. Raises INVALID_ARGUMENT."""
    if proto.job_execution_id < 1 or proto.workflow_execution_id < 1 or not 0 < len(proto.node_id) <= _MAX_TEXT:
        raise _invalid("reused", "name the job execution, its workflow execution and its node")
    return Reused(
        job_execution_id=proto.job_execution_id,
        workflow_execution_id=proto.workflow_execution_id,
        node_id=proto.node_id,
    )


def to_edges(proto: jobs_pb2.StartJobRequest) -> list[Edge]:
    """One edge for each interface peer. Raises INVALID_ARGUMENT or INVALID_PATH naming the field."""
    if proto.generation < 1:
        raise _invalid("generation", "must be positive")
    edges: list[Edge] = []
    for index, interface in enumerate(proto.interfaces):
        kind = INTERFACE_KINDS.get(interface.kind)
        if kind is None:
            raise _invalid(f"interfaces[{index}].kind", "say which kind of interface it is")
        if (kind is InterfaceKind.MOUNT) != bool(interface.path):
            raise _invalid(f"interfaces[{index}].path", "mounts have a path, other interfaces have none")
        if interface.path:
            parse_relative_path(interface.path)
        for number, peer in enumerate(interface.peers):
            edges.append(_edge(f"interfaces[{index}].peers[{number}]", kind, interface.path, peer))
    if len({edge.edge_id for edge in edges}) != len(edges) or len(edges) > MAX_EDGES:
        raise _invalid("interfaces", f"each edge once, and at most {MAX_EDGES}")
    return edges


def to_statuses(values: list[jobs_pb2.JobStatus.ValueType]) -> list[JobStatus]:
    """Statuses to look for. Raises INVALID_ARGUMENT."""
    by_value = {jobs_pb2.JobStatus.Value(f"JOB_STATUS_{status.name}"): status for status in JobStatus}
    if any(value not in by_value for value in values):
        raise _invalid("statuses", "unknown status")
    return [by_value[value] for value in values]


def _edge(field: str, kind: InterfaceKind, path: str, peer: jobs_pb2.JobInterfacePeer) -> Edge:
    incoming = peer.mount_function == catalog_pb2.MOUNT_FUNCTION_OUTPUT
    if not incoming and peer.mount_function != catalog_pb2.MOUNT_FUNCTION_INPUT:
        raise _invalid(f"{field}.mount_function", "OUTPUT (it sends to us) or INPUT (it receives from us)")
    if kind not in (RECEIVING if incoming else SENDING):
        raise _invalid(f"{field}.mount_function", f"a job does not {'receive' if incoming else 'send'} by {kind.value}")
    if peer.edge_id < 1 or peer.peer_job_execution_id < 0 or peer.peer_workflow_job_id < 0:
        raise _invalid(field, "edge_id must be positive, the peer's ids must not be negative")
    if peer.destination:
        parse_relative_path(peer.destination)
    return Edge(
        edge_id=peer.edge_id,
        incoming=incoming,
        kind=kind,
        path=path,
        peer_id=parse_peer_id(peer.peer_id),
        peer_workflow_job_id=peer.peer_workflow_job_id,
        peer_job_execution_id=peer.peer_job_execution_id,
        destination=peer.destination if incoming else "",
        position=peer.position,
        selection=EVERYTHING if incoming else _selection(field, peer),
    )


def _selection(field: str, peer: jobs_pb2.JobInterfacePeer) -> Selection:
    rules = tuple(Rename(origin=getattr(rule, "from"), to=rule.to) for rule in peer.rename)
    if peer.source_path:
        parse_relative_path(peer.source_path)
    if len(peer.files) > MAX_PATTERNS or len(rules) > MAX_PATTERNS:
        raise _invalid(f"{field}.files", f"at most {MAX_PATTERNS} patterns, and as many renames")
    for pattern in peer.files:
        if flaw := pattern_flaw(pattern):
            raise _invalid(f"{field}.files", flaw)
    for rule in rules:
        if flaw := rename_flaw(rule):
            raise _invalid(f"{field}.rename", flaw)
    return Selection(path=peer.source_path, files=tuple(peer.files), rename=rules, optional=peer.optional)


def _retry(proto: jobs_pb2.RetryPolicy) -> RetryPolicy:
    unknown = set(proto.reasons) - _RETRY_REASONS
    if unknown:
        raise _invalid("retry.reasons", f"{sorted(unknown)[0]!r} is not one of exit, timeout, limit, lost")
    if proto.attempts > MAX_ATTEMPTS:
        raise _invalid("retry.attempts", f"at most {MAX_ATTEMPTS}")
    default = RetryPolicy()
    return RetryPolicy(
        attempts=proto.attempts or 1,
        backoff_seconds=_seconds("retry.backoff_seconds", proto.backoff_seconds) or default.backoff_seconds,
        max_backoff_seconds=_seconds("retry.max_backoff_seconds", proto.max_backoff_seconds)
        or default.max_backoff_seconds,
        reasons=frozenset(proto.reasons) or _DEFAULT_RETRY_REASONS,
        jitter=_jitter(proto.jitter),
        exit_codes=tuple(_exit_codes(proto.exit_codes)),
    )


def _jitter(value: float) -> float:
    if not 0 <= value <= 1:  # also what is no number
        raise _invalid("retry.jitter", "from 0 to 1")
    return value


def _exit_codes(ranges: Sequence[jobs_pb2.ExitCodes]) -> Iterator[tuple[int, int]]:
    if len(ranges) > MAX_EXIT_CODES:
        raise _invalid("retry.exit_codes", f"at most {MAX_EXIT_CODES}")
    for one in ranges:
        if not 1 <= one.first <= one.last <= 255:
            raise _invalid("retry.exit_codes", "from 1 to 255, the smaller first")
        yield one.first, one.last


def _content(proto: jobs_pb2.CreateJobRequest) -> bytes:
    """Digest of what makes a request another job: not who repeats it, nor how long its lease is."""
    content = jobs_pb2.CreateJobRequest()
    content.CopyFrom(proto)
    content.ClearField("request_id")
    content.ClearField("lease_seconds")
    return digest(content.SerializeToString(deterministic=True))


def _seconds(field: str, value: float) -> float:
    if not math.isfinite(value) or not 0 <= value <= _MAX_SECONDS:
        raise _invalid(field, "not a sensible number")
    return value


def _size(field: str, value: int) -> int:
    if value > MAX_SIZE_BYTES:
        raise _invalid(field, f"more than {MAX_SIZE_BYTES}")
    return value


def _priority(value: int) -> int:
    if not -MAX_PRIORITY <= value <= MAX_PRIORITY:
        raise _invalid("priority", f"between {-MAX_PRIORITY} and {MAX_PRIORITY}")
    return value


def _invalid(field: str, message: str) -> PeerdError:
    return PeerdError(
        Reason.INVALID_ARGUMENT, f"{field}: {message}", violations=[Violation(field=field, message=message)]
    )
