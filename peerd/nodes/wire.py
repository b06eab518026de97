"""Values -> messages: organizations, nodes, runs and answers as people see them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable

from peerd.moments import moment
from peerd.nodes import repository, runs
from peerd.nodes.message_json import result_from_json
from peerd.nodes.messages import FailureReason
from peerd.nodes.model import NodeStatus
from peerd.nodes.next_action import Answer
from peerd.v1 import nodes_pb2

NameOf = Callable[[str], str]


def to_organization(row: sqlite3.Row) -> nodes_pb2.Organization:
    """With its whole policy."""
    return nodes_pb2.Organization(
        org_id=row["org_id"],
        slug=row["slug"],
        name=row["name"],
        description=row["description"],
        contact_email=row["contact_email"],
        active=bool(row["active"]),
        policy=repository.stored_policy(row),
        created_at=moment(row["created_at"]),
        updated_at=moment(row["updated_at"]),
        created_by=row["created_by"],
        node_count=row["node_count"],
    )


def to_answer(answer: Answer) -> nodes_pb2.NodeAnswer:
    """The decision's answer."""
    return nodes_pb2.NodeAnswer(
        success=answer.success,
        error=answer.error or "",
        next_action=answer.next_action or "",
        node_id=answer.node_id,
        org_id=answer.org_id,
        status=answer.status,
        protocol=answer.protocol,
        note=answer.note,
        run_id=answer.run_id,
        workflow_execution_id=answer.workflow_execution_id,
    )


def to_node(row: sqlite3.Row, running: sqlite3.Row | None, name_of: NameOf) -> nodes_pb2.Node:
    """A node of :data:`peerd.nodes.repository.NODES`, with what is under way for it."""
    message = nodes_pb2.Node(
        node_id=row["node_id"],
        org_id=row["org_id"],
        org_slug=row["slug"],
        target=row["target"],
        ip=row["host"] if row["is_ip"] else "",
        hostname="" if row["is_ip"] else row["host"],
        port=row["port"] or 0,
        status=_status(row["status"]),
        protocol=row["protocol"],
        version=row["version"],
        reason=row["reason"],
        message=row["message"],
        since=moment(row["since"]),
        created_at=moment(row["created_at"]),
        updated_at=moment(row["updated_at"]),
        running=to_run(running, name_of) if running is not None else None,
    )
    if row["scanned_at"] is not None:
        message.score.CopyFrom(
            nodes_pb2.NodeScore(
                score=row["score"], risk=row["risk"], scanned_at=moment(row["scanned_at"]), run_id=row["scan_run_id"]
            )
        )
    message.next_action = _next_action(row, running)
    return message


def _next_action(row: sqlite3.Row, running: sqlite3.Row | None) -> str:
    if running is not None:
        return f"wait: a {running['kind']} is under way ('peerctl executions show {running['workflow_execution_id']}')"
    if row["reason"] == "refused":
        return "let a peer probe: '[nodes] prober = true' in its configuration, and the policy's --on-role or --on-peer"
    if row["reason"] == FailureReason.UNKNOWN_PROTOCOL:
        return (
            "let the peer that probes know the protocol: its file belongs in the protocols_dir there, too; "
            "'peerctl services search node-prober' shows who knows which"
        )
    if not row["protocol"]:
        return f"discover it: 'peerctl nodes discover {row['node_id']}'"
    scan = f"'peerctl nodes scan {row['target']} --org {row['slug']}'"
    match NodeStatus(row["status"]):
        case NodeStatus.SCANNED:
            return f"read its report: 'peerctl nodes report {row['node_id']}'"
        case NodeStatus.ERROR:
            return f"mend what the message names, then scan it again: {scan}"
        case _:
            return f"scan it: {scan}"


def to_transition(row: sqlite3.Row) -> nodes_pb2.NodeTransition:
    """One entry of a node's history."""
    return nodes_pb2.NodeTransition(
        at=moment(row["at"]),
        from_status=_status(row["from_status"]),
        to_status=_status(row["to_status"]),
        event=row["event"],
        detail=row["detail"],
        caller=row["caller"],
        run_id=row["run_id"],
    )


def to_run(row: sqlite3.Row, name_of: NameOf) -> nodes_pb2.NodeRun:
    """A discovery or scan, with what it recognised."""
    message = nodes_pb2.NodeRun(
        run_id=row["id"],
        node_id=row["node_id"],
        kind=nodes_pb2.NodeRunKind.Value(f"NODE_RUN_KIND_{row['kind'].upper()}"),
        status=nodes_pb2.NodeRunStatus.Value(f"NODE_RUN_STATUS_{row['status'].upper()}"),
        protocol=row["protocol"],
        level=row["level"],
        workflow_execution_id=row["workflow_execution_id"],
        job=row["job"],
        peer=name_of(row["peer_id"]) if row["peer_id"] else "",
        reason=row["reason"],
        message=row["message"],
        started_at=moment(row["started_at"]),
        ended_at=moment(row["ended_at"]),
        score=row["score"] or 0,
        risk=row["risk"],
        version=row["version"],
        sweep_id=row["sweep_id"],
        caller=row["caller"],
    )
    try:
        found = result_from_json(row["result"]).recognitions if row["result"] else ()
    except ValueError:  # a result that cannot be read failed the run, and its message says so
        found = ()
    message.recognitions.extend(
        nodes_pb2.NodeRecognition(
            protocol=item.protocol,
            confidence=item.confidence,
            version=item.version,
            address=item.address,
            port=max(0, item.port),
            evidence=item.evidence,
        )
        for item in found
    )
    return message


def to_sweep(row: sqlite3.Row, counts: Iterable[sqlite3.Row], name_of: NameOf) -> nodes_pb2.NodeSweep:
    """A sweep with how far it is; ``counts`` are those of :data:`peerd.nodes.runs.SWEEP_COUNTS`."""
    message = nodes_pb2.NodeSweep(
        sweep_id=row["id"],
        org_id=row["org_id"],
        workflow_execution_id=row["workflow_execution_id"],
        started_at=moment(row["started_at"]),
        left_out=row["left_out"],
        left_out_reason=row["left_out_reason"],
    )
    ended = 0
    for count in counts:
        number = count["count"]
        message.nodes += number
        if count["status"] == runs.OK:
            message.scanned += number
            message.risks[count["risk"]] += number
        elif count["status"] == runs.FAILED:
            message.failed += number
            message.reasons[count["reason"]] += number
        if count["peer_id"]:
            message.peers[name_of(count["peer_id"])] += number
        ended = max(ended, count["ended_at"] or 0)
    if message.scanned + message.failed == message.nodes:
        message.ended_at.CopyFrom(moment(ended))
    return message


def _status(text: str) -> nodes_pb2.NodeStatus.ValueType:
    return nodes_pb2.NodeStatus.Value(f"NODE_STATUS_{text.upper()}") if text else nodes_pb2.NODE_STATUS_UNSPECIFIED
