"""Refused, each with a reason and a next action, and nothing changed."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc import aio

from peerd.clock import SystemClock
from peerd.errors import PeerdError, Reason
from peerd.identity.certificates import anchor_pem, issue_leaf
from peerd.identity.key import Identity, load_identity
from peerd.identity.peer_id import PeerId
from peerd.rpc import limits
from peerd.rpc.status import remote_errors
from peerd.v1 import (
    jobs_pb2,
    jobs_pb2_grpc,
    mesh_pb2,
    mesh_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
    transfers_pb2,
    transfers_pb2_grpc,
    workflows_pb2,
    workflows_pb2_grpc,
)

from .fleet import Daemon, Fleet, wait_for
from .load import busier


def channel_as(identity: Identity, callee: Daemon) -> aio.Channel:
    """A TLS channel of that identity to a daemon, as any gRPC client could make it."""
    leaf = issue_leaf(identity, SystemClock())
    credentials = grpc.ssl_channel_credentials(
        anchor_pem(PeerId(callee.peer_id)), leaf.private_key_pem, leaf.certificate_pem
    )
    options = [*limits.CLIENT, ("grpc.default_authority", callee.peer_id), ("own", identity.peer_id)]
    return aio.secure_channel(f"127.0.0.1:{callee.port}", credentials, options)


def refused(done: object, reason: str) -> str:
    """What peerctl or peerd said: a cause, that reason, and what to do."""
    text = str(getattr(done, "stderr", ""))
    assert f"reason: {reason}" in text, text
    assert "next: " in text and len(text.split("next: ")[1].strip()) > 5
    return text


def members(daemon: Daemon) -> list[tuple[str, bool, tuple[str, ...]]]:
    """Who is a member, or was, with what grants; not how they are."""
    peers = daemon.json("peers", "list")["peers"]
    return sorted((peer["peer_id"], peer["status"].endswith("REVOKED"), tuple(peer["grants"])) for peer in peers)


@pytest.fixture
def newcomer(fleet: Fleet) -> Iterator[Daemon]:
    daemon = Daemon("n", fleet.folder / f"n{time.monotonic_ns()}", fleet["a"].port, fleet.folder / "n.log")
    yield daemon


def test_a_stranger_is_told_what_it_may_be(fleet: Fleet) -> None:
    async def call() -> None:
        async with channel_as(Identity.generate(), fleet["a"]) as channel:
            with remote_errors("a"):
                stub = registry_pb2_grpc.RegistryServiceStub(channel)
                await stub.ListPeers(registry_pb2.ListPeersRequest(), timeout=30)

    with pytest.raises(PeerdError) as caught:
        asyncio.run(call())
    assert caught.value.reason is Reason.NOT_TRUSTED_OR_UNREACHABLE
    assert "members of one mesh" in caught.value.next_action


def test_an_invite_admits_one_machine_once(fleet: Fleet, newcomer: Daemon) -> None:
    before = members(fleet["c"])
    token = fleet["c"].json("invite", "--role", "worker", "--grants", "observe")["token"]
    mangled = token[:-4] + ("AAAA" if token[-4:] != "AAAA" else "BBBB")
    refused(newcomer.peerd("join", mangled, check=False), "invite_invalid")
    assert members(fleet["c"]) == before
    newcomer.peerd("join", token, "--name", "newcomer")
    newcomer.peerd("join", token)  # the same machine may repeat itself
    copy = Daemon("copy", newcomer.data.with_name("copy" + newcomer.data.name), 0, newcomer.log)
    refused(copy.peerd("join", token, check=False), "invite_used")
    assert len(members(fleet["c"])) == len(before) + 1


def test_expired_and_revoked_invites_admit_nobody(fleet: Fleet, newcomer: Daemon) -> None:
    before = members(fleet["c"])
    short = fleet["c"].json("invite", "--grants", "observe", "--ttl", "1s")
    made = fleet["c"].json("invite", "--grants", "observe")
    fleet["c"].peerctl("invites", "revoke", made["invite_id"])
    refused(newcomer.peerd("join", made["token"], check=False), "invite_revoked")

    def expired() -> bool:
        listed = {entry["invite_id"]: entry["status"] for entry in fleet["c"].json("invites", "list")["invites"]}
        return bool(listed[short["invite_id"]] == "INVITE_STATUS_EXPIRED")

    wait_for(expired, 30, "the invite expires")
    refused(newcomer.peerd("join", short["token"], check=False), "invite_expired")
    assert members(fleet["c"]) == before


def test_an_invite_never_grants_admin_and_only_admins_invite(fleet: Fleet) -> None:
    assert "'admin' is not one of" in fleet["c"].peerctl("invite", "--grants", "observe,admin", code=2).stderr
    refused(fleet["a"].peerctl("invite", "--grants", "observe", code=4), "permission_denied")
    refused(fleet["a"].peerctl("--peer", "c", "invite", "--grants", "observe", code=4), "permission_denied")


def test_ids_that_do_not_encode_back_and_unknown_names_are_refused(fleet: Fleet) -> None:
    good = fleet["a"].peer_id
    alphabet = "abcdefghijklmnopqrstuvwxyz234567"
    twin = good[:-1] + alphabet[alphabet.index(good[-1]) ^ 1]
    before = members(fleet["c"])
    refused(fleet["c"].peerctl("peers", "admit", twin, "--grants", "observe", code=2), "invalid_peer_id")
    refused(fleet["c"].peerctl("peers", "show", "nobody", code=5), "not_found")
    assert members(fleet["c"]) == before


def test_without_the_grant_every_call_is_refused_on_the_wire(fleet: Fleet, newcomer: Daemon) -> None:
    token = fleet["c"].json("invite", "--grants", "observe")["token"]
    newcomer.peerd("join", token, "--name", "onlooker")
    identity = load_identity(newcomer.data / "identity.key")

    async def call() -> list[Reason]:
        reasons = []
        async with channel_as(identity, fleet["c"]) as channel:
            with remote_errors("c"):
                stub = registry_pb2_grpc.RegistryServiceStub(channel)
                await stub.ListPeers(registry_pb2.ListPeersRequest(), timeout=30)
            for ask in (
                lambda: jobs_pb2_grpc.JobServiceStub(channel).CreateJob(jobs_pb2.CreateJobRequest(), timeout=30),
                lambda: jobs_pb2_grpc.JobReportServiceStub(channel).ReportJobs(
                    jobs_pb2.ReportJobsRequest(), timeout=10
                ),
                lambda: mesh_pb2_grpc.MeshServiceStub(channel).AdmitPeer(mesh_pb2.AdmitPeerRequest(), timeout=30),
                lambda: workflows_pb2_grpc.WorkflowServiceStub(channel).RunWorkflow(
                    workflows_pb2.RunWorkflowRequest(), timeout=10
                ),
                lambda: transfers_pb2_grpc.TransferServiceStub(channel).Offer(
                    iter([transfers_pb2.OfferRequest()]), timeout=10
                ),
                lambda: mesh_pb2_grpc.MeshServiceStub(channel).Join(mesh_pb2.JoinRequest(), timeout=30),
            ):
                with pytest.raises(PeerdError) as caught, remote_errors("c"):
                    await ask()
                reasons.append(caught.value.reason)
        return reasons

    assert asyncio.run(call()) == [Reason.PERMISSION_DENIED] * 5 + [Reason.NOT_A_MEMBER]


def test_a_transfer_that_no_job_expects_is_refused(fleet: Fleet) -> None:
    identity = load_identity(fleet["a"].data / "identity.key")

    async def call() -> None:
        key = transfers_pb2.TransferKey(
            orchestrator_peer_id=fleet["c"].peer_id,
            store_id="s" * 32,
            workflow_execution_id=1,
            edge_id=1,
            source_job_execution_id=1,
            destination_job_execution_id=0,
            manifest_digest=bytes(32),
        )
        header = transfers_pb2.OfferHeader(key=key, file_count=0, total_bytes=0)
        async with channel_as(identity, fleet["c"]) as channel:
            with remote_errors("c"):
                stub = transfers_pb2_grpc.TransferServiceStub(channel)
                await stub.Offer(iter([transfers_pb2.OfferRequest(header=header)]), timeout=30)

    with pytest.raises(PeerdError) as caught:
        asyncio.run(call())
    assert caught.value.reason is Reason.UNEXPECTED_TRANSFER


def test_a_revoked_peer_is_out_at_once_everywhere_and_for_good() -> None:
    fleet = Fleet(("c", "a", "b", "d"))
    try:
        fleet.found()
        d = fleet["d"]
        identity = load_identity(d.data / "identity.key")

        async def watch_from(callee: Daemon) -> float:
            """Hold a stream open at a third peer, revoke at the founder, and time its end."""
            async with channel_as(identity, callee) as channel:
                stub = registry_pb2_grpc.RegistryServiceStub(channel)
                await stub.ListPeers(registry_pb2.ListPeersRequest(), timeout=30)
                # A follow of a job that does not end is the longest stream there is.
                call = workflows_pb2_grpc.WorkflowServiceStub(channel).WatchExecution(
                    workflows_pb2.WatchExecutionRequest(workflow_execution_id=running)
                )
                await call.read()
                process = await asyncio.create_subprocess_exec(
                    *_peerctl(fleet["c"]), "peers", "revoke", "d", "--reason", "sold", "--yes"
                )
                await process.wait()
                revoked_at = time.monotonic()
                with pytest.raises(PeerdError) as caught, remote_errors("b"):
                    async with asyncio.timeout(30):
                        while True:
                            await call.read()
                assert caught.value.reason is Reason.REVOKED
                took = time.monotonic() - revoked_at
                with pytest.raises(PeerdError) as caught, remote_errors("b"):
                    await stub.ListPeers(registry_pb2.ListPeersRequest(), timeout=30)
                assert caught.value.reason is Reason.REVOKED
                return took

        running = _long_execution(fleet, "b")
        assert asyncio.run(watch_from(fleet["b"])) < 1.0 * busier()
        wait_for(lambda: _status_at(fleet["a"], "d") == "PEER_STATUS_REVOKED", 30, "it is out everywhere")
        # A friend with old records: a forgets nothing, even when d itself brings its old chain.
        d.kill()
        d.start()
        wait_for(lambda: d.alive, 30, "d runs again")
        assert _status_at(fleet["a"], "d") == _status_at(fleet["b"], "d") == "PEER_STATUS_REVOKED"
        refused(fleet["c"].peerctl("peers", "admit", d.peer_id, "--grants", "observe", code=4), "revoked")
        assert _status_at(fleet["c"], "d") == "PEER_STATUS_REVOKED"
    finally:
        fleet.close()


def _peerctl(daemon: Daemon) -> list[str]:
    from .fleet import tool

    return [tool("peerctl"), "--socket", str(daemon.socket)]


def _status_at(daemon: Daemon, name: str) -> str:
    return str(next(peer["status"] for peer in daemon.json("peers", "list")["peers"] if peer["name"] == name))


def _long_execution(fleet: Fleet, orchestrator: str) -> int:
    from .workflow import definition, job, start

    return start(fleet, orchestrator, definition("long", job("long", "b", params={"until": "never"}))).id


def test_only_the_founder_makes_admins_and_nobody_revokes_the_founder(own_fleet: Fleet) -> None:
    c, a, b = own_fleet["c"], own_fleet["a"], own_fleet["b"]
    grants = "observe,execute,operate,admin"
    c.peerctl("peers", "admit", a.peer_id, "--role", "worker", "--grants", grants)
    wait_for(lambda: ("GRANT_ADMIN" in str(members(a))) and _grants_at(a, "a").count("ADMIN") == 1, 30, "a knows")
    refused(a.peerctl("peers", "admit", b.peer_id, "--grants", grants, code=4), "permission_denied")
    refused(a.peerctl("peers", "revoke", "c", "--yes", code=4), "permission_denied")
    a.peerctl("peers", "admit", b.peer_id, "--role", "worker", "--grants", "observe")
    wait_for(lambda: "OPERATE" not in _grants_at(c, "b"), 30, "what a may do, counts")


def _grants_at(daemon: Daemon, name: str) -> str:
    return json.dumps(next(p["grants"] for p in daemon.json("peers", "list")["peers"] if p["name"] == name))


def test_a_peer_is_admitted_by_its_id_without_an_invite(fleet: Fleet, newcomer: Daemon) -> None:
    peer_id = newcomer.peerd("identity").stdout.strip()
    address = f"127.0.0.1:{fleet['c'].port}"
    early = newcomer.peerd("join", "--mesh", fleet["c"].peer_id, "--address", address, check=False)
    refused(early, "not_trusted_or_unreachable")
    fleet["c"].peerctl("peers", "admit", peer_id, "--role", "worker", "--grants", "observe")
    newcomer.peerd("join", "--mesh", fleet["c"].peer_id, "--address", address)


@pytest.mark.parametrize("fault", ["mode", "directory"])
def test_a_key_that_others_can_read_is_not_used(tmp_path: Path, fault: str) -> None:
    daemon = Daemon("x", tmp_path / "x", 0, tmp_path / "log")
    daemon.peerd("init", "--listen", "127.0.0.1:0")
    (daemon.data if fault == "directory" else daemon.data / "identity.key").chmod(0o755)
    done = daemon.peerd("run", check=False)
    refused(done, "key_exposed")
    assert "chmod" in done.stderr


def test_a_second_daemon_on_the_same_directory_is_refused(fleet: Fleet) -> None:
    refused(fleet["a"].peerd("run", check=False), "daemon_running")
    refused(fleet["a"].peerd("init", check=False), "already_initialized")


def test_what_a_killed_daemon_was_just_starting_does_not_keep_the_next_one_out(fleet: Fleet) -> None:
    a = fleet["a"]
    a.kill()
    hold = "import fcntl, sys, time; lock = open(sys.argv[1]); fcntl.flock(lock, fcntl.LOCK_EX); print(flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", f"{hold}; time.sleep(1)", str(a.data / "lock")], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline()
        a.start()
    fleet.wait_until_all_see_all()
