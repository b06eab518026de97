"""Every command: what it calls, that its table names what matters, and that -o json is one document."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from blake3 import blake3
from google.protobuf.message import Message

from peerd.cli.app import NOUNS
from peerd.cli.app import peerctl as app
from peerd.v1 import (
    access_pb2,
    audit_pb2,
    backup_pb2,
    catalog_pb2,
    daemon_pb2,
    devices_pb2,
    inventory_pb2,
    jobs_pb2,
    mesh_pb2,
    nodes_pb2,
    profiles_pb2,
    registry_pb2,
    scans_pb2,
    schedules_pb2,
    space_pb2,
    tokens_pb2,
    transfers_pb2,
    workflows_pb2,
)
from tests.cli.conftest import Peerctl
from tests.cli.executions import execution, job
from tests.cli.fake_daemon import FakeDaemon

PEER = registry_pb2.Peer(
    peer_id="b" * 52,
    name="beta",
    status=registry_pb2.PEER_STATUS_OFFLINE,
    status_reason="no answer",
    roles=["worker"],
    limits=registry_pb2.LIMITS_LEVEL_CGROUP,
)
TOKEN = tokens_pb2.Token(token_id="0123", scope=tokens_pb2.TOKEN_SCOPE_REGISTER, name="printers")
BACKUP = backup_pb2.Backup(path="/b/x.db", bytes=4096, peer_id="a" * 52, schema=10)
PROFILE = profiles_pb2.Profile(
    role="worker",
    version=4,
    config=profiles_pb2.ProfileConfig(labels=["fast"], limits=profiles_pb2.ProfileLimits(max_running_jobs=3)),
)
SERVICE = catalog_pb2.Service(
    service_id=3,
    peer_id="b" * 52,
    status=catalog_pb2.SERVICE_STATUS_INACTIVE,
    origin="added",
    declaration=catalog_pb2.ServiceDeclaration(
        name="counter",
        kind=catalog_pb2.SERVICE_KIND_PROCESS,
        isolation=registry_pb2.ISOLATION_LEVEL_BUBBLEWRAP,
        limits=registry_pb2.LIMITS_LEVEL_CGROUP,
        argv=["/usr/bin/wc", "${mode}"],
        params=[catalog_pb2.ServiceParam(name="mode")],
        interfaces=[catalog_pb2.ServiceInterface(kind=catalog_pb2.INTERFACE_KIND_MOUNT, path="left")],
    ),
)
JOB = jobs_pb2.JobExecution(
    job_execution_id=13,
    node_id="count",
    service="counter",
    orchestrator_peer_id="c" * 52,
    directory="/data/jobs/13",
    report=jobs_pb2.JobReport(
        key=jobs_pb2.JobKey(workflow_execution_id=100, workflow_job_id=28), status=jobs_pb2.JOB_STATUS_FAILED
    ),
    attempts=[jobs_pb2.JobAttempt(attempt=1, outcome="exit", exit_code=3)],
    limits=jobs_pb2.JobLimits(
        level=registry_pb2.LIMITS_LEVEL_CGROUP, memory_bytes=64 << 20, pids=100, disk_bytes=3 << 29
    ),
    interfaces=[
        jobs_pb2.JobInterface(
            kind=catalog_pb2.INTERFACE_KIND_INPUT,
            peers=[
                jobs_pb2.JobInterfacePeer(
                    edge_id=1,
                    peer_id="a" * 52,
                    peer_workflow_job_id=27,
                    peer_job_execution_id=12,
                    mount_function=catalog_pb2.MOUNT_FUNCTION_OUTPUT,
                )
            ],
        )
    ],
)
EXECUTION = execution(
    workflows_pb2.EXECUTION_STATUS_RUNNING, job(1, "count", "beta", workflows_pb2.WORKFLOW_JOB_STATUS_RUNNING, after=1)
)
RECORD = mesh_pb2.MemberRecord(subject="b" * 52, grants=[access_pb2.GRANT_OBSERVE, access_pb2.GRANT_EXECUTE])
WORKFLOW = workflows_pb2.Workflow(
    workflow_id="wf-1",
    name="word-count",
    version=2,
    definition=workflows_pb2.WorkflowDefinition(name="word-count", jobs=[workflows_pb2.JobDefinition(name="texts")]),
)
FIRING = schedules_pb2.Firing(
    firing_id=4,
    local="2026-03-29T03:00:00+02:00",
    cause="catch_up",
    status=schedules_pb2.FIRING_STATUS_FIRED,
    workflow_execution_id=7,
)
MINER = devices_pb2.Device(
    name="MINER_010",
    peer_name="beta",
    dev_path="/dev/ttyUSB0",
    status=devices_pb2.DEVICE_STATUS_ACTIVE,
    state="Mining",
    health="bad",
    health_reason="wrong_pool",
    reason="it mines at x:1 and not at y:2",
    reading=devices_pb2.MinerReading(hash_rate_khs=55.1, shares=3),
)
SCHEDULE = schedules_pb2.Schedule(
    name="nightly",
    workflow_name="word-count",
    definition=workflows_pb2.ScheduleDefinition(
        cron="30 2 * * *", timezone="Europe/Zurich", overlap="skip", catch_up="all", catch_up_limit=9, params={"a": "b"}
    ),
    next=[schedules_pb2.PlannedTime(local="2026-03-30T02:30:00+02:00")],
    last=FIRING,
    reason="paused since then",
    next_action="resume it",
)
INGEST = scans_pb2.IngestJob(
    ingest_job_id=5,
    state=scans_pb2.INGEST_STATE_COMPLETED,
    scanner="b" * 52,
    scanner_name="probe",
    scan_id="night-1",
    hosts=3,
    ports=9,
    skipped=2,
    records=11,
    data_size=4096,
)
HAND_IN = scans_pb2.ScanHandIn(
    hand_in_id=3,
    state=scans_pb2.HAND_IN_STATE_WAITING,
    service="port-scan",
    path="scan.xml",
    to_name="gate",
    message="gate is away",
    next_action="start it",
)
SCANNER = scans_pb2.ScannerKey(scanner="b" * 52, name="probe", public_key="QUJD", replaced_by="c" * 52)
TRANSFER = transfers_pb2.Transfer(
    key=transfers_pb2.TransferKey(workflow_execution_id=100, edge_id=1),
    direction=transfers_pb2.TRANSFER_DIRECTION_OUTGOING,
    peer_id="b" * 52,
    status="sending",
    bytes=1,
    bytes_total=2_000_000,
)

SEEN = inventory_pb2.InventoryServiceFacts(service_id=4, name="https", product="nginx", version="1.18.0", tls=True)
CERTIFICATE = inventory_pb2.InventoryCertificate(sha256="ab" * 32, common_name="www.example")
PORT = inventory_pb2.InventoryPort(
    address="192.0.2.7",
    transport="tcp",
    number=443,
    state="open",
    service=SEEN,
    certificate=CERTIFICATE,
    scanners=["k1", "k2"],
    hostnames=["=cmd()"],
)
HOST = inventory_pb2.InventoryHost(address="192.0.2.7", up=True, hostnames=["www.example"], asn=64500, open_ports=3)
VIEW = inventory_pb2.InventoryView(transport="tcp", number=443, scanner="k2", vantage="outside", state="filtered")
EDGE = inventory_pb2.GraphEdge(left="host:192.0.2.7", relation="in_asn", right="asn:64500", right_label="Example")

ANSWERS: dict[str, Message] = {
    "DaemonService.GetStatus": daemon_pb2.GetStatusResponse(
        name="alpha", peer_id="a" * 52, mesh_id="a" * 52, listen_address="127.0.0.1:7373", peers_online=2, peers_total=3
    ),
    "DaemonService.ExportTls": daemon_pb2.ExportTlsResponse(
        certificate_pem=b"CERT", private_key_pem=b"KEY", anchor_pem=b"CA"
    ),
    "ScanService.SignScan": scans_pb2.SignScanResponse(),
    "ScanService.Submit": scans_pb2.SubmitResponse(job=INGEST, repeated=True),
    "ScanService.GetIngestJob": scans_pb2.GetIngestJobResponse(job=INGEST),
    "ScanService.ListIngestJobs": scans_pb2.ListIngestJobsResponse(jobs=[INGEST]),
    "ScanService.ListSkippedRecords": scans_pb2.ListSkippedRecordsResponse(
        records=[scans_pb2.SkippedRecord(line=7, reason="no_address", excerpt="a name")]
    ),
    "ScanService.WatchIngestJob": scans_pb2.WatchIngestJobResponse(job=INGEST),
    "ScanService.CancelIngestJob": scans_pb2.CancelIngestJobResponse(job=INGEST),
    "ScanService.RetryIngestJob": scans_pb2.RetryIngestJobResponse(job=INGEST),
    "ScanService.ListHandIns": scans_pb2.ListHandInsResponse(hand_ins=[HAND_IN]),
    "ScanService.AddScannerKey": scans_pb2.AddScannerKeyResponse(key=SCANNER),
    "ScanService.ListScannerKeys": scans_pb2.ListScannerKeysResponse(keys=[SCANNER]),
    "ScanService.RevokeScannerKey": scans_pb2.RevokeScannerKeyResponse(key=SCANNER),
    "ScanService.RotateScannerKey": scans_pb2.RotateScannerKeyResponse(key=SCANNER),
    "DeviceService.ListDevices": devices_pb2.ListDevicesResponse(devices=[MINER]),
    "DeviceService.GetDevice": devices_pb2.GetDeviceResponse(device=MINER),
    "DeviceService.GetFlock": devices_pb2.GetFlockResponse(
        totals=devices_pb2.FlockTotals(miners=1, hash_rate_khs=55.1)
    ),
    "DeviceService.OnboardDevice": devices_pb2.OnboardDeviceResponse(device=MINER),
    "DeviceService.IgnoreDevice": devices_pb2.IgnoreDeviceResponse(device=MINER),
    "DeviceService.ForgetDevice": devices_pb2.ForgetDeviceResponse(),
    "DeviceService.UpdateMiner": devices_pb2.UpdateMinerResponse(device=MINER),
    "DeviceService.ResetDevice": devices_pb2.ResetDeviceResponse(device=MINER),
    "DeviceService.TailDevice": devices_pb2.TailDeviceResponse(line=">>> Completed"),
    "DeviceService.ListReadings": devices_pb2.ListReadingsResponse(readings=[MINER.reading]),
    "ScheduleService.ListSchedules": schedules_pb2.ListSchedulesResponse(schedules=[SCHEDULE]),
    "ScheduleService.GetSchedule": schedules_pb2.GetScheduleResponse(schedule=SCHEDULE),
    "ScheduleService.ListFirings": schedules_pb2.ListFiringsResponse(firings=[FIRING]),
    "ScheduleService.PutSchedule": schedules_pb2.PutScheduleResponse(schedule=SCHEDULE),
    "ScheduleService.PauseSchedule": schedules_pb2.PauseScheduleResponse(schedule=SCHEDULE),
    "ScheduleService.ResumeSchedule": schedules_pb2.ResumeScheduleResponse(schedule=SCHEDULE),
    "ScheduleService.TriggerSchedule": schedules_pb2.TriggerScheduleResponse(firing=FIRING),
    "ScheduleService.DeleteSchedule": schedules_pb2.DeleteScheduleResponse(),
    "TokenService.CreateToken": tokens_pb2.CreateTokenResponse(details=TOKEN, token="peerd_x_y"),
    "TokenService.ListTokens": tokens_pb2.ListTokensResponse(tokens=[TOKEN]),
    "TokenService.RevokeToken": tokens_pb2.RevokeTokenResponse(details=TOKEN),
    "BackupService.CreateBackup": backup_pb2.CreateBackupResponse(backup=BACKUP),
    "BackupService.ListBackups": backup_pb2.ListBackupsResponse(backups=[BACKUP]),
    "BackupService.RestoreBackup": backup_pb2.RestoreBackupResponse(backup=BACKUP),
    "AuditService.ListAudit": audit_pb2.ListAuditResponse(
        entries=[audit_pb2.AuditEntry(id=3, method="AdmitPeer", result="permission_denied")]
    ),
    "AuditService.VerifyAudit": audit_pb2.VerifyAuditResponse(entries=7, intact=True),
    "RegistryService.ListHeartbeats": registry_pb2.ListHeartbeatsResponse(
        heartbeats=[
            registry_pb2.Heartbeat(status=registry_pb2.PEER_STATUS_SUSPECT),
            registry_pb2.Heartbeat(status=registry_pb2.PEER_STATUS_ONLINE, latency_ms=12.5),
        ]
    ),
    "RegistryService.DrainPeer": registry_pb2.DrainPeerResponse(peer=PEER),
    "RegistryService.ResumePeer": registry_pb2.ResumePeerResponse(peer=PEER),
    "RegistryService.RenamePeer": registry_pb2.RenamePeerResponse(peer=PEER),
    "RegistryService.ForgetPeer": registry_pb2.ForgetPeerResponse(peer=PEER),
    "MeshService.ReplacePeer": mesh_pb2.ReplacePeerResponse(
        admitted=mesh_pb2.MemberRecord(subject="b" * 52), revoked=mesh_pb2.MemberRecord(subject="c" * 52)
    ),
    "ProfileService.ListProfiles": profiles_pb2.ListProfilesResponse(profiles=[PROFILE]),
    "ProfileService.GetProfile": profiles_pb2.GetProfileResponse(profile=PROFILE),
    "ProfileService.ListProfileHistory": profiles_pb2.ListProfileHistoryResponse(
        profiles=[profiles_pb2.Profile(role="worker", version=5, deleted=True), PROFILE]
    ),
    "ProfileService.SetProfile": profiles_pb2.SetProfileResponse(profile=PROFILE),
    "ProfileService.DeleteProfile": profiles_pb2.DeleteProfileResponse(profile=PROFILE),
    "WorkflowService.ListExecutionEvents": workflows_pb2.ListExecutionEventsResponse(
        events=[
            workflows_pb2.ExecutionEvent(seq=1, kind="execution_requested", message="the execution was requested"),
            workflows_pb2.ExecutionEvent(seq=2, kind="job_placed", node_id="count", message="given to beta"),
        ]
    ),
    "WorkflowService.DrawGraph": workflows_pb2.DrawGraphResponse(text="flowchart LR\n"),
    "WorkflowService.ReadDelivered": workflows_pb2.FileChunk(
        file=workflows_pb2.FileHeader(path="sub/a.txt", size=2, digest=blake3(b"hi").digest()), data=b"hi"
    ),
    "WorkflowService.ExplainJob": workflows_pb2.ExplainJobResponse(
        node_id="count",
        peer_name="beta",
        verdicts=[
            workflows_pb2.PeerVerdict(verdict=workflows_pb2.VERDICT_CHOSEN, peer_name="beta", message="its turn"),
            workflows_pb2.PeerVerdict(
                verdict=workflows_pb2.VERDICT_REFUSED, peer_name="c", reason="offline", message="away", next_action="x"
            ),
        ],
        job=workflows_pb2.WorkflowJob(
            node_id="count",
            status=workflows_pb2.WORKFLOW_JOB_STATUS_WAITING_INPUTS,
            reason="inputs",
            message="waits for files of make",
            next_action="nothing to do",
        ),
        upstream=[
            workflows_pb2.WorkflowJob(
                node_id="make", executor_name="alpha", status=workflows_pb2.WORKFLOW_JOB_STATUS_RUNNING
            )
        ],
        inputs=[
            workflows_pb2.ExecutionEdge(
                edge_id=1,
                source_node_id="make",
                source_kind=catalog_pb2.INTERFACE_KIND_OUTPUT,
                source_path="tables",
                destination_node_id="count",
                destination_kind=catalog_pb2.INTERFACE_KIND_INPUT,
                status=jobs_pb2.EDGE_STATUS_WAITING,
                message="waits for make to end",
                next_action="wait",
            )
        ],
        events=[workflows_pb2.ExecutionEvent(seq=2, kind="job_placed", node_id="count", message="given to beta")],
    ),
    "WorkflowService.KeepExecution": workflows_pb2.KeepExecutionResponse(
        execution=workflows_pb2.Execution(workflow_execution_id=7, kept=True)
    ),
    "SpaceService.GetUsage": space_pb2.GetUsageResponse(
        disk_bytes=4096,
        areas=[space_pb2.Area(name="workflows", bytes=2048)],
        orchestrators=[space_pb2.OrchestratorUsage(peer_id="b" * 52, name="beta", bytes=2048, quota_bytes=1 << 30)],
        executions=[space_pb2.ExecutionUsage(orchestrator_name="beta", workflow_execution_id=7, bytes=2048)],
    ),
    "SpaceService.CollectGarbage": space_pb2.CollectGarbageResponse(
        removals=[space_pb2.Removal(kind=space_pb2.REMOVAL_KIND_JOB, name="count", job_execution_id=3, bytes=10)],
        count=2,
        bytes=2048,
    ),
    "RegistryService.ListPeers": registry_pb2.ListPeersResponse(peers=[PEER]),
    "RegistryService.GetPeer": registry_pb2.GetPeerResponse(peer=PEER),
    "MeshService.AdmitPeer": mesh_pb2.AdmitPeerResponse(record=RECORD),
    "MeshService.RevokePeer": mesh_pb2.RevokePeerResponse(record=RECORD),
    "MeshService.CreateInvite": mesh_pb2.CreateInviteResponse(token="peerd1-token"),
    "MeshService.ListInvites": mesh_pb2.ListInvitesResponse(
        invites=[mesh_pb2.Invite(invite_id="i" * 52, status=mesh_pb2.INVITE_STATUS_USED, joiner="j" * 52)]
    ),
    "MeshService.RevokeInvite": mesh_pb2.RevokeInviteResponse(invite=mesh_pb2.Invite(invite_id="i" * 52)),
    "CatalogService.ListServices": catalog_pb2.ListServicesResponse(services=[SERVICE]),
    "CatalogService.GetService": catalog_pb2.GetServiceResponse(service=SERVICE),
    "CatalogService.SearchServices": catalog_pb2.SearchServicesResponse(
        services=[SERVICE], errors=[catalog_pb2.PeerError(name="gamma", message="does not answer")]
    ),
    "CatalogService.AddService": catalog_pb2.AddServiceResponse(service=SERVICE),
    "CatalogService.SetServiceStatus": catalog_pb2.SetServiceStatusResponse(service=SERVICE),
    "CatalogService.RemoveService": catalog_pb2.RemoveServiceResponse(),
    "WorkflowService.ValidateWorkflow": workflows_pb2.ValidateWorkflowResponse(definition=WORKFLOW.definition),
    "WorkflowService.PlanWorkflow": workflows_pb2.PlanWorkflowResponse(
        jobs=[workflows_pb2.JobPlan(node_id="texts", peer_id="b" * 52, peer_name="beta")]
    ),
    "WorkflowService.PutWorkflow": workflows_pb2.PutWorkflowResponse(workflow=WORKFLOW),
    "WorkflowService.ListWorkflows": workflows_pb2.ListWorkflowsResponse(workflows=[WORKFLOW]),
    "WorkflowService.GetWorkflow": workflows_pb2.GetWorkflowResponse(workflow=WORKFLOW),
    "WorkflowService.RunWorkflow": workflows_pb2.RunWorkflowResponse(workflow_execution_id=7),
    "WorkflowService.ListExecutions": workflows_pb2.ListExecutionsResponse(executions=[EXECUTION]),
    "WorkflowService.GetExecution": workflows_pb2.GetExecutionResponse(execution=EXECUTION),
    "WorkflowService.RerunExecution": workflows_pb2.RerunExecutionResponse(
        workflow_execution_id=7, execution=EXECUTION
    ),
    "WorkflowService.CancelExecution": workflows_pb2.CancelExecutionResponse(execution=EXECUTION),
    "JobService.ListJobs": jobs_pb2.ListJobsResponse(jobs=[JOB]),
    "JobService.GetJob": jobs_pb2.GetJobResponse(job=JOB),
    "InventoryService.ListHosts": inventory_pb2.ListHostsResponse(hosts=[HOST]),
    "InventoryService.GetHost": inventory_pb2.GetHostResponse(
        host=HOST,
        ports=[PORT],
        views=[VIEW],
        related=[inventory_pb2.RelatedHost(address="192.0.2.8", through="hostname:www.example")],
    ),
    "InventoryService.ListPorts": inventory_pb2.ListPortsResponse(ports=[PORT]),
    "InventoryService.ListSeenServices": inventory_pb2.ListSeenServicesResponse(
        services=[inventory_pb2.CountedService(service=SEEN, ports=17)]
    ),
    "InventoryService.ListSeenCertificates": inventory_pb2.ListSeenCertificatesResponse(
        certificates=[inventory_pb2.CountedCertificate(certificate=CERTIFICATE, ports=18)]
    ),
    "InventoryService.DiffInventory": inventory_pb2.DiffInventoryResponse(
        differences=[
            inventory_pb2.InventoryDifference(
                kind=inventory_pb2.INVENTORY_CHANGE_KIND_DISAPPEARED, before=PORT, why="not_shown"
            )
        ]
    ),
    "InventoryService.ListSplits": inventory_pb2.ListSplitsResponse(
        splits=[inventory_pb2.InventorySplit(port=PORT, views=[VIEW])]
    ),
    "InventoryService.ListNeighbours": inventory_pb2.ListNeighboursResponse(edges=[EDGE]),
    "InventoryService.FindPath": inventory_pb2.FindPathResponse(found=True, edges=[EDGE], complete=True),
    "TransferService.ListTransfers": transfers_pb2.ListTransfersResponse(transfers=[TRANSFER]),
}

# Command line (FILE is a small file, DIR a new directory) -> the call it makes, and words its table must have.
ORG = nodes_pb2.Organization(
    org_id="1" * 36,
    slug="acme",
    name="Acme",
    active=True,
    policy=nodes_pb2.OrganizationPolicy(
        allowed_networks=["10.0.0.0/8"], max_level=2, cool_down="24h", max_concurrent=10
    ),
)
RUN = nodes_pb2.NodeRun(
    run_id=4,
    kind=nodes_pb2.NODE_RUN_KIND_SCAN,
    status=nodes_pb2.NODE_RUN_STATUS_OK,
    peer="beta",
    score=85,
    risk="LOW",
    workflow_execution_id=7,
)
NODE = nodes_pb2.Node(
    node_id="2" * 36,
    org_slug="acme",
    target="10.0.0.1",
    status=nodes_pb2.NODE_STATUS_SCANNED,
    protocol="sui",
    version="1.60",
    score=nodes_pb2.NodeScore(score=85, risk="LOW"),
    next_action="read its report",
)
MADE = nodes_pb2.NodeTransition(to_status=nodes_pb2.NODE_STATUS_NEW, event="created", caller="alpha")
READY = nodes_pb2.NodeAnswer(
    success=True, status="ready_to_scan", node_id="2" * 36, protocol="sui", run_id=4, workflow_execution_id=7
)
SWEEP = nodes_pb2.NodeSweep(
    sweep_id=5, workflow_execution_id=9, nodes=3, scanned=2, failed=1, risks={"LOW": 2}, reasons={"lost": 1}
)
SWEEP.ended_at.seconds = 60
SUI = nodes_pb2.NodeProtocol(name="sui", display_name="Sui", ports=[9000, 9184], source="built-in sui.toml")
ANSWERS |= {
    **{
        f"OrganizationService.{name}": answer(organization=ORG)
        for name, answer in (
            ("AddOrganization", nodes_pb2.AddOrganizationResponse),
            ("UpdateOrganization", nodes_pb2.UpdateOrganizationResponse),
            ("SetOrganizationActive", nodes_pb2.SetOrganizationActiveResponse),
            ("GetOrganization", nodes_pb2.GetOrganizationResponse),
        )
    },
    "OrganizationService.ListOrganizations": nodes_pb2.ListOrganizationsResponse(organizations=[ORG]),
    "NodeService.ScanNode": nodes_pb2.ScanNodeResponse(answer=READY),
    "NodeService.DiscoverNode": nodes_pb2.DiscoverNodeResponse(answer=READY),
    "NodeService.SweepNodes": nodes_pb2.SweepNodesResponse(sweep=SWEEP),
    "NodeService.GetSweep": nodes_pb2.GetSweepResponse(sweep=SWEEP),
    "NodeService.GetNode": nodes_pb2.GetNodeResponse(node=NODE, history=[MADE]),
    "NodeService.ListNodes": nodes_pb2.ListNodesResponse(nodes=[NODE]),
    "NodeService.ListNodeRuns": nodes_pb2.ListNodeRunsResponse(runs=[RUN]),
    "NodeService.GetNodeReport": nodes_pb2.GetNodeReportResponse(run=RUN, json="{}", markdown="# Scan of 10.0.0.1"),
    "NodeService.ListProtocols": nodes_pb2.ListProtocolsResponse(protocols=[SUI]),
    "NodeService.GetProtocol": nodes_pb2.GetProtocolResponse(protocol=SUI),
}

COMMANDS: dict[str, tuple[str, list[str]]] = {
    "executions keep 7": ("WorkflowService.KeepExecution", ["execution 7 is kept"]),
    "du": ("SpaceService.GetUsage", ["workflows", "beta", "stay free", "1.1 GB"]),
    "gc --older-than 12h": ("SpaceService.CollectGarbage", ["count", "and 1 more", "2 directories", "removed"]),
    "status": ("DaemonService.GetStatus", ["alpha", "founded here", "2 of 3 online"]),
    "peers list --role worker": ("RegistryService.ListPeers", ["NAME", "beta", "offline", "no answer", "worker"]),
    "peers show beta": ("RegistryService.GetPeer", ["b" * 52, "offline", "kept by cgroup"]),
    "peers admit ID --grants observe,execute --role worker --address h:1": ("MeshService.AdmitPeer", ["is a member"]),
    "peers heartbeats beta": ("RegistryService.ListHeartbeats", ["no answer", "suspect", "12.5ms"]),
    "peers drain beta --reason disk": ("RegistryService.DrainPeer", ["beta takes no new jobs"]),
    "peers resume beta": ("RegistryService.ResumePeer", ["beta takes jobs again"]),
    "peers rename beta gamma": ("RegistryService.RenamePeer", ["is called beta"]),
    "peers forget beta": ("RegistryService.ForgetPeer", ["beta is forgotten"]),
    "peers roles beta worker,scanner": ("RegistryService.GetPeer", ["has the roles"]),
    "peers grants beta observe": ("RegistryService.GetPeer", ["has the grants"]),
    "peers replace beta ID": ("MeshService.ReplacePeer", ["is revoked"]),
    "profiles list": ("ProfileService.ListProfiles", ["worker", "labels fast", "max_running_jobs 3"]),
    "profiles get worker": ("ProfileService.GetProfile", ["version 4", "- fast"]),
    "profiles history worker": ("ProfileService.ListProfileHistory", ["deleted"]),
    "profiles set worker PROFILE --comment x": ("ProfileService.SetProfile", ["worker has profile version 4"]),
    "profiles delete worker": ("ProfileService.DeleteProfile", ["no profile any more"]),
    "tokens create --scope read --name n": ("TokenService.CreateToken", ["peerd_x_y"]),
    "tokens list": ("TokenService.ListTokens", ["0123", "register", "printers"]),
    "tokens revoke 0123": ("TokenService.RevokeToken", ["0123 is revoked"]),
    "backup create": ("BackupService.CreateBackup", ["/b/x.db", "verified"]),
    "backup list": ("BackupService.ListBackups", ["/b/x.db"]),
    "backup restore x.db": ("BackupService.RestoreBackup", ["the daemon ends now"]),
    "audit list": ("AuditService.ListAudit", ["AdmitPeer", "permission_denied"]),
    "audit verify": ("AuditService.VerifyAudit", ["7 entries, intact"]),
    "why 100 count": (
        "WorkflowService.ExplainJob",
        [
            "count is on beta",
            "waiting_inputs",
            "inputs: waits for files of make",
            "next    nothing to do",
            "make.output/tables → count.input  waiting",
            "make is running, on alpha",
            "next: wait",
            "chosen",
            "refused",
            "next: x",
            "job_placed: given to beta",
        ],
    ),
    "executions events 7 --job count": (
        "WorkflowService.ListExecutionEvents",
        ["2", "count", "job_placed", "given to"],
    ),
    "executions graph 7 --format dot": ("WorkflowService.DrawGraph", ["flowchart LR"]),
    "executions fetch 7 DIR --files **/*.txt": ("WorkflowService.ReadDelivered", ["sub/a.txt"]),
    "workflows graph FILE": ("WorkflowService.DrawGraph", ["flowchart LR"]),
    "peers revoke beta --yes --reason lost": ("MeshService.RevokePeer", ["is revoked"]),
    "invite create": ("MeshService.CreateInvite", ["peerd1-token"]),
    "invites list": ("MeshService.ListInvites", ["used", "jjjj"]),
    "invites revoke ID": ("MeshService.RevokeInvite", ["is withdrawn"]),
    "services list": ("CatalogService.ListServices", ["counter", "process", "isolation bubblewrap, limits by cgroup"]),
    "services search words --kind data,process": ("CatalogService.SearchServices", ["beta", "counter"]),
    "services show counter": (
        "CatalogService.GetService",
        ["limits by cgroup", "/usr/bin/wc ${mode}", "mode (required)", "mount left"],
    ),
    "services add FILE --replace": ("CatalogService.AddService", ["service 3 counter is offered"]),
    "services activate counter": ("CatalogService.SetServiceStatus", ["counter is"]),
    "services deactivate counter": ("CatalogService.SetServiceStatus", ["counter is inactive"]),
    "services remove counter": ("CatalogService.RemoveService", ["counter is removed"]),
    "workflows validate FILE": ("WorkflowService.ValidateWorkflow", ["word-count is sound: 1 job"]),
    "workflows plan FILE": ("WorkflowService.PlanWorkflow", ["texts", "beta", "now"]),
    "workflows put FILE": ("WorkflowService.PutWorkflow", ["word-count version 2"]),
    "workflows list": ("WorkflowService.ListWorkflows", ["wf-1", "word-count"]),
    "workflows show word-count": ("WorkflowService.GetWorkflow", ["name: word-count", "- name: texts"]),
    "workflows run word-count": ("WorkflowService.RunWorkflow", ["7"]),
    "devices list": (
        "DeviceService.ListDevices",
        ["MINER_010", "beta", "wrong_pool", "it mines at x:1 and not at y:2"],
    ),
    "devices show MINER_010": ("DeviceService.GetDevice", ["/dev/ttyUSB0", "55.10 KH/s", "wrong_pool"]),
    "devices onboard 3 --name MINER_010 --currency BTC": ("DeviceService.OnboardDevice", ["device 3 is MINER_010"]),
    "devices ignore 3": ("DeviceService.IgnoreDevice", ["device 3 is ignored"]),
    "devices forget MINER_010": ("DeviceService.ForgetDevice", ["MINER_010 is forgotten"]),
    "devices rename MINER_009 MINER_010": ("DeviceService.UpdateMiner", ["MINER_009 is MINER_010 now"]),
    "devices set MINER_010 --accept-pool": ("DeviceService.UpdateMiner", ["MINER_010 is changed"]),
    "devices reset MINER_010": ("DeviceService.ResetDevice", ["MINER_010 is reset"]),
    "devices tail MINER_010": ("DeviceService.TailDevice", [">>> Completed"]),
    "devices readings MINER_010": ("DeviceService.ListReadings", ["55.10", "3"]),
    "devices top --once": ("DeviceService.GetFlock", ["1 miners", "MINER_010"]),
    "schedules list": (
        "ScheduleService.ListSchedules",
        ["nightly", "30 2 * * * Europe/Zurich", "2026-03-30T02:30:00+02:00", "fired as execution 7", "paused since"],
    ),
    "schedules show nightly": (
        "ScheduleService.GetSchedule",
        ["all, at most 9", "a=b", "paused since then", "resume it", "catch_up", "fired as execution 7"],
    ),
    "schedules next nightly --count 3": ("ScheduleService.GetSchedule", ["2026-03-30T02:30:00+02:00"]),
    "schedules firings nightly": ("ScheduleService.ListFirings", ["2026-03-29T03:00:00+02:00", "catch_up"]),
    "schedules put word-count --cron @": ("ScheduleService.PutSchedule", ["nightly runs 2026-03-30T02:30:00+02:00"]),
    "schedules pause nightly --reason disk": ("ScheduleService.PauseSchedule", ["nightly is paused"]),
    "schedules resume nightly": ("ScheduleService.ResumeSchedule", ["nightly goes on; next 2026-03-30"]),
    "schedules trigger nightly": ("ScheduleService.TriggerSchedule", ["fired as execution 7"]),
    "schedules delete nightly": ("ScheduleService.DeleteSchedule", ["nightly is deleted"]),
    "scans submit FILE --vantage here": ("DaemonService.GetStatus", ["ingest job 5 is completed", "night-1", "before"]),
    "scans list --state completed --scanner probe": ("ScanService.ListIngestJobs", ["night-1", "probe", "completed"]),
    "scans show 5 --skipped": (
        "ScanService.GetIngestJob",
        ["night-1", "3 hosts, 9 ports", "11, 2 skipped", "no_address", "a name", "4.1 kB"],
    ),
    "scans hand-ins --state waiting": (
        "ScanService.ListHandIns",
        ["waiting", "port-scan", "scan.xml", "gate is away; start it"],
    ),
    "scans watch 5": ("ScanService.WatchIngestJob", ["completed", "11 records", "3 hosts, 9 ports, 2 skipped"]),
    "scans cancel 5 --reason wrong": ("ScanService.CancelIngestJob", ["ingest job 5 is"]),
    "scans retry 5": ("ScanService.RetryIngestJob", ["ingest job 5 is"]),
    "scanners add probe QUJD": ("ScanService.AddScannerKey", ["scans of probe are taken"]),
    "scanners list": ("ScanService.ListScannerKeys", ["probe", "active", "QUJD", "now cccc"]),
    "scanners revoke probe --reason lost": ("ScanService.RevokeScannerKey", ["the key of probe is revoked"]),
    "scanners rotate probe QUJD": ("ScanService.RotateScannerKey", ["probe has the key"]),
    "orgs list": ("OrganizationService.ListOrganizations", ["acme", "active", "10.0.0.0/8"]),
    "orgs show acme": ("OrganizationService.GetOrganization", ["acme", "up to level 2", "everybody", "node-prober"]),
    "orgs add acme --network 10.0.0.0/8": ("OrganizationService.AddOrganization", ["acme is 1111"]),
    "orgs set acme --max-level 3": ("OrganizationService.GetOrganization", ["acme is changed"]),
    "orgs deactivate acme": ("OrganizationService.SetOrganizationActive", ["acme is inactive"]),
    "orgs activate acme": ("OrganizationService.SetOrganizationActive", ["acme is active"]),
    "nodes scan 10.0.0.1 --org acme --wait": (
        "NodeService.ScanNode",
        ["a scan of it is under way, execution 7", "score 85, risk LOW", "on beta"],
    ),
    "nodes discover NODE --host 10.0.0.1 --no-wait": ("NodeService.DiscoverNode", ["execution 7"]),
    "nodes sweep --org acme": ("NodeService.SweepNodes", ["3: 2 scanned, 1 failed", "LOW 2", "lost 1"]),
    "nodes show-sweep 5": ("NodeService.GetSweep", ["3: 2 scanned, 1 failed"]),
    "nodes list --status scanned": ("NodeService.ListNodes", ["10.0.0.1", "acme", "scanned", "85 LOW"]),
    "nodes show 10.0.0.1": ("NodeService.GetNode", ["sui 1.60", "85 of 100", "created", "read its report", "beta"]),
    "nodes report 10.0.0.1": ("NodeService.GetNodeReport", ["# Scan of 10.0.0.1"]),
    "protocols list": ("NodeService.ListProtocols", ["sui", "9000 9184", "built-in"]),
    "protocols show sui": ("NodeService.GetProtocol", ["Sui", "9000, 9184"]),
    "executions list --status running,failed": ("WorkflowService.ListExecutions", ["7", "word-count", "running"]),
    "executions show 7": ("WorkflowService.GetExecution", ["count", "on beta"]),
    "executions rerun 7 --from count --param x=1": ("WorkflowService.RerunExecution", ["7"]),
    "executions cancel 7 --reason enough": ("WorkflowService.CancelExecution", ["is being cancelled"]),
    "jobs list --status failed": ("JobService.ListJobs", ["13", "count", "failed", "100/28"]),
    "jobs show 13": (
        "JobService.GetJob",
        [
            "input  from aaaa",
            "workflow job 27, job execution 12",
            "exit 3",
            "64M of memory, 1.5G of disk, 100 processes (by cgroup)",
        ],
    ),
    "hosts list --where port=443 --at 2h": ("InventoryService.ListHosts", ["192.0.2.7", "www.example", "AS64500", "3"]),
    "hosts show 192.0.2.7 --depth 3": (
        "InventoryService.GetHost",
        ["443/tcp", "nginx 1.18.0", "outside", "filtered", "192.0.2.8 through hostname:www.example"],
    ),
    "hosts export --format csv": (
        "InventoryService.ListPorts",
        ["address,transport,port", "192.0.2.7,tcp,443,open,https"],
    ),
    "inventory ports --where port=443": ("InventoryService.ListPorts", ["443/tcp", "https/tls nginx 1.18.0", "2"]),
    "inventory services": ("InventoryService.ListSeenServices", ["nginx", "17"]),
    "inventory certificates --where expires<2027-01-01": (
        "InventoryService.ListSeenCertificates",
        ["abababababab", "18"],
    ),
    "inventory diff 2026-11-20 1h": ("InventoryService.DiffInventory", ["disappeared", "443/tcp", "not_shown"]),
    "inventory splits": ("InventoryService.ListSplits", ["443/tcp", "filtered", "k2", "outside"]),
    "graph neighbours host:192.0.2.7": ("InventoryService.ListNeighbours", ["in_asn", "asn:64500 (Example)"]),
    "graph path host:192.0.2.7 asn:64500": ("InventoryService.FindPath", ["in_asn"]),
    "transfers list": ("TransferService.ListTransfers", ["beta", "sending", "1 B of 2.0 MB", "outgoing"]),
    "identity show": ("DaemonService.GetStatus", ["a" * 52]),
    "identity export-tls DIR": ("DaemonService.ExportTls", ["cert.pem", "key.pem", "ca.pem"]),
}
ELSEWHERE = {"logs", "executions watch", "inventory watch"}


@pytest.fixture(autouse=True)
def answers(daemon: FakeDaemon) -> None:
    for method, answer in ANSWERS.items():
        daemon.on(method, answer)
    delivered = ANSWERS["WorkflowService.ReadDelivered"]
    for stream in ("ScanService.WatchIngestJob", "DeviceService.TailDevice"):
        daemon.on(stream, once(ANSWERS[stream]))
    daemon.on("WorkflowService.ReadDelivered", lambda request, context: iter((delivered,)))


def arguments_of(line: str, tmp_path: Path) -> list[str]:
    file = tmp_path / "file.yaml"
    file.write_text("name: counter\n")
    profile = tmp_path / "profile.yaml"
    profile.write_text("labels: [fast]\nlimits: {max_running_jobs: 3}\n")
    places = {"FILE": str(file), "PROFILE": str(profile), "DIR": str(tmp_path / "tls"), "ID": "b" * 52}
    return [places.get(word, word) for word in line.split()]


def once(answer: Message) -> Callable[[Any, Any], Iterator[Message]]:
    """A stream of one message."""
    return lambda request, context: iter((answer,))


def leaf_commands(group: click.Group, context: click.Context, path: tuple[str, ...] = ()) -> Iterator[str]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from leaf_commands(command, click.Context(command, parent=context), (*path, name))
        else:
            yield " ".join((*path, name))


ALONE = ("status", "logs", "why", "du", "gc")


def test_every_command_is_tried_here() -> None:
    tried = {" ".join(line.split()[: 1 if line.split()[0] in ALONE else 2]) for line in COMMANDS}
    assert set(leaf_commands(app, click.Context(app))) == tried | ELSEWHERE


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_makes_its_call_and_prints_what_matters(
    peerctl: Peerctl, daemon: FakeDaemon, tmp_path: Path, line: str
) -> None:
    method, words = COMMANDS[line]
    outcome = peerctl(*arguments_of(line, tmp_path))
    assert outcome.exit_code == 0, outcome.err
    assert daemon.calls[0].method == method
    for word in words:
        assert word in outcome.out
    assert "\x1b" not in outcome.out  # no colour without a terminal


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_prints_one_json_document_when_asked(peerctl: Peerctl, tmp_path: Path, line: str) -> None:
    outcome = peerctl(*arguments_of(line, tmp_path), "-o", "json")
    assert outcome.exit_code == 0, outcome.err
    assert isinstance(outcome.json, dict)


def test_every_change_carries_a_request_id(peerctl: Peerctl, daemon: FakeDaemon, tmp_path: Path) -> None:
    for line in COMMANDS:
        peerctl(*arguments_of(line, tmp_path))
    changes = [call for call in daemon.calls if "request_id" in call.request.DESCRIPTOR.fields_by_name]
    ids = [call.request.request_id for call in changes]
    assert len(ids) >= 10
    assert all(ids)
    assert len(set(ids)) == len(ids)


def test_an_empty_list_says_so_on_stderr_and_is_an_empty_list_in_json(peerctl: Peerctl, daemon: FakeDaemon) -> None:
    daemon.on("WorkflowService.ListExecutions", workflows_pb2.ListExecutionsResponse())
    outcome = peerctl("executions")
    assert (outcome.out, outcome.err) == ("", "no executions\n")
    assert peerctl("executions", "-o", "json").json == {"executions": []}


def test_a_search_tells_which_peers_did_not_answer(peerctl: Peerctl) -> None:
    assert "warning: gamma did not answer: does not answer" in peerctl("services", "search").err


def test_exported_keys_are_readable_by_nobody_else(peerctl: Peerctl, tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    folder.mkdir()
    (folder / "key.pem").touch(mode=0o644)
    peerctl("identity", "export-tls", folder)
    for name, content in (("cert.pem", b"CERT"), ("key.pem", b"KEY"), ("ca.pem", b"CA")):
        assert (folder / name).read_bytes() == content
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600


def test_a_key_is_not_written_through_a_link(peerctl: Peerctl, tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    folder.mkdir()
    (folder / "key.pem").symlink_to(tmp_path / "elsewhere")
    assert peerctl("identity", "export-tls", folder).exit_code == 1
    assert not (tmp_path / "elsewhere").exists()


def pieces(request: Any, context: object) -> Iterator[workflows_pb2.ReadLogsResponse]:
    for stream, data in ((jobs_pb2.LOG_STREAM_STDOUT, b"out\n"), (jobs_pb2.LOG_STREAM_STDERR, b"err\n")):
        if request.stream in (jobs_pb2.LOG_STREAM_UNSPECIFIED, stream):
            yield workflows_pb2.ReadLogsResponse(stream=stream, data=data)


@pytest.mark.parametrize(
    ("options", "out", "err"),
    [([], "out\n", "err\n"), (["--stdout"], "out\n", ""), (["--stderr"], "err\n", "")],
)
def test_logs_keep_the_streams_apart(
    peerctl: Peerctl, daemon: FakeDaemon, options: list[str], out: str, err: str
) -> None:
    daemon.on("WorkflowService.ReadLogs", pieces)
    outcome = peerctl("logs", 7, "count", *options)
    assert (outcome.out, outcome.err) == (out, err)


def test_logs_as_json_are_one_document(peerctl: Peerctl, daemon: FakeDaemon) -> None:
    daemon.on("WorkflowService.ReadLogs", pieces)
    assert peerctl("logs", 7, "count", "-o", "json").json == {"stdout": "out\n", "stderr": "err\n"}
    followed = peerctl("logs", 7, "count", "-f", "-o", "json").out.splitlines()
    assert followed[0] == '{"stream": "stdout", "data": "out\\n"}'
    assert daemon.requests("WorkflowService.ReadLogs")[1].follow


def test_every_noun_is_in_the_help(peerctl: Peerctl) -> None:
    out = peerctl("--help").out
    assert all(f"  {noun} " in out for noun in NOUNS)
