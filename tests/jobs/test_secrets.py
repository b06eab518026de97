"""Who may have a secret, where it is read, and what a job is told when it is not there."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peerd.catalog.declaration import to_declaration
from peerd.catalog.model import Service, ServiceKind
from peerd.config_reading import load_config, show_config
from peerd.errors import PeerdError, Reason
from peerd.jobs.admission import Orderer
from peerd.jobs.commands import command_work, service_work
from peerd.jobs.model import Job, JobStatus
from peerd.jobs.secrets import MAX_BYTES, MAX_SECRETS, Vault, WantedSecrets, with_secrets
from peerd.secret_config import SecretConfig
from peerd.v1 import catalog_pb2, jobs_pb2, registry_pb2

from .harness import EXECUTOR, ORCHESTRATOR, OTHER, Host, ended, job_key

BOXED = registry_pb2.ISOLATION_LEVEL_BUBBLEWRAP
BARE = registry_pb2.ISOLATION_LEVEL_NONE
WANTED = WantedSecrets(env={"TOKEN": "token"})


def vault(environ: dict[str, str] | None = None, **fields: Any) -> Vault:
    secret = SecretConfig(**{"file": "/nowhere", **fields})
    return Vault(
        {"token": secret},
        own_peer_id=EXECUTOR,
        roles_of=lambda peer_id: frozenset({"builder"}) if peer_id == OTHER else frozenset(),
        environ=environ or {},
    )


def service(name: str = "build", **fields: Any) -> Service:
    proto = catalog_pb2.ServiceDeclaration(
        name=name, kind=catalog_pb2.SERVICE_KIND_PROCESS, argv=["/bin/true"], job_env=["TOKEN"], **fields
    )
    return Service(service_id=1, active=True, origin="config", declaration=to_declaration(proto))


OWN, PEER, ROLE = EXECUTOR, ORCHESTRATOR, OTHER
NAMED: dict[str, Any] = {"services": ("build",)}
COMMANDS: dict[str, Any] = {"commands": True}
BY_PEER: dict[str, Any] = {"allowed_peers": (ORCHESTRATOR,)}
BY_ROLE: dict[str, Any] = {"allowed_roles": ("builder",)}


@pytest.mark.parametrize(
    ("config", "orderer", "what", "allowed"),
    [
        ({}, OWN, "build", True),
        ({}, OWN, "", True),
        ({}, PEER, "build", False),
        ({}, PEER, "", False),
        (NAMED, OWN, "build", True),
        (NAMED, OWN, "other", False),
        (NAMED, OWN, "", False),
        (NAMED, PEER, "build", False),
        (COMMANDS, OWN, "", True),
        (COMMANDS, OWN, "build", False),
        (COMMANDS, PEER, "", False),
        (BY_PEER, PEER, "build", False),
        (BY_PEER, PEER, "", False),
        (NAMED | BY_PEER, PEER, "build", True),
        (NAMED | BY_PEER, PEER, "other", False),
        (NAMED | BY_PEER, PEER, "", False),
        (NAMED | BY_PEER, ROLE, "build", False),
        (NAMED | BY_ROLE, ROLE, "build", True),
        (NAMED | BY_ROLE, PEER, "build", False),
        (COMMANDS | BY_PEER, PEER, "", True),
        (COMMANDS | BY_PEER, PEER, "build", False),
        (COMMANDS | NAMED | BY_ROLE, ROLE, "", True),
    ],
)
def test_who_may_have_it(config: dict[str, Any], orderer: str, what: str, allowed: bool) -> None:
    asking = Orderer(peer_id=orderer, roles=frozenset({"builder"}) if orderer == ROLE else frozenset())
    ordered = service(what) if what else None
    if allowed:
        vault(**config).admit(asking, ordered, WANTED, isolation=BOXED)
        return
    with pytest.raises(PeerdError) as refusal:
        vault(**config).admit(asking, ordered, WANTED, isolation=BOXED)
    assert refusal.value.reason is Reason.SECRET_NOT_ALLOWED
    assert "'token'" in refusal.value.message


def refused(wanted: WantedSecrets, *, isolation: int = BOXED, ordered: Service | None = None) -> PeerdError:
    with pytest.raises(PeerdError) as refusal:
        vault().admit(Orderer(peer_id=OWN), ordered, wanted, isolation=isolation)
    return refusal.value


def test_what_a_machine_cannot_give_is_refused_when_the_job_is_created() -> None:
    unknown = refused(WantedSecrets(env={"A": "other"}))
    assert (unknown.reason, "'other'" in unknown.message) == (Reason.SECRET_NOT_FOUND, True)
    assert refused(WantedSecrets(files=("token",)), isolation=BARE).reason is Reason.ISOLATION_INSUFFICIENT
    vault().admit(Orderer(peer_id=OWN), None, WANTED, isolation=BARE)
    data = replace(service(), declaration=replace(service().declaration, kind=ServiceKind.DATA))
    assert refused(WANTED, ordered=data).reason is Reason.SERVICE_KIND_UNSUPPORTED


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"PEERD_JOB": "token"}, "not a variable"),
        ({"LD_PRELOAD": "token"}, "not a variable"),
        ({"SET": "token"}, "set already"),
        ({"OTHER": "token"}, "lets no job set it"),
        ({f"V{number}": "token" for number in range(MAX_SECRETS + 1)}, "more than"),
    ],
)
def test_a_secret_goes_only_where_a_job_may_set_something(wanted: dict[str, str], says: str) -> None:
    work = replace(service_work(service(), {}, {}), env={"SET": "x"})
    with pytest.raises(PeerdError) as refusal:
        with_secrets(work, WantedSecrets(env=wanted), service())
    assert refusal.value.reason is Reason.INVALID_ARGUMENT
    assert says in refusal.value.message


def test_names_and_no_values_are_part_of_the_work() -> None:
    work = with_secrets(command_work(["x"], {}, network=False), WantedSecrets(env={"A": "a"}, files=("b",)), None)
    assert (dict(work.secrets), work.secret_files) == ({"A": "a"}, ("b",))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read: No such file"),
        (b"", "too short"),
        (b"abc\n\n", "too short"),
        (b"x" * (MAX_BYTES + 1), "longer than"),
        (b"line\n" * 1001, "more than 1000 lines"),
        (b"with\0nul", "NUL byte"),
    ],
)
async def test_an_attempt_without_its_secret_fails_and_names_it(
    host: Host, tmp_path: Path, content: bytes | None, says: str
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    job = await one_job(host, SecretConfig(file=str(file), commands=True, **BY_PEER))
    assert (job.status, job.reason) == (JobStatus.FAILED, "secret_unavailable")
    assert "secret 'token' is not available" in job.message
    assert says in job.message


async def test_neither_a_directory_nor_a_missing_variable_is_a_secret(host: Host, tmp_path: Path) -> None:
    job = await one_job(host, SecretConfig(file=str(tmp_path), commands=True, **BY_PEER))
    assert "is no regular file" in job.message
    missing = SecretConfig(env="NOT_SET_ANYWHERE", commands=True, **BY_PEER)
    job = await one_job(host, missing, number=2)
    assert "started without the variable NOT_SET_ANYWHERE" in job.message


async def test_a_permission_that_was_taken_back_counts_for_the_next_attempt(host: Host, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("a-value")
    given, taken = SecretConfig(file=str(file), commands=True, **BY_PEER), SecretConfig(file=str(file))
    job = await one_job(host, given, then=taken)
    assert (job.status, job.reason) == (JobStatus.FAILED, "secret_not_allowed")


async def one_job(
    host: Host,
    secret: SecretConfig,
    *,
    number: int = 1,
    then: SecretConfig | None = None,
) -> Job:
    """A command of the orchestrator that wants the secret, as it is at its end; ``then`` what it is after a restart."""
    key = job_key(workflow_job_id=number)
    await having(host, secret)
    job_id = await host.create(key=key, command=jobs_pb2.Command(argv=["x"]), secrets={"TOKEN": "token"})
    if then is not None:
        await having(host, then)
    await host.start(job_id, key=key)
    job = await host.until(job_id, JobStatus.FAILED)
    assert host.runner.specs == {}
    return job


async def having(host: Host, secret: SecretConfig) -> None:
    """Started anew with this secret, and taking commands."""
    host.secrets = {"token": secret}
    host.config = replace(host.config, allow_commands_from=(ORCHESTRATOR,))
    await host.restart()


async def test_each_attempt_asks_anew(host: Host, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first-value\r\n")
    await having(host, SecretConfig(file=str(file), commands=True, **BY_PEER))
    retry = jobs_pb2.RetryPolicy(attempts=2, backoff_seconds=1)
    job_id = await host.create(
        command=jobs_pb2.Command(argv=["x"]), secrets={"TOKEN": "token"}, secret_files=["token"], retry=retry
    )
    await host.start(job_id)
    control = await host.runner.started()
    assert dict(host.runner.specs[control].secrets.env) == {"TOKEN": b"first-value"}
    assert dict(host.runner.specs[control].secrets.files) == {"token": b"first-value\r\n"}
    file.write_text("second-value")
    await host.runner.finish(control, ended(3))
    await host.until(job_id, JobStatus.READY)
    host.pass_time(2)
    control = await host.runner.started(2)
    assert dict(host.runner.specs[control].secrets.env) == {"TOKEN": b"second-value"}


CONFIG = """
[secrets.token]
file = "/etc/token"
allowed_roles = ["builder"]
services = ["build"]
[secrets."a.b"]
env = "A_B"
"""


def test_the_configuration_names_secrets_and_shows_no_value(tmp_path: Path) -> None:
    (tmp_path / "peerd.toml").write_text(CONFIG)
    config = load_config(data_dir=tmp_path, environ={"A_B": "the-value"})
    assert config.secrets["token"] == SecretConfig(file="/etc/token", allowed_roles=("builder",), services=("build",))
    shown = {name: value for name, value, _ in show_config(config)}
    assert shown["secrets.token"] == "file /etc/token, for role builder: service build"
    assert shown["secrets.a.b"] == "variable A_B, for this peer"
    assert "the-value" not in str(shown)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[secrets.x]\nvalue = 'hunter22'", "unknown key 'value'"),
        ("[secrets.x]\nfiel = '/x'", "did you mean 'file'?"),
        ("[secrets.x]\nfile = '/x'\nenv = 'X'", "either 'file' or 'env'"),
        ("[secrets.x]\nservices = ['s']", "either 'file' or 'env'"),
        ("[secrets.x]\nfile = 'x'", "absolute"),
        ("[secrets.x]\nfile = 7", "not the kind of value"),
        ("[secrets.x]\nfile = '/x'\nservices = 's'", "not the kind of value"),
        ("[secrets.x]\nfile = '/x'\ncommands = 1", "not the kind of value"),
        ("[secrets.x]\nfile = '/x'\nallowed_roles = ['r']", "nothing of theirs may have it"),
        ("[secrets.'a b']\nfile = '/x'", "a name is"),
        ("secrets = 7", "must be [secrets.NAME] tables"),
        ("[secrets]\nx = 'hunter22'", "must be [secrets.NAME] tables"),
    ],
)
def test_a_configuration_that_makes_no_sense(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "peerd.toml").write_text(text)
    with pytest.raises(PeerdError) as refusal:
        load_config(data_dir=tmp_path, environ={})
    assert refusal.value.reason is Reason.INVALID_CONFIG
    assert says in refusal.value.message
    assert "hunter22" not in refusal.value.message


def test_the_daemons_environment_is_read_by_default() -> None:
    assert Vault({}, own_peer_id=EXECUTOR, roles_of=lambda _: frozenset())._environ is os.environ
