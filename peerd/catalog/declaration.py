"""From what an owner wrote to a checked :class:`~peerd.catalog.model.Declaration`, and from our enums to the wire's.

Every mistake is named with its field, all of them at once. Refused beyond mere mistakes: host paths that reach into the
data directory (a job could read the key or write the store), and variables by which a job could make the program load
foreign code.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from google.protobuf import json_format

from peerd.catalog.images import host_path_problem, image_problems, mount_problem, to_image
from peerd.catalog.model import (
    RECEIVING,
    SCAN_FORMATS,
    SENDING,
    Declaration,
    HandIn,
    InterfaceKind,
    MountFunction,
    ServiceInterface,
    ServiceKind,
    ServiceParam,
)
from peerd.errors import PeerdError, Reason, Violation
from peerd.identity.peer_id import parse_peer_id
from peerd.patterns import matches, pattern_flaw
from peerd.sizes import parse_size
from peerd.v1 import catalog_pb2

KINDS: Mapping[int, ServiceKind] = MappingProxyType(
    {catalog_pb2.ServiceKind.Value(f"SERVICE_KIND_{kind.name}"): kind for kind in ServiceKind}
)
INTERFACE_KINDS: Mapping[int, InterfaceKind] = MappingProxyType(
    {catalog_pb2.InterfaceKind.Value(f"INTERFACE_KIND_{kind.name}"): kind for kind in InterfaceKind}
)
MOUNT_FUNCTIONS: Mapping[int, MountFunction] = MappingProxyType(
    {catalog_pb2.MountFunction.Value(f"MOUNT_FUNCTION_{function.name}"): function for function in MountFunction}
)

PLACEHOLDER = re.compile(r"\$\{([^{}]*)\}")
"""``${name}`` inside an element of argv."""

MAX_ARGV = 1000
MAX_CPUS = 4096
MAX_PATTERNS = 100
MAX_PATTERN = 1024
MAX_VANTAGE = 128
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_PARAM = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,126}")
_COMPONENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}")
_MAX_COMPONENTS = 32


def is_service_name(text: str) -> bool:
    """Letters, digits, '-', '_' and '.', at most 63; not all digits, which would read as an id."""
    return _NAME.fullmatch(text) is not None and not text.isdigit()


def is_variable_name(text: str) -> bool:
    """Whether a job may set this environment variable at all: no LD_*, which loads foreign code, nor our own."""
    return _VARIABLE.fullmatch(text) is not None and not text.startswith(("LD_", "PEERD_"))


def from_config(entry: Mapping[str, object]) -> catalog_pb2.ServiceDeclaration:
    """A ``[[services]]`` table, which is the JSON mapping of the message. Raises INVALID_CONFIG."""
    try:
        return json_format.ParseDict(dict(entry), catalog_pb2.ServiceDeclaration())
    except json_format.ParseError as error:
        name = entry.get("name", "?")
        raise PeerdError(Reason.INVALID_CONFIG, f"service {name!r} in the configuration: {error}") from error


def check_declaration(proto: catalog_pb2.ServiceDeclaration, *, data_dir: Path) -> Declaration:
    """The declaration, if nothing is wrong with it.

    Raises INVALID_ARGUMENT with all violations.
    """
    violations = _Violations()
    _check_common(proto, violations)
    _check_interfaces(proto, violations)
    _check_params(proto, violations)
    _check_host_paths(proto, violations, data_dir)
    _check_resources(proto, violations)
    if proto.HasField("hand_in"):
        _check_hand_in(proto, violations)
    if proto.kind == catalog_pb2.SERVICE_KIND_PROCESS:
        _check_process(proto, violations)
    elif proto.kind == catalog_pb2.SERVICE_KIND_DATA:
        _check_data(proto, violations, data_dir)
    elif proto.kind == catalog_pb2.SERVICE_KIND_CONTAINER:
        _check_container(proto, violations)
    if proto.HasField("container") and proto.kind != catalog_pb2.SERVICE_KIND_CONTAINER:
        violations.add("container", "only container services have it")
    if violations.found:
        listed = "; ".join(f"{entry.field}: {entry.message}" for entry in violations.found)
        raise PeerdError(
            Reason.INVALID_ARGUMENT, f"service {proto.name!r} is not right: {listed}", violations=violations.found
        )
    return to_declaration(proto)


def to_declaration(proto: catalog_pb2.ServiceDeclaration) -> Declaration:
    """The same as a plain value; only for protos that were checked once."""
    return Declaration(
        name=proto.name,
        kind=KINDS[proto.kind],
        description=proto.description,
        interfaces=tuple(_to_interface(entry) for entry in proto.interfaces),
        argv=tuple(proto.argv),
        path=proto.path,
        params=tuple(_to_param(entry) for entry in proto.params),
        env=dict(proto.env),
        job_env=frozenset(proto.job_env),
        read_only_paths=tuple(proto.read_only_paths),
        writable_paths=tuple(proto.writable_paths),
        network=proto.network,
        isolation=proto.isolation,
        allowed_peers=frozenset(proto.allowed_peers),
        allowed_roles=frozenset(proto.allowed_roles),
        container=to_image(proto.container) if proto.HasField("container") else None,
        cpus=proto.resources.cpus,
        memory_bytes=parse_size(proto.resources.memory) if proto.resources.memory else 0,
        disk_bytes=parse_size(proto.resources.disk) if proto.resources.disk else 0,
        gpus=proto.resources.gpus,
        max_concurrent=proto.max_concurrent,
        limits=proto.limits,
        hand_in=_to_hand_in(proto.hand_in) if proto.HasField("hand_in") else None,
    )


def _to_interface(proto: catalog_pb2.ServiceInterface) -> ServiceInterface:
    return ServiceInterface(
        kind=INTERFACE_KINDS[proto.kind],
        path=proto.path,
        mount_function=MOUNT_FUNCTIONS.get(proto.mount_function, MountFunction.BOTH),
        description=proto.description,
    )


def _to_param(proto: catalog_pb2.ServiceParam) -> ServiceParam:
    default = proto.default_value if proto.HasField("default_value") else None
    return ServiceParam(name=proto.name, description=proto.description, default=default, pattern=proto.pattern)


def _to_hand_in(proto: catalog_pb2.HandIn) -> HandIn:
    return HandIn(to=proto.to, format=proto.format, files=tuple(proto.files), vantage=proto.vantage)


class _Violations:
    def __init__(self) -> None:
        self.found: list[Violation] = []

    def add(self, field: str, message: str) -> None:
        self.found.append(Violation(field=field, message=message))


def _check_common(proto: catalog_pb2.ServiceDeclaration, violations: _Violations) -> None:
    if not is_service_name(proto.name):
        violations.add("name", "letters, digits, '-', '_' and '.', at most 63 characters, not only digits")
    if proto.kind not in KINDS:
        violations.add("kind", "SERVICE_KIND_PROCESS, SERVICE_KIND_CONTAINER or SERVICE_KIND_DATA")
    for name, value in proto.env.items():
        if not is_variable_name(name) or "\0" in value:
            violations.add(f"env[{name!r}]", "not a variable that can be set")
    for index, name in enumerate(proto.job_env):
        if not is_variable_name(name):
            violations.add(f"job_env[{index}]", f"{name!r} is not a variable that a job may set")
    for index, peer_id in enumerate(proto.allowed_peers):
        try:
            parse_peer_id(peer_id)
        except PeerdError as error:
            violations.add(f"allowed_peers[{index}]", error.message)
    for index, role in enumerate(proto.allowed_roles):
        if _NAME.fullmatch(role) is None:
            violations.add(f"allowed_roles[{index}]", f"{role!r} is not a role")


def _check_interfaces(proto: catalog_pb2.ServiceDeclaration, violations: _Violations) -> None:
    for index, interface in enumerate(proto.interfaces):
        field = f"interfaces[{index}]"
        kind = INTERFACE_KINDS.get(interface.kind)
        if kind is None:
            violations.add(f"{field}.kind", "say which kind of interface it is")
            continue
        if proto.kind == catalog_pb2.SERVICE_KIND_DATA and kind is not InterfaceKind.OUTPUT:
            violations.add(f"{field}.kind", "a data service gives output and nothing else")
        if kind is InterfaceKind.MOUNT:
            if interface.path and not _is_mount_path(interface.path):
                violations.add(f"{field}.path", "a relative path of plain names, without '.' or '..'")
        else:
            if interface.path:
                violations.add(f"{field}.path", "only mounts have a path")
            own = MountFunction.INPUT if kind in RECEIVING - SENDING else MountFunction.OUTPUT
            if MOUNT_FUNCTIONS.get(interface.mount_function, own) not in (own, MountFunction.BOTH):
                violations.add(f"{field}.mount_function", f"{kind.value} is {own.value} by nature")


def _is_mount_path(path: str) -> bool:
    parts = path.split("/")
    return len(parts) <= _MAX_COMPONENTS and all(_COMPONENT.fullmatch(part) for part in parts)


def _check_params(proto: catalog_pb2.ServiceDeclaration, violations: _Violations) -> None:
    seen: set[str] = set()
    for index, param in enumerate(proto.params):
        field = f"params[{index}]"
        if _PARAM.fullmatch(param.name) is None or param.name in seen:
            violations.add(f"{field}.name", "letters, digits, '-' and '_', and each name once")
        seen.add(param.name)
        if flaw := pattern_flaw(param.pattern):
            violations.add(f"{field}.pattern", flaw)
        elif param.pattern and param.HasField("default_value") and not matches(param.pattern, param.default_value):
            violations.add(f"{field}.default_value", "does not match the pattern")


def _check_host_paths(proto: catalog_pb2.ServiceDeclaration, violations: _Violations, data_dir: Path) -> None:
    for field, paths in (("read_only_paths", proto.read_only_paths), ("writable_paths", proto.writable_paths)):
        for index, path in enumerate(paths):
            if message := _path_problem(path, data_dir):
                violations.add(f"{field}[{index}]", message)


def _path_problem(text: str, data_dir: Path) -> str:
    path = Path(text)
    if not path.is_absolute() or "\0" in text or ".." in path.parts:
        return "an absolute path without '..'"
    # Both spellings: the path as written may be a link that leads into the data directory, or above it.
    # Path.resolve() fails where links lead in a circle, and the daemon would not start for that one service.
    for place in (path, Path(os.path.realpath(path))):
        for mine in (data_dir, data_dir.resolve()):
            if place == mine or place in mine.parents or mine in place.parents:
                return f"{text!r} and the data directory of peerd must not contain each other"
    return ""


def _check_resources(proto: catalog_pb2.ServiceDeclaration, violations: _Violations) -> None:
    if not math.isfinite(proto.resources.cpus) or not 0 <= proto.resources.cpus <= MAX_CPUS:
        violations.add("resources.cpus", f"between 0 and {MAX_CPUS}")
    for name in ("memory", "disk"):
        text = getattr(proto.resources, name)
        try:
            parse_size(text or "1")
        except ValueError as error:
            violations.add(f"resources.{name}", str(error))


def _check_hand_in(proto: catalog_pb2.ServiceDeclaration, violations: _Violations) -> None:
    wish = proto.hand_in
    if proto.kind == catalog_pb2.SERVICE_KIND_DATA:
        violations.add("hand_in", "only services that run something have it")
    try:
        parse_peer_id(wish.to)
    except PeerdError as error:
        violations.add("hand_in.to", error.message)
    if wish.format not in SCAN_FORMATS:
        violations.add("hand_in.format", f"{wish.format[:40]!r} is not known; there are {', '.join(SCAN_FORMATS[1:])}")
    if len(wish.files) > MAX_PATTERNS:
        violations.add("hand_in.files", f"more than {MAX_PATTERNS} patterns")
    for index, pattern in enumerate(wish.files[:MAX_PATTERNS]):
        parts = pattern.split("/")
        if not pattern.isprintable() or len(pattern) > MAX_PATTERN or set(parts) & {"", ".", ".."}:
            violations.add(f"hand_in.files[{index}]", "a relative path such as '*.xml', without '..'")
        elif any("**" in part and part != "**" for part in parts):
            violations.add(f"hand_in.files[{index}]", "** stands alone between slashes")
    if len(wish.vantage) > MAX_VANTAGE or not wish.vantage.isprintable():
        violations.add("hand_in.vantage", f"at most {MAX_VANTAGE} characters and no control ones")
    gives = [INTERFACE_KINDS.get(interface.kind) for interface in proto.interfaces]
    if gives and InterfaceKind.OUTPUT not in gives:
        violations.add("hand_in", "a service whose jobs give no output leaves no scan")


def _check_process(proto: catalog_pb2.ServiceDeclaration, violations: _Violations) -> None:
    if proto.path:
        violations.add("path", "only data services have one")
    if not proto.argv or not Path(proto.argv[0]).is_absolute() or PLACEHOLDER.search(proto.argv[0]):
        violations.add("argv[0]", "the absolute path of a program, without parameters in it")
    if len(proto.argv) > MAX_ARGV:
        violations.add("argv", f"more than {MAX_ARGV} elements")
    _check_elements("argv", proto.argv, proto, violations)


def _check_elements(
    field: str, elements: Iterable[str], proto: catalog_pb2.ServiceDeclaration, violations: _Violations
) -> None:
    known = {param.name for param in proto.params}
    for index, element in enumerate(elements):
        if "\0" in element:
            violations.add(f"{field}[{index}]", "contains a NUL")
        for name in PLACEHOLDER.findall(element):
            if name not in known:
                violations.add(f"{field}[{index}]", f"${{{name}}} is not one of its params")


def _check_container(proto: catalog_pb2.ServiceDeclaration, violations: _Violations) -> None:
    if proto.path:
        violations.add("path", "only data services have one")
    if len(proto.argv) + len(proto.container.entrypoint) > MAX_ARGV:
        violations.add("argv", f"more than {MAX_ARGV} elements")
    _check_elements("argv", proto.argv, proto, violations)
    _check_elements("container.entrypoint", proto.container.entrypoint, proto, violations)
    for field, message in image_problems(proto.container):
        violations.add(f"container.{field}", message)
    for index, interface in enumerate(proto.interfaces):
        if INTERFACE_KINDS.get(interface.kind) is InterfaceKind.MOUNT and (problem := mount_problem(interface.path)):
            violations.add(f"interfaces[{index}].path", problem)
    for name, paths in (("read_only_paths", proto.read_only_paths), ("writable_paths", proto.writable_paths)):
        for index, path in enumerate(paths):
            if problem := host_path_problem(path):
                violations.add(f"{name}[{index}]", problem)


def _check_data(proto: catalog_pb2.ServiceDeclaration, violations: _Violations, data_dir: Path) -> None:
    for field in ("argv", "params", "env", "job_env", "read_only_paths", "writable_paths"):
        if getattr(proto, field):
            violations.add(field, "only services that run something have it")
    for field in ("resources", "max_concurrent", "limits"):
        if getattr(proto, field) and (field != "resources" or proto.HasField("resources")):
            violations.add(field, "only process services have it: offering data takes no place to run")
    if problem := _path_problem(proto.path, data_dir):
        violations.add("path", problem)
