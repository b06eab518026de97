"""Policies on the wire and in the store: checked, with their defaults, and as plain values. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from peerd.errors import PeerdError, Reason, Violation
from peerd.nodes.allowing import parse_network
from peerd.nodes.messages import Special
from peerd.nodes.model import Policy
from peerd.nodes.targets import parse_target
from peerd.v1 import nodes_pb2
from peerd.workflows.quantities import parse_duration

MAX_ENTRIES = 1000
MAX_LEVEL = 3
_DEFAULT = Policy()
_IN_REQUESTS = ("allowed_networks", "blocked_hosts", "allowed_protocols")
_MAX_CHARACTERS = 64 * 1024
"""A prober gets them as one argument, of which Linux takes 128 KiB."""
_MOST = {"daily_budget": 1_000_000, "max_concurrent": 1000}


def complete_policy(given: nodes_pb2.OrganizationPolicy, known: Iterable[str]) -> nodes_pb2.OrganizationPolicy:
    """The policy with every default written out. Raises INVALID_ARGUMENT with everything that is wrong."""
    policy = nodes_pb2.OrganizationPolicy()
    policy.CopyFrom(given)
    policy.max_level = given.max_level or _DEFAULT.max_level
    policy.cool_down = given.cool_down or "24h"
    policy.max_concurrent = given.max_concurrent or _DEFAULT.max_concurrent
    if not given.HasField("daily_budget"):
        policy.daily_budget = _DEFAULT.daily_budget
    violations = [
        Violation(field=f"policy.{field}", message=message) for field, message in _problems(policy, frozenset(known))
    ]
    if violations:
        listed = "; ".join(f"{entry.field}: {entry.message}" for entry in violations)
        raise PeerdError(Reason.INVALID_ARGUMENT, f"the policy is not right: {listed}", violations=violations)
    for field in ("allowed_networks", "blocked_hosts", "allowed_protocols", "allow_special", "members"):
        kept = list(dict.fromkeys(_normal(field, entry) for entry in getattr(policy, field)))
        policy.ClearField(field)
        getattr(policy, field).extend(kept)
    return policy


def to_policy(proto: nodes_pb2.OrganizationPolicy) -> Policy:
    """As a plain value; only of one that was completed."""
    return Policy(
        allowed_networks=tuple(proto.allowed_networks),
        blocked_hosts=tuple(proto.blocked_hosts),
        allowed_protocols=frozenset(proto.allowed_protocols),
        max_level=proto.max_level,
        cool_down_ms=parse_duration(proto.cool_down),
        daily_budget=proto.daily_budget,
        max_concurrent=proto.max_concurrent,
        allow_special=frozenset(proto.allow_special),
        permission_by=proto.permission.by,
        permission_reference=proto.permission.reference,
    )


def network_problem(text: str) -> str:
    """What is wrong with a network; empty if nothing."""
    return (
        "" if parse_network(text) is not None else f"{text[:80]!r} is no network, such as 10.0.0.0/8 or 2001:db8::/32"
    )


def blocked_problem(text: str) -> str:
    """What is wrong with an entry of blocked hosts; empty if nothing."""
    if parse_network(text) is not None:
        return ""
    try:
        parsed = parse_target(text.removeprefix("."))
    except PeerdError as error:
        return error.message
    return "" if parsed.port is None else f"{text[:80]!r} has a port; hosts are blocked with all their ports"


def special_problem(text: str) -> str:
    """What is wrong with the name of a kind of special addresses; empty if nothing."""
    return "" if text in list(Special) else f"{text[:80]!r} is none of {', '.join(Special)}"


def _problems(policy: nodes_pb2.OrganizationPolicy, known: frozenset[str]) -> Iterator[tuple[str, str]]:
    checks = {
        "allowed_networks": network_problem,
        "blocked_hosts": blocked_problem,
        "allow_special": special_problem,
        "allowed_protocols": lambda name: "" if name.lower() in known else f"there is no protocol {name[:80]!r}",
        "members": _member_problem,
    }
    for field, check in checks.items():
        entries = getattr(policy, field)
        if len(entries) > MAX_ENTRIES:
            yield field, f"{len(entries)} entries are more than {MAX_ENTRIES}"
            continue
        for index, entry in enumerate(entries):
            if problem := check(entry):
                yield f"{field}[{index}]", problem
    characters = sum(len(entry) + 3 for field in _IN_REQUESTS for entry in getattr(policy, field))
    if characters > _MAX_CHARACTERS:
        yield "blocked_hosts", f"the policy's lists have {characters} characters; at most {_MAX_CHARACTERS} may be sent"
    if policy.max_level > MAX_LEVEL:
        yield "max_level", f"{policy.max_level} is not 1, 2 or 3"
    try:
        parse_duration(policy.cool_down)
    except ValueError as error:
        yield "cool_down", str(error)
    for field, most in _MOST.items():
        if getattr(policy, field) > most:
            yield field, f"{getattr(policy, field)} is more than {most}"
    if policy.HasField("permission") and not (policy.permission.by.strip() and policy.permission.reference.strip()):
        yield "permission", "needs who gave it (by) and where it is written (reference)"
    if len(policy.permission.by) + len(policy.permission.reference) > MAX_ENTRIES:
        yield "permission", f"is longer than {MAX_ENTRIES} characters"


def _member_problem(text: str) -> str:
    return "" if text and len(text) <= 63 and text.isprintable() else f"{text[:80]!r} is neither a peer id nor a role"


def _normal(field: str, entry: str) -> str:
    match field:
        case "allowed_networks":
            return str(parse_network(entry))
        case "blocked_hosts":
            network = parse_network(entry)
            dot = "." if entry.startswith(".") else ""
            return str(network) if network is not None else dot + parse_target(entry.removeprefix(".")).host
        case "allowed_protocols":
            return entry.lower()
        case _:
            return entry
