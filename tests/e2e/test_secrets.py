"""A secret of one machine: its job gets it, and nothing else of the whole fleet ever shows it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .fleet import Daemon, Fleet, wait_for
from .workflow import Run, definition, start

pytestmark = [
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap"),
    pytest.mark.timeout(300),
]

# Two lines, because each of them must be masked alone as well.
VALUE = "tr0ub4dor-and-3\nsecond-line-of-it"
PARTS = [part.encode() for part in VALUE.split("\n")]
FROM_ENVIRONMENT = "of-the-daemons-environment"
# Shows what it was given in every way it should not, then waits until it may go on.
SHOW = """
import hashlib, os, sys, time, pathlib
value = os.environ["TOKEN"]
assert hashlib.sha256(value.encode()).hexdigest() == "DIGEST", "another value"
for stream in (sys.stdout, sys.stderr):
    print("all of it:", value, file=stream, flush=True)
    for piece in value:
        stream.write(piece)
        stream.flush()
    print(" and", value.splitlines()[1], file=stream, flush=True)
print("reversed", value[::-1].replace(chr(10), ""), flush=True)
gate = pathlib.Path(os.environ["GATE"]) if "GATE" in os.environ else None
until = time.monotonic() + 300
while gate and not gate.exists() and time.monotonic() < until:
    time.sleep(0.05)
sys.exit(int(os.environ.get("CODE", "0")))
""".replace("DIGEST", hashlib.sha256(VALUE.encode()).hexdigest())


def secrets_toml(fleet: Fleet, *, trusted: str) -> str:
    """Secrets of one machine: by file, by variable, missing, and for one service alone."""
    folder = fleet.folder / "keys"
    folder.mkdir(exist_ok=True)
    (folder / "token").write_text(VALUE + "\n")
    allowed = f"allowed_peers = ['{trusted}']\n"
    show = json.dumps([sys.executable, "-c", SHOW])
    return (
        f"\n[jobs]\nallow_commands_from = ['{trusted}']\n"
        f"[secrets.token]\nfile = '{folder}/token'\n{allowed}services = ['show']\ncommands = true\n"
        f"[secrets.variable]\nenv = 'SECRET_OF_TEST'\n{allowed}commands = true\n"
        f"[secrets.missing]\nfile = '{folder}/missing'\n{allowed}commands = true\n"
        f"[secrets.mine]\nfile = '{folder}/token'\n"
        f"[[services]]\nname = 'show'\nkind = 'SERVICE_KIND_PROCESS'\nargv = {show}\n"
        f"job_env = ['TOKEN', 'GATE', 'CODE']\nwritable_paths = ['{fleet.effects}']\n"
    )


def configure(fleet: Fleet, name: str = "a") -> None:
    daemon = fleet[name]
    daemon.kill()
    daemon.configure(secrets_toml(fleet, trusted=fleet.founder.peer_id))
    daemon.environ["SECRET_OF_TEST"] = FROM_ENVIRONMENT
    daemon.start()
    fleet.wait_until_all_see_all()


@pytest.fixture(scope="module")
def guarded() -> Iterator[Fleet]:
    fleet = Fleet()
    try:
        fleet.found()
        configure(fleet)
        yield fleet
    finally:
        fleet.close()


def shows(peer: str = "a", **more: object) -> dict[str, object]:
    return definition("shows", {"name": "show", "on": {"peer": peer}, "service": "show", **more})


def command(program: str, peer: str = "a", **more: object) -> dict[str, object]:
    argv = [sys.executable, "-c", program]
    return definition("command", {"name": "job", "on": {"peer": peer}, "run": {"argv": argv}, **more})


def both_logs(daemon: Daemon, run: Run) -> str:
    """Both logs of the job ``show``, from wherever it runs."""
    said = daemon.peerctl("logs", str(run.id), "show", code=None)
    return said.stdout + said.stderr


def files_with(folder: Path, *parts: bytes) -> list[str]:
    """Files below a folder that hold any of these bytes; what vanishes meanwhile is passed over."""
    found = []
    for path in (Path(base, name) for base, _, names in os.walk(folder) for name in names):
        try:
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        except FileNotFoundError:
            continue
        if any(part in content for part in parts):
            found.append(str(path))
    return found


def processes_showing(*parts: bytes) -> list[str]:
    """Command lines of this machine that hold any of these bytes."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes())
        except OSError:
            continue
    assert any(b"wrapper.py" in line for line in lines)
    return [line.decode(errors="replace") for line in lines if any(part in line for part in parts)]


def everything_said(fleet: Fleet, run: Run) -> str:
    """What people and programs are told about an execution, at both ends."""
    said = ""
    for daemon in (fleet["c"], fleet["a"]):
        for form in ("-o", "json"), ():
            for words in ("jobs", "list"), ("audit",), ("status",), ("services", "list"), ("peers", "list"):
                said += daemon.peerctl(*words, *form).stdout
    row = next(iter(run.jobs().values()))
    said += fleet["c"].peerctl("executions", "show", str(run.id), "-o", "json").stdout
    said += fleet["c"].peerctl("executions", "show", str(run.id)).stdout
    said += fleet["c"].peerctl("logs", str(run.id), row["node_id"]).stdout
    said += fleet["a"].peerctl("jobs", "show", row["remote_job_execution_id"], "-o", "json").stdout
    said += fleet["a"].peerd("config", "show").stdout
    return said


