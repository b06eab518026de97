"""The public Python client: what ``peerctl`` does, as async methods over the daemon's unix socket.

::

    async with Client() as peerd:
        started = await peerd.run(workflow="word-count")
        done = await peerd.wait(started.workflow_execution_id)

Answers are the messages of ``peerd.v1``, lists are complete (pages are fetched as needed), and whatever goes wrong
is a :class:`~peerd.errors.PeerdError` with the daemon's own reason and next action.

Every call has a deadline. A call that changes something carries a request id of its own, made once and sent again
with each retry, so a call whose answer was lost has its effect once. Only a lost connection is retried, and only a
few times: a daemon that answered has decided.

It speaks to one daemon and never to the network; with ``peer`` that daemon passes the calls on as itself. Reading
definition files is not its business: it takes the text.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import overload

import grpc
from grpc import aio

from peerd.client.calls import CALL_SECONDS, PAGE_SIZE, connection_lost, new_request_id
from peerd.client.devices import DeviceCalls
from peerd.client.fetching import write_files
from peerd.client.inventory import InventoryCalls
from peerd.client.nodes import NodeCalls
from peerd.client.registry import RegistryCalls
from peerd.client.run import Run
from peerd.client.scans import ScanCalls
from peerd.client.schedules import ScheduleCalls
from peerd.client.workflow import Workflow
from peerd.v1 import (
    audit_pb2,
    audit_pb2_grpc,
    backup_pb2,
    backup_pb2_grpc,
    catalog_pb2,
    catalog_pb2_grpc,
    daemon_pb2,
    daemon_pb2_grpc,
    jobs_pb2,
    jobs_pb2_grpc,
    mesh_pb2,
    space_pb2,
    space_pb2_grpc,
    tokens_pb2,
    tokens_pb2_grpc,
    transfers_pb2,
    transfers_pb2_grpc,
    workflows_pb2,
    workflows_pb2_grpc,
)

STREAM_SECONDS = 300.0
"""Deadline of one stream; a watch that lasts longer is taken up again where it was."""

FETCH_SECONDS = 86_400.0
"""Longest copying of delivered files."""

RECONNECT_SECONDS = 30.0
"""How long a watch goes on trying to reach a daemon that went away."""

_FINAL = frozenset(
    {
        workflows_pb2.EXECUTION_STATUS_COMPLETED,
        workflows_pb2.EXECUTION_STATUS_FAILED,
        workflows_pb2.EXECUTION_STATUS_CANCELLED,
    }
)


class Client(RegistryCalls, ScheduleCalls, InventoryCalls, ScanCalls, NodeCalls, DeviceCalls):
    """One daemon, spoken to over its unix socket. Use it as an async context manager."""

    def __init__(
        self,
        *,
        socket: str | Path | None = None,
        peer: str | None = None,
        timeout: float = CALL_SECONDS,
        cache: Path | None = None,
    ) -> None:
        super().__init__(socket=socket, peer=peer, timeout=timeout, cache=cache)
        self._audit = audit_pb2_grpc.AuditServiceStub(self._channel)
        self._tokens = tokens_pb2_grpc.TokenServiceStub(self._channel)
        self._space = space_pb2_grpc.SpaceServiceStub(self._channel)
        self._backups = backup_pb2_grpc.BackupServiceStub(self._channel)
        self._daemon = daemon_pb2_grpc.DaemonServiceStub(self._channel)
        self._catalog = catalog_pb2_grpc.CatalogServiceStub(self._channel)
        self._workflows = workflows_pb2_grpc.WorkflowServiceStub(self._channel)
        self._jobs = jobs_pb2_grpc.JobServiceStub(self._channel)
        self._transfers = transfers_pb2_grpc.TransferServiceStub(self._channel)

    # The daemon itself

    async def status(self) -> daemon_pb2.GetStatusResponse:
        """Who this daemon is and how it is."""
        return await self._call(self._daemon.GetStatus, daemon_pb2.GetStatusRequest())

    async def export_tls(self, *, ttl_seconds: int = 0) -> daemon_pb2.ExportTlsResponse:
        """A certificate and key that act as this peer in other gRPC clients."""
        return await self._call(self._daemon.ExportTls, daemon_pb2.ExportTlsRequest(ttl_seconds=ttl_seconds))

    # What was changed here

    async def audit(self, *, caller: str = "", method: str = "", limit: int = 100) -> list[audit_pb2.AuditEntry]:
        """Calls that changed something on this peer, or were refused, newest first."""
        request = audit_pb2.ListAuditRequest(caller=caller, method=method, page_size=min(limit, PAGE_SIZE))
        return await self._all(self._audit.ListAudit, request, lambda page: page.entries, limit)

    async def verify_audit(self) -> audit_pb2.VerifyAuditResponse:
        """Whether the audit log is as it was written."""
        return await self._call(self._audit.VerifyAudit, audit_pb2.VerifyAuditRequest())

    # Backups

    async def create_backup(self, path: str = "") -> backup_pb2.Backup:
        """Copy the store while it is in use; ``path`` is absolute, on the daemon's machine."""
        request = backup_pb2.CreateBackupRequest(request_id=new_request_id(), path=path)
        return (await self._call(self._backups.CreateBackup, request)).backup

    async def backups(self) -> list[backup_pb2.Backup]:
        """The copies that this peer has, newest first."""
        return list((await self._call(self._backups.ListBackups, backup_pb2.ListBackupsRequest())).backups)

    async def restore_backup(self, path: str, *, allow_other_identity: bool = False) -> backup_pb2.Backup:
        """Have the next start take that copy; the daemon ends."""
        request = backup_pb2.RestoreBackupRequest(
            request_id=new_request_id(), path=path, allow_other_identity=allow_other_identity
        )
        return (await self._call(self._backups.RestoreBackup, request)).backup

    # Tokens for HTTP

    async def create_token(
        self, scope: tokens_pb2.TokenScope.ValueType, *, name: str = "", ttl_seconds: int = 0
    ) -> tokens_pb2.CreateTokenResponse:
        """Make a token; it is in this answer and nowhere else."""
        request = tokens_pb2.CreateTokenRequest(
            request_id=new_request_id(), scope=scope, name=name, ttl_seconds=ttl_seconds
        )
        return await self._call(self._tokens.CreateToken, request)

    async def tokens(self) -> list[tokens_pb2.Token]:
        """All tokens ever made on this peer."""
        request = tokens_pb2.ListTokensRequest(page_size=PAGE_SIZE)
        return await self._all(self._tokens.ListTokens, request, lambda page: page.tokens)

    async def revoke_token(self, token_id: str) -> tokens_pb2.Token:
        """End a token."""
        request = tokens_pb2.RevokeTokenRequest(request_id=new_request_id(), token_id=token_id)
        return (await self._call(self._tokens.RevokeToken, request)).details

    # Invites

    async def invite(
        self, *, grants: Iterable[int], roles: Iterable[str] = (), ttl_seconds: int = 0
    ) -> mesh_pb2.CreateInviteResponse:
        """Make an invite; its token is in this answer and nowhere else."""
        request = mesh_pb2.CreateInviteRequest(request_id=new_request_id(), ttl_seconds=ttl_seconds)
        request.grants.extend(grants)  # type: ignore[arg-type]
        request.roles.extend(roles)
        return await self._call(self._mesh.CreateInvite, request)

    async def invites(self) -> list[mesh_pb2.Invite]:
        """All invites this peer made."""
        request = mesh_pb2.ListInvitesRequest(page_size=PAGE_SIZE)
        return await self._all(self._mesh.ListInvites, request, lambda page: page.invites)

    async def revoke_invite(self, invite_id: str) -> mesh_pb2.Invite:
        """Withdraw a pending invite."""
        request = mesh_pb2.RevokeInviteRequest(request_id=new_request_id(), invite_id=invite_id)
        return (await self._call(self._mesh.RevokeInvite, request)).invite

    # Services

    async def services(self, *, active_only: bool = False) -> list[catalog_pb2.Service]:
        """What this peer offers."""
        request = catalog_pb2.ListServicesRequest(active_only=active_only, page_size=PAGE_SIZE)
        return await self._all(self._catalog.ListServices, request, lambda page: page.services)

    async def service(self, service: str) -> catalog_pb2.Service:
        """One service of this peer by name or id."""
        return (await self._call(self._catalog.GetService, catalog_pb2.GetServiceRequest(service=service))).service

    async def search_services(
        self,
        phrases: Sequence[str] = (),
        *,
        kinds: Sequence[catalog_pb2.ServiceKind.ValueType] = (),
        active_only: bool = False,
    ) -> catalog_pb2.SearchServicesResponse:
        """What all online peers offer, and which peers did not answer."""
        request = catalog_pb2.SearchServicesRequest(phrases=phrases, kinds=kinds, active_only=active_only)
        return await self._call(self._catalog.SearchServices, request)

    async def add_service(
        self, declaration: catalog_pb2.ServiceDeclaration, *, replace: bool = False
    ) -> catalog_pb2.Service:
        """Offer a service on this peer."""
        request = catalog_pb2.AddServiceRequest(request_id=new_request_id(), declaration=declaration, replace=replace)
        return (await self._call(self._catalog.AddService, request)).service

    async def set_service_status(
        self, service: str, status: catalog_pb2.ServiceStatus.ValueType
    ) -> catalog_pb2.Service:
        """Activate or deactivate a service of this peer."""
        request = catalog_pb2.SetServiceStatusRequest(request_id=new_request_id(), service=service, status=status)
        return (await self._call(self._catalog.SetServiceStatus, request)).service

    async def remove_service(self, service: str) -> None:
        """Stop offering a service that was added."""
        request = catalog_pb2.RemoveServiceRequest(request_id=new_request_id(), service=service)
        await self._call(self._catalog.RemoveService, request)

    # Workflows

    async def validate(self, source: workflows_pb2.DefinitionSource) -> workflows_pb2.ValidateWorkflowResponse:
        """Everything that is wrong with a definition; problems are in the answer."""
        return await self._call(self._workflows.ValidateWorkflow, workflows_pb2.ValidateWorkflowRequest(source=source))

    async def plan(self, source: workflows_pb2.DefinitionSource) -> workflows_pb2.PlanWorkflowResponse:
        """Where each job would run now, and why not elsewhere."""
        return await self._call(self._workflows.PlanWorkflow, workflows_pb2.PlanWorkflowRequest(source=source))

    async def explain_placement(self, execution_id: int, node_id: str) -> workflows_pb2.ExplainPlacementResponse:
        """Every peer's verdict on a job of an execution, as things are now."""
        request = workflows_pb2.ExplainPlacementRequest(workflow_execution_id=execution_id, node_id=node_id)
        return await self._call(self._workflows.ExplainPlacement, request)

    async def explain(self, execution_id: int, node_id: str) -> workflows_pb2.ExplainJobResponse:
        """All that is known of why a job is where it is."""
        request = workflows_pb2.ExplainJobRequest(workflow_execution_id=execution_id, node_id=node_id)
        return await self._call(self._workflows.ExplainJob, request)

    async def graph(
        self,
        what: int | workflows_pb2.DefinitionSource,
        form: workflows_pb2.GraphFormat.ValueType = workflows_pb2.GRAPH_FORMAT_MERMAID,
    ) -> str:
        """The graph of an execution, with its states, or of a definition, as text."""
        request = workflows_pb2.DrawGraphRequest(format=form)
        if isinstance(what, int):
            request.workflow_execution_id = what
        else:
            request.source.CopyFrom(what)
        return (await self._call(self._workflows.DrawGraph, request)).text

    async def put_workflow(self, source: workflows_pb2.DefinitionSource) -> workflows_pb2.Workflow:
        """Store a definition; the same content gives the same version."""
        request = workflows_pb2.PutWorkflowRequest(request_id=new_request_id(), source=source)
        return (await self._call(self._workflows.PutWorkflow, request)).workflow

    async def workflows(self) -> list[workflows_pb2.Workflow]:
        """The newest version of each stored workflow."""
        request = workflows_pb2.ListWorkflowsRequest(page_size=PAGE_SIZE)
        return await self._all(self._workflows.ListWorkflows, request, lambda page: page.workflows)

    async def workflow(self, workflow: str, *, version: int = 0) -> workflows_pb2.Workflow:
        """One stored workflow by name or id, the newest version if none is given."""
        request = workflows_pb2.GetWorkflowRequest(workflow=workflow, version=version)
        return (await self._call(self._workflows.GetWorkflow, request)).workflow

    @overload
    async def run(
        self,
        source: Workflow,
        *,
        params: Mapping[str, str] | None = None,
        request_id: str = "",
        keep: bool = False,
    ) -> Run: ...

    @overload
    async def run(
        self,
        source: workflows_pb2.DefinitionSource | None = None,
        *,
        workflow: str | None = None,
        params: Mapping[str, str] | None = None,
        request_id: str = "",
        keep: bool = False,
    ) -> workflows_pb2.RunWorkflowResponse: ...

    async def run(
        self,
        source: Workflow | workflows_pb2.DefinitionSource | None = None,
        *,
        workflow: str | None = None,
        params: Mapping[str, str] | None = None,
        request_id: str = "",
        keep: bool = False,
    ) -> Run | workflows_pb2.RunWorkflowResponse:
        """Start an execution of a given definition or of a stored workflow; of a Workflow it gives a handle.

        Repeating it with the same request id starts nothing new and gives the same answer. With ``keep`` retention
        never takes its files.
        """
        request = workflows_pb2.RunWorkflowRequest(request_id=request_id or new_request_id(), params=params, keep=keep)
        if source is not None:
            request.source.CopyFrom(source.source if isinstance(source, Workflow) else source)
        elif workflow is not None:
            request.workflow = workflow
        answer = await self._call(self._workflows.RunWorkflow, request)
        return Run(self, answer.execution) if isinstance(source, Workflow) else answer

    async def rerun(
        self,
        execution_id: int,
        *,
        from_jobs: Sequence[str] = (),
        failed: bool = False,
        params: Mapping[str, str] | None = None,
        request_id: str = "",
        keep: bool = False,
    ) -> Run:
        """Run an execution that has ended again, as a new one: all of it, or from some of its jobs on.

        ``failed``: only what did not complete and what builds on it; ``from_jobs``: these as well. The others are not
        run: their files are sent again from where they are. ``params`` take the place of what it had.
        """
        request = workflows_pb2.RerunExecutionRequest(
            request_id=request_id or new_request_id(),
            workflow_execution_id=execution_id,
            from_jobs=from_jobs,
            failed=failed,
            params=params,
            keep=keep,
        )
        return Run(self, (await self._call(self._workflows.RerunExecution, request)).execution)

    async def handle(self, execution_id: int) -> Run:
        """A handle on an execution that was started before."""
        return Run(self, await self.execution(execution_id))

    # Space

    async def usage(self) -> space_pb2.GetUsageResponse:
        """What the data directory takes on the disk."""
        return await self._call(self._space.GetUsage, space_pb2.GetUsageRequest())

    async def collect_garbage(
        self, *, dry_run: bool = False, older_than_seconds: float | None = None, execution_ids: Sequence[int] = ()
    ) -> space_pb2.CollectGarbageResponse:
        """Remove files of what is over, at the configured ages or those older than that."""
        request = space_pb2.CollectGarbageRequest(
            request_id=new_request_id(), dry_run=dry_run, workflow_execution_ids=execution_ids
        )
        if older_than_seconds is not None:
            request.older_than_seconds = older_than_seconds
        return await self._call(self._space.CollectGarbage, request)

    # Executions

    async def executions(
        self,
        *,
        statuses: Iterable[workflows_pb2.ExecutionStatus.ValueType] = (),
        workflow: str = "",
        limit: int | None = None,
    ) -> list[workflows_pb2.Execution]:
        """Executions, newest first, without their jobs."""
        request = workflows_pb2.ListExecutionsRequest(statuses=statuses, workflow=workflow)
        request.page_size = min(limit or PAGE_SIZE, PAGE_SIZE)
        return await self._all(self._workflows.ListExecutions, request, lambda page: page.executions, limit)

    async def execution(self, execution_id: int) -> workflows_pb2.Execution:
        """One execution with its jobs and edges."""
        request = workflows_pb2.GetExecutionRequest(workflow_execution_id=execution_id)
        answer = await self._call(self._workflows.GetExecution, request)
        whole = answer.execution
        while answer.next_page_token:
            request.page_token = answer.next_page_token
            answer = await self._call(self._workflows.GetExecution, request)
            whole.jobs.extend(answer.execution.jobs)
            whole.edges.extend(answer.execution.edges)
        return whole

    async def events(
        self, execution_id: int, *, node_id: str = "", limit: int | None = None
    ) -> list[workflows_pb2.ExecutionEvent]:
        """What happened to an execution, or to one of its jobs, oldest first."""
        request = workflows_pb2.ListExecutionEventsRequest(
            workflow_execution_id=execution_id, node_id=node_id, page_size=min(limit or PAGE_SIZE, PAGE_SIZE)
        )
        return await self._all(self._workflows.ListExecutionEvents, request, lambda page: page.events, limit)

    async def fetch(self, execution_id: int, directory: str | Path, *, files: Sequence[str] = ()) -> list[Path]:
        """Copy what was delivered to Local Peer into a directory of this machine; see :mod:`peerd.client.fetching`.

        ``files`` are patterns as in a definition. A file that is there already is replaced once the new one is whole.
        """
        request = workflows_pb2.ReadDeliveredRequest(workflow_execution_id=execution_id, files=files)
        call = self._workflows.ReadDelivered(request, timeout=FETCH_SECONDS, metadata=self._metadata)
        try:
            return await write_files(Path(directory), call)
        except aio.AioRpcError as exc:
            raise self._error(exc) from exc
        finally:
            call.cancel()

    async def keep(self, execution_id: int, *, keep: bool = True) -> workflows_pb2.Execution:
        """Save an execution's files from retention, here and where its jobs ran; or leave them to it again."""
        request = workflows_pb2.KeepExecutionRequest(
            request_id=new_request_id(), workflow_execution_id=execution_id, keep=keep
        )
        return (await self._call(self._workflows.KeepExecution, request)).execution

    async def watch(self, execution_id: int, *, timeout: float | None = None) -> AsyncIterator[workflows_pb2.Execution]:
        """The whole execution after each change, until it is final.

        A daemon that restarts meanwhile is waited for, and the watch goes on where it was.
        """
        now = asyncio.get_running_loop().time
        give_up_at = None if timeout is None else now() + timeout
        lost_at: float | None = None
        whole = workflows_pb2.Execution()
        resume_token = 0
        while True:
            left = STREAM_SECONDS if give_up_at is None else min(STREAM_SECONDS, give_up_at - now())
            request = workflows_pb2.WatchExecutionRequest(workflow_execution_id=execution_id, resume_token=resume_token)
            call = self._workflows.WatchExecution(request, timeout=max(left, 0.001), metadata=self._metadata)
            try:
                async for update in call:
                    lost_at = None
                    resume_token = update.resume_token
                    merge_execution(whole, update.execution)
                    if update.more:
                        continue
                    copy = workflows_pb2.Execution()
                    copy.CopyFrom(whole)
                    yield copy
                    if is_final(whole):
                        return
            except aio.AioRpcError as exc:
                error = self._error(exc)
                out_of_time = give_up_at is not None and now() >= give_up_at
                if exc.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    if out_of_time:
                        raise error from exc
                    continue
                if not connection_lost(error):
                    raise error from exc
                lost_at = now() if lost_at is None else lost_at
                if out_of_time or now() - lost_at > RECONNECT_SECONDS:
                    raise error from exc
            finally:
                call.cancel()
            # Ended early without a word, or lost: the daemon restarts. Do not spin while it does.
            await asyncio.sleep(0.3)

    async def wait(self, execution_id: int, *, timeout: float | None = None) -> workflows_pb2.Execution:
        """The execution once it is final."""
        last = workflows_pb2.Execution()
        async for update in self.watch(execution_id, timeout=timeout):
            last = update
        return last

    async def cancel(self, execution_id: int, *, reason: str = "") -> workflows_pb2.Execution:
        """Record the wish to cancel; the answer comes when that is durable, not when all has stopped."""
        request = workflows_pb2.CancelExecutionRequest(
            request_id=new_request_id(), workflow_execution_id=execution_id, reason=reason
        )
        return (await self._call(self._workflows.CancelExecution, request)).execution

    async def logs(
        self,
        execution_id: int,
        node_id: str,
        *,
        stream: jobs_pb2.LogStream.ValueType = jobs_pb2.LOG_STREAM_UNSPECIFIED,
        follow: bool = False,
        timeout: float | None = None,
    ) -> AsyncIterator[workflows_pb2.ReadLogsResponse]:
        """What a job wrote, from wherever it runs; with follow until it has ended."""
        request = workflows_pb2.ReadLogsRequest(
            workflow_execution_id=execution_id, node_id=node_id, stream=stream, follow=follow
        )
        # Logs have no resume token here, so a followed log gets one long stream: a day.
        seconds = timeout if timeout is not None else 86_400.0 if follow else STREAM_SECONDS
        call = self._workflows.ReadLogs(request, timeout=seconds, metadata=self._metadata)
        try:
            async for piece in call:
                yield piece
        except aio.AioRpcError as exc:
            raise self._error(exc) from exc
        finally:
            call.cancel()

    # This peer as an executor

    async def jobs(
        self, *, statuses: Iterable[jobs_pb2.JobStatus.ValueType] = (), limit: int | None = None
    ) -> list[jobs_pb2.JobExecution]:
        """The jobs this peer runs or ran, for whatever orchestrator."""
        request = jobs_pb2.ListJobsRequest(statuses=statuses, page_size=min(limit or PAGE_SIZE, PAGE_SIZE))
        return await self._all(self._jobs.ListJobs, request, lambda page: page.jobs, limit)

    async def job(self, job_execution_id: int) -> jobs_pb2.JobExecution:
        """One job of this peer, with its attempts and interfaces."""
        return (await self._call(self._jobs.GetJob, jobs_pb2.GetJobRequest(job_execution_id=job_execution_id))).job

    async def transfers(self, *, execution_id: int = 0) -> list[transfers_pb2.Transfer]:
        """What this peer sends and receives."""
        request = transfers_pb2.ListTransfersRequest(workflow_execution_id=execution_id, page_size=PAGE_SIZE)
        return await self._all(self._transfers.ListTransfers, request, lambda page: page.transfers)


def merge_execution(whole: workflows_pb2.Execution, update: workflows_pb2.Execution) -> None:
    """Bring ``whole`` up to date: an update carries only the jobs and edges that changed."""
    jobs = {job.workflow_job_id: job for job in [*whole.jobs, *update.jobs]}
    edges = {edge.edge_id: edge for edge in [*whole.edges, *update.edges]}
    merged = workflows_pb2.Execution()
    merged.CopyFrom(update)
    del merged.jobs[:], merged.edges[:]
    merged.jobs.extend(jobs[key] for key in sorted(jobs))
    merged.edges.extend(edges[key] for key in sorted(edges))
    whole.CopyFrom(merged)


def is_final(execution: workflows_pb2.Execution) -> bool:
    """Whether nothing more will happen to it."""
    return execution.status in _FINAL
