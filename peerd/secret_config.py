"""``[secrets.NAME]`` of the configuration: where this machine finds its secrets, and who may use them.

    [secrets.registry-password]
    file = "/etc/peerd/registry-password"   # or: env = "REGISTRY_PASSWORD", of the daemon
    services = ["push-image"]
    allowed_roles = ["builder"]

Never what they are: a value in the configuration file is an unknown key and refused.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from peerd.errors import PeerdError, Reason

SECRET_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")


@dataclass(frozen=True, kw_only=True)
class SecretConfig:
    """One secret of this machine."""

    file: str = ""
    """Absolute path; read at the start of each attempt."""
    env: str = ""
    """Variable of the daemon."""
    allowed_peers: tuple[str, ...] = ()
    """Ids of orchestrators, besides this machine, whose jobs may have it."""
    allowed_roles: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    """Names of the services whose jobs may have it."""
    commands: bool = False
    """Whether ad-hoc commands of the allowed orchestrators may have it, which is to give it to them."""

    @property
    def shown(self) -> str:
        """For people: where it is, and for whom."""
        whom = [f"role {role}" for role in self.allowed_roles] + list(self.allowed_peers) or ["this peer"]
        what = [f"service {name}" for name in self.services] + ["commands"] * self.commands
        source = f"file {self.file}" if self.file else f"variable {self.env}"
        return f"{source}, for {', '.join(whom)}" + (f": {', '.join(what)}" if what else "")


def read_secrets(content: object, origin: str) -> dict[str, SecretConfig]:
    """The tables by name. Raises INVALID_CONFIG."""
    if not isinstance(content, dict) or not all(isinstance(table, dict) for table in content.values()):
        raise PeerdError(Reason.INVALID_CONFIG, f"{origin}: 'secrets' must be [secrets.NAME] tables")
    return {name: _read(name, table, origin) for name, table in content.items()}


def _read(name: str, table: Mapping[str, object], origin: str) -> SecretConfig:
    here = f"{origin}: secrets.{name}"
    if SECRET_NAME.fullmatch(name) is None:
        raise PeerdError(
            Reason.INVALID_CONFIG, f"{here}: a name is letters, digits, '-', '_' and '.', at most 63 characters"
        )
    known = {entry.name: entry.default for entry in fields(SecretConfig)}
    for key, value in table.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
            raise PeerdError(Reason.INVALID_CONFIG, f"{here}: unknown key {key!r}; {hint}")
        if not _fits(value, known[key]):
            raise PeerdError(Reason.INVALID_CONFIG, f"{here}.{key}: not the kind of value that it takes")
    secret = SecretConfig(**{key: tuple(value) if isinstance(value, list) else value for key, value in table.items()})  # type: ignore[arg-type]  # checked above
    if bool(secret.file) == bool(secret.env):
        raise PeerdError(Reason.INVALID_CONFIG, f"{here}: give it either 'file' or 'env'")
    if secret.file and not Path(secret.file).is_absolute():
        raise PeerdError(Reason.INVALID_CONFIG, f"{here}.file: must be an absolute path")
    if (secret.allowed_peers or secret.allowed_roles) and not (secret.services or secret.commands):
        raise PeerdError(
            Reason.INVALID_CONFIG,
            f"{here}: it is allowed to others, but nothing of theirs may have it",
            next_action="name the services whose jobs may have it: services = [...]; docs/secrets.md says more",
        )
    return secret


def _fits(value: object, default: object) -> bool:
    if isinstance(default, tuple):
        return isinstance(value, list) and all(isinstance(entry, str) for entry in value)
    return type(value) is type(default)
