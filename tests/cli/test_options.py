"""Global options, spellings, help, and what is imported for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from peerd.cli.app import NOUNS
from peerd.cli.app import peerctl as app
from peerd.cli.settings import duration
from peerd.client import default_socket
from peerd.v1 import access_pb2, daemon_pb2, mesh_pb2, registry_pb2
from tests.cli.conftest import Peerctl
from tests.cli.fake_daemon import FakeDaemon

PEERS = registry_pb2.ListPeersResponse(
    peers=[registry_pb2.Peer(peer_id="a" * 52, name="alpha", status=registry_pb2.PEER_STATUS_ONLINE, self=True)]
)


def test_help_imports_neither_grpc_nor_protobuf_nor_rich() -> None:
    program = (
        "import sys, json\n"
        "from peerd.cli import run\n"
        "code = run(['--help'])\n"
        "print(json.dumps([code, sorted({name.split('.')[0] for name in sys.modules})]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    code, modules = json.loads(done.stdout.splitlines()[-1])
    assert code == 0
    assert {"grpc", "google", "rich", "yaml", "asyncio", "cryptography"}.isdisjoint(modules)
    assert "click" in modules


@pytest.mark.parametrize("noun", NOUNS)
def test_the_help_of_each_noun_is_the_one_listed_and_imports_no_grpc(noun: str) -> None:
    command = app.get_command(click.Context(app), noun)
    assert command is not None
    program = (
        "import sys\nfrom peerd.cli import run\n"
        f"code = run([{noun!r}, '--help'])\n"
        "sys.exit(code or bool({'grpc', 'google', 'rich'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["-o", "json", "peers", "list"],
        ["peers", "list", "-o", "json"],
        ["peers", "-o", "json", "list"],
        ["peers", "-o", "json"],
        ["peers", "--output=json", "--timeout", "5s"],
    ],
)
def test_global_options_stand_anywhere_and_a_bare_noun_lists(
    peerctl: Peerctl, daemon: FakeDaemon, arguments: list[str]
) -> None:
    daemon.on("RegistryService.ListPeers", PEERS)
    outcome = peerctl(*arguments)
    assert outcome.exit_code == 0
    assert outcome.json["peers"][0]["name"] == "alpha"
    assert outcome.json["peers"][0]["running_jobs"] == 0  # there although it is empty


def test_peer_is_sent_as_metadata(peerctl: Peerctl, daemon: FakeDaemon) -> None:
    daemon.on("RegistryService.ListPeers", PEERS)
    peerctl("--peer", "beta", "peers")
    peerctl("peers")
    assert [call.metadata.get("peerd-peer") for call in daemon.calls] == ["beta", None]


def test_the_time_out_is_the_deadline_of_the_call_and_there_always_is_one(peerctl: Peerctl, daemon: FakeDaemon) -> None:
    daemon.on("DaemonService.GetStatus", daemon_pb2.GetStatusResponse())
    peerctl("status", "--timeout", "7s")
    peerctl("status")
    assert 5 < daemon.calls[0].seconds_left < 8
    assert 20 < daemon.calls[1].seconds_left < 31


def test_the_short_and_the_long_invite_are_one(peerctl: Peerctl, daemon: FakeDaemon) -> None:
    daemon.on("MeshService.CreateInvite", mesh_pb2.CreateInviteResponse(invite_id="i", token="peerd1-secret"))
    options = ["--role", "worker", "--grants", "observe,execute", "--ttl", "15m"]
    short = peerctl("invite", *options)
    long = peerctl("invite", "create", *options)
    assert short.out == long.out == "peerd1-secret\n"
    first, second = daemon.requests("MeshService.CreateInvite")
    assert list(first.roles) == list(second.roles) == ["worker"]
    assert list(first.grants) == [access_pb2.GRANT_OBSERVE, access_pb2.GRANT_EXECUTE]
    assert first.ttl_seconds == second.ttl_seconds == 900
    assert first.request_id
    assert first.request_id != second.request_id


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5s", 1.5), ("15m", 900), ("1h30m", 5400), ("7d", 604800)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "1x", "-5s", "0s", "30s5m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        duration(text)


def test_the_socket_is_where_the_daemon_puts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_socket({"PEERD_SOCKET": "/s", "PEERD_DATA_DIR": "/d"}) == Path("/s")
    assert default_socket({"PEERD_DATA_DIR": "/d"}) == Path("/d/run/peerd.sock")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert default_socket({}) == Path("/var/lib/peerd/run/peerd.sock")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert default_socket({"XDG_STATE_HOME": "/x"}) == Path("/x/peerd/run/peerd.sock")
    assert default_socket({}) == Path.home() / ".local/state/peerd/run/peerd.sock"
