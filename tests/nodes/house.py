"""Organizations and nodes over a real store, with executions that are only counted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from peerd.clock import FakeClock
from peerd.identity.peer_id import PeerId
from peerd.jobs.paths import JobPlace
from peerd.nodes.applying import Applying
from peerd.nodes.asking import Asking
from peerd.nodes.ending import Ending, NodeScan
from peerd.nodes.message_json import to_json
from peerd.nodes.messages import BatchLine, ProbeResult
from peerd.nodes.organizations import Organizations
from peerd.nodes.protocols import load_protocols
from peerd.nodes.servicer import NodeServicer, OrganizationServicer
from peerd.nodes.starting import Starter
from peerd.nodes.withdrawing import Withdrawing
from peerd.rpc.caller import ALL_GRANTS, Caller, current
from peerd.store import Store, Tx, open_store
from peerd.v1 import nodes_pb2, workflows_pb2
from peerd.workflows.repository import WorkflowVersion, create_execution

OWN = PeerId("a" * 52)
OTHER = PeerId("b" * 52)
NETWORKS = nodes_pb2.OrganizationPolicy(allowed_networks=["10.0.0.0/8"])


class Executions:
    """Makes the rows and runs nothing."""

    def __init__(self) -> None:
        self.definitions: list[workflows_pb2.WorkflowDefinition] = []
        self.given_up: list[str] = []
        """Jobs."""

    def start(self, tx: Tx, version: WorkflowVersion, params: Mapping[str, str], *, started_by: str) -> int:
        self.definitions.append(version.definition)
        return create_execution(tx, version, params, started_by=started_by).spec.execution_id

    def give_up(self, tx: Tx, execution_id: int, job: str, waiting: str) -> None:
        self.given_up.append(job)


class Around:
    """A mesh of two."""

    def __init__(self) -> None:
        self.roles_of: dict[str, frozenset[str]] = {}

    def name_of(self, peer_id: str) -> str:
        return {OWN: "alpha", OTHER: "beta"}.get(PeerId(peer_id), peer_id)

    def roles(self, peer_id: PeerId) -> frozenset[str]:
        return self.roles_of.get(peer_id, frozenset())


class Intake:
    """Keeps what is handed in."""

    def __init__(self) -> None:
        self.scans: list[NodeScan] = []
        self.refusals: dict[int, Exception] = {}
        """By run."""

    def hand_in(self, tx: Tx, scan: NodeScan) -> None:
        if scan.run_id in self.refusals:
            raise self.refusals[scan.run_id]
        tx.on_commit(lambda: self.scans.append(scan))


class House:
    """Everything that serves and applies."""

    def __init__(self, store: Store, clock: FakeClock, folder: Path) -> None:
        self.store, self.clock, self.folder = store, clock, folder
        self.executions, self.around, self.intake = Executions(), Around(), Intake()
        protocols = load_protocols()
        known = frozenset(protocols.names())
        ending = Ending(OWN, self.intake)
        organizations = Organizations(known, Withdrawing(ending, self.executions))
        self.organizations = OrganizationServicer(store, self.around, OWN, organizations)
        asking = Asking(organizations, Starter(self.executions), known)
        self.nodes = NodeServicer(store, self.around, OWN, asking, protocols)
        self.applying = Applying(
            store,
            clock,
            data_dir=folder,
            own_peer_id=OWN,
            known=known,
            executions=self.executions,
            ending=ending,
        )

    async def add(self, slug: str, policy: nodes_pb2.OrganizationPolicy = NETWORKS) -> str:
        """A new organization; its UUID."""
        with calling(OWN):
            added = await self.organizations.AddOrganization(
                nodes_pb2.AddOrganizationRequest(slug=slug, policy=policy), None
            )
        return added.organization.org_id

    async def scan(self, target: str, org: str, **fields: Any) -> nodes_pb2.NodeAnswer:
        with calling(OWN):
            request = nodes_pb2.ScanNodeRequest(org=org, target=target, **fields)
            return (await self.nodes.ScanNode(request, None)).answer

    async def discover(self, node_id: str, **fields: Any) -> nodes_pb2.NodeAnswer:
        with calling(OWN):
            request = nodes_pb2.DiscoverNodeRequest(node_id=node_id, **fields)
            return (await self.nodes.DiscoverNode(request, None)).answer

    async def node(self, node: str) -> nodes_pb2.GetNodeResponse:
        with calling(OWN):
            return await self.nodes.GetNode(nodes_pb2.GetNodeRequest(node=node), None)

    async def deliver(
        self, run: nodes_pb2.NodeAnswer | nodes_pb2.NodeRun, result: ProbeResult | bytes, report: str = ""
    ) -> None:
        """The job of a run completes and its result comes home."""
        folder = await self._folder_of(run)
        (folder / "result.json").write_bytes(result if isinstance(result, bytes) else to_json(result).encode())
        if report:
            (folder / "report.md").write_text(report, encoding="utf-8")
        await self.end(run, "completed", "delivered")

    async def deliver_batch(
        self, runs: Sequence[nodes_pb2.NodeRun], results: Mapping[str, ProbeResult], *, more: bytes = b""
    ) -> None:
        """The job of these runs completes and its results, by node, come home."""
        folder = await self._folder_of(runs[0])
        lines = [
            to_json(BatchLine(node_id=node, result=to_json(found), report="# Scan")) for node, found in results.items()
        ]
        (folder / "results.jsonl").write_bytes("".join(f"{line}\n" for line in lines).encode() + more)
        await self.end(runs[0], "completed", "delivered")

    async def _folder_of(self, run: nodes_pb2.NodeAnswer | nodes_pb2.NodeRun) -> Path:
        place = JobPlace(
            data_dir=self.folder,
            orchestrator=OWN,
            workflow_execution_id=run.workflow_execution_id,
            executor=OWN,
            job_execution_id=0,
        )
        folder = place.input / await self.job_of(run.run_id)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    async def end(
        self, run: nodes_pb2.NodeAnswer | nodes_pb2.NodeRun, status: str, edge: str, reason: str = "", message: str = ""
    ) -> None:
        """What the engine writes when a job ends."""
        job = await self.job_of(run.run_id)

        def write(tx: Tx) -> None:
            tx.execute(
                "UPDATE workflow_jobs SET status = ?, executor_peer_id = ?, reason = ?, message = ?"
                " WHERE workflow_execution_id = ? AND node_id = ?",
                (status, OTHER, reason, message, run.workflow_execution_id, job),
            )
            tx.execute(
                "UPDATE execution_edges SET status = ? WHERE workflow_execution_id = ? AND source_node_id = ?",
                (edge, run.workflow_execution_id, job),
            )

        await self.store.write(write)

    async def job_of(self, run_id: int) -> str:
        row = await self.store.one("SELECT job FROM node_runs WHERE id = ?", (run_id,))
        assert row is not None
        return str(row["job"])


@contextmanager
def calling(peer_id: PeerId) -> Any:
    """Calls within come from that peer."""
    token = current.set(Caller(peer_id=peer_id, grants=ALL_GRANTS, local=peer_id == OWN))
    try:
        yield
    finally:
        current.reset(token)


@asynccontextmanager
async def open_house(folder: Path) -> AsyncIterator[House]:
    clock = FakeClock()
    store = await open_store(folder / "store.db", clock)
    try:
        yield House(store, clock, folder)
    finally:
        await store.close()
