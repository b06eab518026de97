"""Secrets of this machine and the jobs that may have them.

A job names a secret; the value is found out here, at the start of each attempt, and handed to the runner: it is in no
store, log, event, report or error. Masking keeps it out of logs by mistake, not out of the hands of a program that was
given it; what protects a secret is who may use it, which is asked when the job is created and again at each attempt.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from peerd.catalog.declaration import is_variable_name
from peerd.catalog.model import Service, ServiceKind
from peerd.errors import PeerdError, Reason, Violation
from peerd.identity.peer_id import PeerId
from peerd.jobs.admission import Orderer
from peerd.jobs.model import Job, Work
from peerd.jobs.runner import Secrets
from peerd.jobs.runner.masking import SHORTEST_LINE
from peerd.secret_config import SecretConfig
from peerd.v1 import registry_pb2

SECRET_REASONS = frozenset({Reason.SECRET_NOT_FOUND, Reason.SECRET_NOT_ALLOWED, Reason.SECRET_UNAVAILABLE})

MAX_SECRETS = 100
MAX_BYTES = 64 * 1024
"""Half of what the kernel takes for one variable."""
MAX_LINES = 1000
"""Each is looked for in all that the job writes."""


@dataclass(frozen=True, kw_only=True)
class WantedSecrets:
    """What a job asks for, by name."""

    env: Mapping[str, str] = field(default_factory=dict)
    """Variable -> name of a secret."""
    files: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """Each once."""
        return sorted({*self.env.values(), *self.files})


class Vault:
    """Knows where secrets are, and who may use them."""

    def __init__(
        self,
        secrets: Mapping[str, SecretConfig],
        *,
        own_peer_id: PeerId,
        roles_of: Callable[[PeerId], frozenset[str]],
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._secrets = secrets
        self._own_peer_id = own_peer_id
        self._roles_of = roles_of
        self._environ = environ

    def admit(self, orderer: Orderer, service: Service | None, wanted: WantedSecrets, *, isolation: int) -> None:
        """Return if the job may have what it asks for; ``service`` None is an ad-hoc command.

        Raises SECRET_NOT_FOUND, SECRET_NOT_ALLOWED, ISOLATION_INSUFFICIENT, SERVICE_KIND_UNSUPPORTED.
        """
        if not wanted.names:
            return
        if service is not None and service.declaration.kind is not ServiceKind.PROCESS:
            kind = service.declaration.kind.value
            raise PeerdError(
                Reason.SERVICE_KIND_UNSUPPORTED,
                f"service {service.name!r} is of kind {kind}, and only processes are given secrets",
            )
        if wanted.files and isolation <= registry_pb2.ISOLATION_LEVEL_NONE:
            raise PeerdError(
                Reason.ISOLATION_INSUFFICIENT,
                "secrets appear as files in a sandbox only, and this machine has none (isolation: none)",
                next_action="take the secret as a variable, or install bubblewrap on that machine",
            )
        self._check(wanted.names, orderer, service.name if service is not None else "")

    def open(self, job: Job) -> Secrets:
        """The values for an attempt of a job. Blocking. Raises one of :data:`SECRET_REASONS`."""
        wanted = WantedSecrets(env=job.work.secrets, files=job.work.secret_files)
        if not wanted.names:
            return Secrets()
        orchestrator = job.key.orchestrator
        self._check(wanted.names, Orderer(peer_id=orchestrator, roles=self._roles_of(orchestrator)), job.work.service)
        values = {name: read_secret(name, self._secrets[name], self._environ) for name in wanted.names}
        return Secrets(
            env={variable: _as_variable(name, values[name]) for variable, name in wanted.env.items()},
            files={name: values[name] for name in wanted.files},
        )

    def _check(self, names: Iterable[str], orderer: Orderer, service: str) -> None:
        for name in names:
            secret = self._secrets.get(name)
            if secret is None:
                raise PeerdError(Reason.SECRET_NOT_FOUND, f"this machine has no secret {name[:80]!r}")
            if not self._allows(secret, orderer, service):
                what = f"service {service!r}" if service else "an ad-hoc command"
                raise PeerdError(
                    Reason.SECRET_NOT_ALLOWED,
                    f"secret {name!r} is not for {what} of {orderer.peer_id}",
                    next_action=f"have the owner of that machine allow it under [secrets.{name}]; see docs/secrets.md",
                )

    def _allows(self, secret: SecretConfig, orderer: Orderer, service: str) -> bool:
        named = service in secret.services if service else secret.commands
        if orderer.peer_id == self._own_peer_id:
            return named or not (secret.services or secret.commands)
        return named and (orderer.peer_id in secret.allowed_peers or not orderer.roles.isdisjoint(secret.allowed_roles))


def read_secret(name: str, secret: SecretConfig, environ: Mapping[str, str]) -> bytes:
    """The value. Blocking. Raises SECRET_UNAVAILABLE."""
    value = _file(name, secret.file) if secret.file else _variable(name, secret.env, environ)
    if len(value) > MAX_BYTES:
        raise _unavailable(name, f"it is longer than {MAX_BYTES} bytes")
    if len(value.strip(b"\r\n")) < SHORTEST_LINE:
        raise _unavailable(name, f"it is shorter than {SHORTEST_LINE} bytes, too short to be masked in a log")
    if len(value.splitlines()) > MAX_LINES:
        raise _unavailable(name, f"it has more than {MAX_LINES} lines")
    return value


def with_secrets(work: Work, wanted: WantedSecrets, service: Service | None) -> Work:
    """The work with the names of its secrets. Raises INVALID_ARGUMENT naming every one that is wrong."""
    violations = []
    if len(wanted.env) + len(wanted.files) > MAX_SECRETS:
        violations.append(Violation(field="secrets", message=f"more than {MAX_SECRETS}"))
    for variable in wanted.env:
        if not is_variable_name(variable) or variable in work.env:
            message = "not a variable that a job may set, or set already"
            violations.append(Violation(field=f"secrets[{variable[:80]!r}]", message=message))
        elif service is not None and variable not in service.declaration.job_env:
            message = f"service {service.name!r} lets no job set it"
            violations.append(Violation(field=f"secrets[{variable!r}]", message=message))
    if violations:
        listed = "; ".join(f"{entry.field}: {entry.message}" for entry in violations[:10])
        raise PeerdError(Reason.INVALID_ARGUMENT, f"secrets cannot be given like that: {listed}", violations=violations)
    return replace(work, secrets=dict(wanted.env), secret_files=wanted.files)


def _file(name: str, path: str) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _unavailable(name, f"{path} is no regular file")
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(MAX_BYTES + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _unavailable(name, f"{path} cannot be read: {error.strerror}") from None


def _variable(name: str, variable: str, environ: Mapping[str, str]) -> bytes:
    try:
        return os.fsencode(environ[variable])
    except KeyError:
        raise _unavailable(name, f"peerd there was started without the variable {variable}") from None


def _as_variable(name: str, value: bytes) -> bytes:
    """Without the line end that editors leave. Raises SECRET_UNAVAILABLE for what no variable can hold."""
    if b"\0" in value:
        raise _unavailable(name, "it holds a NUL byte, which no variable can; take it as a file")
    return value.removesuffix(b"\n").removesuffix(b"\r")


def _unavailable(name: str, why: str) -> PeerdError:
    return PeerdError(Reason.SECRET_UNAVAILABLE, f"secret {name!r} is not available: {why}")
