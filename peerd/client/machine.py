"""One machine of the fleet: how its daemon is, what was changed on it, what it holds and what it runs for others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

from peerd.client.calls import PAGE_SIZE, Calls, new_request_id
from peerd.v1 import (
    audit_pb2,
    audit_pb2_grpc,
    backup_pb2,
    backup_pb2_grpc,
    daemon_pb2,
    daemon_pb2_grpc,
    jobs_pb2,
    jobs_pb2_grpc,
    space_pb2,
    space_pb2_grpc,
    tokens_pb2,
    tokens_pb2_grpc,
    transfers_pb2,
    transfers_pb2_grpc,
)


class MachineCalls(Calls):
    """The calls about the machine of the daemon."""

    @cached_property
    def _daemon(self) -> daemon_pb2_grpc.DaemonServiceAsyncStub:
        return daemon_pb2_grpc.DaemonServiceStub(self._channel)

    @cached_property
    def _audit(self) -> audit_pb2_grpc.AuditServiceAsyncStub:
        return audit_pb2_grpc.AuditServiceStub(self._channel)

    @cached_property
    def _backups(self) -> backup_pb2_grpc.BackupServiceAsyncStub:
        return backup_pb2_grpc.BackupServiceStub(self._channel)

    @cached_property
    def _tokens(self) -> tokens_pb2_grpc.TokenServiceAsyncStub:
        return tokens_pb2_grpc.TokenServiceStub(self._channel)

    @cached_property
    def _space(self) -> space_pb2_grpc.SpaceServiceAsyncStub:
        return space_pb2_grpc.SpaceServiceStub(self._channel)

    @cached_property
    def _jobs(self) -> jobs_pb2_grpc.JobServiceAsyncStub:
        return jobs_pb2_grpc.JobServiceStub(self._channel)

    @cached_property
    def _transfers(self) -> transfers_pb2_grpc.TransferServiceAsyncStub:
        return transfers_pb2_grpc.TransferServiceStub(self._channel)

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

    # As an executor

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