def test_the_secret_is_nowhere_but_in_its_job(guarded: Fleet) -> None:
    gate = guarded.effects / "gate-nowhere"
    run = start(guarded, "c", shows(secrets={"TOKEN": "token"}, env={"GATE": str(gate)}))
    reversed_value = VALUE[::-1].replace("\n", "")

    def logged() -> str:
        return both_logs(guarded["c"], run)

    wait_for(lambda: reversed_value in logged(), 60, f"the job has shown what it got: {run.explain()}")
    keys = guarded.folder / "keys"
    assert processes_showing(*PARTS) == []
    places = [daemon.data for daemon in guarded.daemons.values()]
    assert [path for place in places for path in files_with(place, *PARTS)] == []
    gate.touch()
    assert run.wait() == "COMPLETED", run.explain()
    said = everything_said(guarded, run) + logged()
    assert not any(part.decode() in said for part in PARTS)
    assert logged().count("all of it: ***\n*** and ***\n") == 2
    assert files_with(keys, *PARTS) == [str(keys / "token")]
    # The daemons' own logs lie beside their data directories.
    assert [path for path in files_with(guarded.folder, *PARTS) if not path.startswith(str(keys))] == []
    assert files_with(guarded["a"].data, b"all of it: ***") != []


def test_a_variable_and_a_file_in_a_command(guarded: Fleet) -> None:
    program = (
        "import os\n"
        "print(os.environ['V'][::-1])\n"
        "print(open(os.environ['PEERD_SECRETS'] + '/token').read()[::-1])\n"
        "print(sorted(os.listdir(os.environ['PEERD_SECRETS'])), os.environ['V'])\n"
    )
    content = command(program, secrets={"V": "variable"}, secret_files=["token"])
    run = start(guarded, "c", content)
    assert run.wait() == "COMPLETED", run.explain()
    said = guarded["c"].peerctl("logs", str(run.id), "job").stdout
    assert said.splitlines()[0] == FROM_ENVIRONMENT[::-1]
    assert (VALUE + "\n")[::-1] in said
    assert "['token'] ***" in said
    assert files_with(guarded["a"].data, FROM_ENVIRONMENT.encode(), *PARTS) == []


@pytest.mark.parametrize(
    ("peer", "secret", "reason", "says"),
    [
        ("a", "no-such-one", "secret_not_found", "no secret 'no-such-one'"),
        ("b", "token", "secret_not_found", "no secret 'token'"),
        ("a", "mine", "secret_not_allowed", "secret 'mine' is not for an ad-hoc command"),
    ],
)
def test_a_machine_refuses_what_it_does_not_give(
    guarded: Fleet, peer: str, secret: str, reason: str, says: str
) -> None:
    if peer == "b" and "allow_commands" not in (guarded["b"].data / "peerd.toml").read_text():
        guarded["b"].kill()
        guarded["b"].configure(f"\n[jobs]\nallow_commands_from = ['{guarded.founder.peer_id}']\n")
        guarded["b"].start()
        guarded.wait_until_all_see_all()
    run = start(guarded, "c", command("pass", peer, secrets={"TOKEN": secret}))
    assert run.wait() == "FAILED"
    row = run.jobs()["job"]
    assert row["reason"] == "refused"
    assert row["message"].startswith(f"{reason}: ")
    assert says in row["message"]
    assert row["next_action"]


def test_it_goes_to_the_peer_that_has_it(guarded: Fleet) -> None:
    content = definition("finds", {"name": "show", "service": "show", "secrets": {"TOKEN": "token"}})
    run = start(guarded, "c", content)
    assert run.wait() == "COMPLETED", run.explain()
    assert run.jobs()["show"]["executor_peer_id"] == guarded["a"].peer_id


def test_a_secret_that_cannot_be_read_fails_the_job_and_is_named(guarded: Fleet) -> None:
    run = start(guarded, "c", command("pass", secrets={"TOKEN": "missing"}))
    assert run.wait() == "FAILED"
    row = run.jobs()["job"]
    assert row["reason"] == "secret_unavailable"
    assert "secret 'missing' is not available" in row["message"]
    assert "readable" in row["next_action"]


def test_nobody_from_elsewhere_lets_a_trusted_peer_order_it(guarded: Fleet) -> None:
    file = guarded.folder / "elsewhere.json"
    file.write_text(json.dumps(shows(secrets={"TOKEN": "token"})))
    refused = guarded["b"].peerctl("--peer", "c", "workflows", "run", str(file), code=None)
    assert refused.returncode != 0
    assert "secret_not_allowed" in refused.stderr
    assert guarded["c"].peerctl("workflows", "run", str(file)).returncode == 0


def test_killed_in_the_middle_it_is_found_again_and_the_retry_asks_anew(own_fleet: Fleet) -> None:
    configure(own_fleet)
    c, a = own_fleet["c"], own_fleet["a"]
    gate = own_fleet.effects / "gate"
    run = start(
        own_fleet,
        "c",
        shows(
            secrets={"TOKEN": "token"},
            env={"GATE": str(gate), "CODE": "3"},
            retry={"attempts": 2, "backoff": "100ms"},
        ),
    )
    token = own_fleet.folder / "keys" / "token"

    def logged() -> str:
        return both_logs(c, run)

    wait_for(lambda: "reversed" in logged(), 60, run.explain())
    a.kill()
    assert processes_showing(*PARTS) == []
    # The attempt goes on with what it was given; the next one is given what is there then.
    token.write_text("what-it-has-become\n")
    a.start()
    wait_for(lambda: run.job_status("show") == "RUNNING", 60, run.explain())
    assert a.json("jobs", "show", run.jobs()["show"]["remote_job_execution_id"])["report"]["attempt"] == 1
    gate.touch()
    assert run.wait() == "FAILED"
    assert run.jobs()["show"]["message"] == "exited with code 1"  # the program's own check of the value
    assert "another value" in logged()
    assert [path for daemon in own_fleet.daemons.values() for path in files_with(daemon.data, *PARTS)] == []
    assert [p for d in own_fleet.daemons.values() for p in files_with(d.data, b"what-it-has-become")] == []
