"""The service by which a peer probes for others: declared by the daemon when its owner enables it. Pure.

The owner's guard stands in the service's own argv, where no order can change it; see peerd.nodes.messages.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import peerd
from peerd.config import NodesConfig
from peerd.errors import PeerdError, Reason
from peerd.nodes.definition import SERVICE
from peerd.nodes.message_json import to_json
from peerd.nodes.messages import Owner, Special
from peerd.nodes.policy import blocked_problem, network_problem, special_problem
from peerd.nodes.protocols import BUILT_IN, load_protocols

_MOST_NAMED = 10


def prober_service(config: NodesConfig) -> Mapping[str, object] | None:
    """A declaration as in the configuration; None when this peer does not probe. Raises INVALID_CONFIG."""
    if not config.prober:
        return None
    _check("allowed_networks", config.allowed_networks, network_problem)
    _check("blocked_hosts", config.blocked_hosts, blocked_problem)
    _check("allow_special", config.allow_special, special_problem)
    if config.connects_per_second <= 0 or config.max_running < 1:
        raise _invalid("connects_per_second and max_running must be above 0")
    owner = Owner(
        allowed_networks=config.allowed_networks,
        blocked_hosts=config.blocked_hosts,
        allow_special=tuple(Special(word) for word in config.allow_special),
        connects_per_second=config.connects_per_second,
        protocols_directory=config.protocols_dir,
    )
    package = Path(peerd.__file__).parent
    return {
        "name": SERVICE,
        "kind": "SERVICE_KIND_PROCESS",
        "description": _description(config.protocols_dir),
        # The dollar sign would begin a parameter.
        "argv": [
            *(sys.executable, "-m", "peerd.nodes.prober", "${request}", "output"),
            *("--owner", to_json(owner).replace("$", "\\u0024")),
        ],
        "params": [{"name": "request", "description": "a ProbeRequest as JSON"}],
        "interfaces": [{"kind": f"INTERFACE_KIND_{kind}"} for kind in ("OUTPUT", "STDOUT", "STDERR")],
        "env": {"PYTHONPATH": str(package.parent)},
        "read_only_paths": [str(package), *([config.protocols_dir] if config.protocols_dir else [])],
        "network": True,
        "allowed_roles": list(config.allowed_roles),
        "max_concurrent": config.max_running,
    }


def _description(protocols_dir: str) -> str:
    """With the protocols that were added here: others see who knows which. Raises INVALID_CONFIG."""
    text = "discovers and scans nodes of organizations"
    known = load_protocols(Path(protocols_dir) if protocols_dir else None)
    added = [protocol.name for protocol in known if not protocol.source.startswith(BUILT_IN)]
    if not added:
        return text
    named = ", ".join(added[:_MOST_NAMED])
    more = f" and {len(added) - _MOST_NAMED} more" if len(added) > _MOST_NAMED else ""
    return f"{text}; knows besides the built-in protocols: {named}{more}"


def _check(field: str, entries: Iterable[str], problem_of: Callable[[str], str]) -> None:
    for entry in entries:
        if problem := problem_of(entry):
            raise _invalid(f"{field}: {problem}")


def _invalid(message: str) -> PeerdError:
    return PeerdError(Reason.INVALID_CONFIG, f"[nodes] {message}")
