"""From a service and a job's wishes to what will run: argv, environment, paths. Pure.

``${name}`` is replaced inside the element of argv it stands in; a value never becomes a second element, is never read
by a shell, and is not searched for further placeholders. A job sets only the variables its service lists.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from peerd.catalog.declaration import PLACEHOLDER, is_variable_name
from peerd.catalog.model import InterfaceKind, MountFunction, Service, ServiceInterface, ServiceKind
from peerd.errors import PeerdError, Reason, Violation
from peerd.jobs.model import Edge, Mount, Work
from peerd.patterns import matches, pattern_flaw

MAX_VALUE_LENGTH = 32_768
"""Of a parameter or variable: the kernel takes 128 KiB for one argument, and no value worth passing needs it."""
MAX_VALUES = 1000
MAX_ARGV = 1000


def service_work(service: Service, params: Mapping[str, str], env: Mapping[str, str]) -> Work:
    """What a job of this service runs. Raises INVALID_ARGUMENT naming every wrong param and variable."""
    declared = service.declaration
    violations = [*_sizes("params", params), *_sizes("env", env)]
    values = _values(service, params, violations)
    violations += [
        Violation(field=f"env[{name!r}]", message=f"service {service.name!r} lets no job set it")
        for name in env
        if name not in declared.job_env
    ]
    _raise(service.name, violations)
    if declared.kind is ServiceKind.DATA:
        return Work(service=service.name, path=declared.path)
    container = declared.container
    return Work(
        service=service.name,
        argv=_filled(declared.argv, values),
        env={**declared.env, **env},
        read_only_paths=declared.read_only_paths,
        writable_paths=declared.writable_paths,
        network=declared.network,
        container=replace(container, entrypoint=_filled(container.entrypoint, values)) if container else None,
        mounts=tuple(_mounts(declared.interfaces)) if container else (),
        hand_in=declared.hand_in,
    )


def _filled(elements: Sequence[str], values: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(PLACEHOLDER.sub(lambda match: values[match[1]], element) for element in elements)


def _mounts(interfaces: Sequence[ServiceInterface]) -> Iterator[Mount]:
    for interface in interfaces:
        if interface.kind is InterfaceKind.MOUNT:
            yield Mount(interface.path, interface.mount_function is not MountFunction.INPUT)


def command_work(argv: Sequence[str], env: Mapping[str, str], *, network: bool) -> Work:
    """What an ad-hoc command runs. Raises INVALID_ARGUMENT."""
    violations = list(_sizes("env", env))
    if not argv or not argv[0] or len(argv) > MAX_ARGV:
        violations.append(Violation(field="command.argv", message=f"1 to {MAX_ARGV} elements, the first not empty"))
    if any("\0" in element or len(element) > MAX_VALUE_LENGTH for element in argv):
        violations.append(Violation(field="command.argv", message="an element is too long or contains a NUL"))
    violations += [
        Violation(field=f"env[{name!r}]", message="not a variable that a job may set")
        for name in env
        if not is_variable_name(name)
    ]
    _raise("command", violations)
    return Work(argv=tuple(argv), env=dict(env), network=network)


def stdin_paths(edges: Sequence[Edge], files: Mapping[int, Sequence[str]]) -> tuple[str, ...]:
    """The files that make up stdin: in the order of the edges, within an edge sorted by path."""
    incoming = [edge for edge in edges if edge.incoming and edge.kind is InterfaceKind.STDIN]
    incoming.sort(key=lambda edge: (edge.position, edge.edge_id))
    return tuple(path for edge in incoming for path in sorted(files.get(edge.edge_id, ())))


def _values(service: Service, params: Mapping[str, str], violations: list[Violation]) -> dict[str, str]:
    known = {param.name for param in service.declaration.params}
    violations += [
        Violation(field=f"params[{name!r}]", message=f"service {service.name!r} has no such parameter")
        for name in params
        if name not in known
    ]
    values: dict[str, str] = {}
    for param in service.declaration.params:
        value = params.get(param.name, param.default)
        if value is None:
            violations.append(Violation(field=f"params[{param.name!r}]", message="is required"))
        elif flaw := pattern_flaw(param.pattern):
            # Declared under an earlier version of peerd, which took more.
            message = f"its owner must mend the pattern: {flaw}"
            violations.append(Violation(field=f"params[{param.name!r}]", message=message))
        elif param.pattern and len(value) <= MAX_VALUE_LENGTH and not matches(param.pattern, value):
            message = f"{value[:80]!r} does not match {param.pattern!r}"
            violations.append(Violation(field=f"params[{param.name!r}]", message=message))
        else:
            values[param.name] = value
    return values


def _sizes(field: str, values: Mapping[str, str]) -> list[Violation]:
    if len(values) > MAX_VALUES:
        return [Violation(field=field, message=f"more than {MAX_VALUES} entries")]
    return [
        Violation(field=f"{field}[{name!r}]", message=f"longer than {MAX_VALUE_LENGTH} characters, or contains a NUL")
        for name, value in values.items()
        if len(value) > MAX_VALUE_LENGTH or "\0" in value
    ]


def _raise(what: str, violations: Sequence[Violation]) -> None:
    if violations:
        listed = "; ".join(f"{entry.field}: {entry.message}" for entry in violations[:10])
        raise PeerdError(Reason.INVALID_ARGUMENT, f"{what} cannot run like that: {listed}", violations=violations)
