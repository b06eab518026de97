"""Where each value of the configuration comes from.

Sources, later ones win: the defaults of :mod:`peerd.config`, ``<data dir>/peerd.toml``, environment variables
``PEERD_<SECTION>_<FIELD>``, command-line flags. Unknown keys are errors that name the nearest known one, so that a
typing mistake never silently means "default".
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path

from peerd.config import (
    CONFIG_FILE,
    AuditConfig,
    Config,
    ContainersConfig,
    DevicesConfig,
    HttpConfig,
    InventoryConfig,
    JobsConfig,
    LimitsConfig,
    LogConfig,
    MeshConfig,
    NodesConfig,
    PeerConfig,
    RetentionConfig,
    ScansConfig,
    StoreConfig,
    TransfersConfig,
    WorkflowsConfig,
)
from peerd.errors import PeerdError, Reason
from peerd.secret_config import SecretConfig, read_secrets

_SECTIONS: dict[str, type] = {
    "peer": PeerConfig,
    "jobs": JobsConfig,
    "containers": ContainersConfig,
    "transfers": TransfersConfig,
    "workflows": WorkflowsConfig,
    "mesh": MeshConfig,
    "store": StoreConfig,
    "http": HttpConfig,
    "limits": LimitsConfig,
    "retention": RetentionConfig,
    "scans": ScansConfig,
    "inventory": InventoryConfig,
    "audit": AuditConfig,
    "nodes": NodesConfig,
    "devices": DevicesConfig,
    "log": LogConfig,
}


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """``PEERD_DATA_DIR``, else systemd's state directory, else /var/lib/peerd for root, else the XDG state home."""
    if explicit := environ.get("PEERD_DATA_DIR"):
        return Path(explicit)
    if state := environ.get("STATE_DIRECTORY"):
        return Path(state.split(":")[0])
    if os.geteuid() == 0:
        return Path("/var/lib/peerd")
    return Path(environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "peerd"


def load_config(
    *,
    data_dir: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
) -> Config:
    """Merge all sources. ``flags`` are ``section.field`` -> text. Raises INVALID_CONFIG naming file and key."""
    environ = os.environ if environ is None else environ
    folder = (data_dir or default_data_dir(environ)).absolute()
    file = folder / CONFIG_FILE
    values: dict[str, dict[str, object]] = {section: {} for section in _SECTIONS}
    origins: dict[str, str] = {}
    services: tuple[Mapping[str, object], ...] = ()
    secrets: Mapping[str, SecretConfig] = {}
    socket_path = folder / "run" / "peerd.sock"

    def put(section: str, key: str, value: object, origin: str) -> None:
        values[section][key] = _convert(_SECTIONS[section], section, key, value, origin)
        origins[f"{section}.{key}"] = origin

    for section, content in _read_toml(file).items():
        if section == "services":
            services = _services(content, file)
        elif section == "secrets":
            secrets = read_secrets(content, str(file))
        elif section == "socket" and isinstance(content, str):
            socket_path, origins["socket"] = Path(content), str(file)
        elif section in _SECTIONS and isinstance(content, dict):
            for key, value in content.items():
                put(section, key, value, str(file))
        else:
            raise _unknown(str(file), section, [*_SECTIONS, "secrets", "services", "socket"])
    for name, text in environ.items():
        match = re.fullmatch(rf"PEERD_({'|'.join(s.upper() for s in _SECTIONS)})_([A-Z_]+)", name)
        if match:
            put(match[1].lower(), match[2].lower(), text, f"environment variable {name}")
    if named := environ.get("PEERD_SOCKET"):
        socket_path, origins["socket"] = Path(named), "environment variable PEERD_SOCKET"
    for dotted, text in (flags or {}).items():
        section, _, key = dotted.partition(".")
        put(section, key, text, "command line")
    sections = {section: cls(**values[section]) for section, cls in _SECTIONS.items()}
    return Config(
        data_dir=folder,
        socket=socket_path.absolute(),
        secrets=secrets,
        services=services,
        origins=origins,
        **sections,
    )


def show_config(config: Config) -> list[tuple[str, object, str]]:
    """(``section.field``, value, origin) of everything, for ``peerd config show``."""
    rows: list[tuple[str, object, str]] = [
        ("data_dir", str(config.data_dir), "--data-dir or default"),
        ("socket", str(config.socket), config.origins.get("socket", "default")),
    ]
    for section in _SECTIONS:
        content = getattr(config, section)
        for entry in dataclasses.fields(content):
            dotted = f"{section}.{entry.name}"
            rows.append((dotted, getattr(content, entry.name), config.origins.get(dotted, "default")))
    rows.extend(
        (f"secrets.{name}", secret.shown, str(config.data_dir / CONFIG_FILE)) for name, secret in config.secrets.items()
    )
    rows.extend(
        (f"services[{index}]", service.get("name", "?"), str(config.data_dir / CONFIG_FILE))
        for index, service in enumerate(config.services)
    )
    return rows


def _read_toml(file: Path) -> dict[str, object]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PeerdError(Reason.INVALID_CONFIG, f"{file} is not TOML: {error}") from error


def _services(content: object, file: Path) -> tuple[Mapping[str, object], ...]:
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise PeerdError(Reason.INVALID_CONFIG, f"{file}: 'services' must be [[services]] tables")
    return tuple(content)


def _unknown(where: str, key: str, known: list[str]) -> PeerdError:
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
    return PeerdError(Reason.INVALID_CONFIG, f"{where}: unknown key {key!r}; {hint}")


def _convert(cls: type, section: str, key: str, value: object, origin: str) -> object:
    """The value as the type of the field. Text (from environment and flags) is parsed, TOML must already fit."""
    hints = typing.get_type_hints(cls)
    if key not in hints:
        raise _unknown(origin, f"{section}.{key}", [f"{section}.{name}" for name in hints])
    wanted = hints[key]
    try:
        return _fit(wanted, value)
    except (TypeError, ValueError) as error:
        kind = "list of texts" if isinstance(wanted, types.GenericAlias) else wanted.__name__
        raise PeerdError(Reason.INVALID_CONFIG, f"{origin}: {section}.{key} must be a {kind}, not {value!r}") from error


_BOOLEANS = {"true": True, "false": False}


def _fit(wanted: object, value: object) -> object:
    if wanted == tuple[str, ...]:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            return tuple(value)
    elif wanted is int and not isinstance(value, bool) and isinstance(value, int | str):
        return int(value)
    elif wanted is float and not isinstance(value, bool) and isinstance(value, int | float | str):
        return float(value)
    elif wanted is str and isinstance(value, str):
        return value
    elif wanted is bool and (isinstance(value, bool) or str(value).lower() in _BOOLEANS):
        return value if isinstance(value, bool) else _BOOLEANS[str(value).lower()]
    raise TypeError
