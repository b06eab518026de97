"""Who gets a job, and why the others do not."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest

from peerd.catalog.model import InterfaceKind
from peerd.clock import Millis
from peerd.identity.peer_id import PeerId
from peerd.registry.expression import parse_expression
from peerd.registry.model import Maintenance, PeerStatus, PeerView
from peerd.registry.selection import Selector
from peerd.v1 import access_pb2, catalog_pb2, registry_pb2
from peerd.workflows.edges import edges_of
from peerd.workflows.needs import Candidate, Need, NeededInterface, need_of
from peerd.workflows.placement import Decision, place

from .reading import valid

EXECUTE = frozenset({int(access_pb2.GRANT_EXECUTE)})


def peer(letter: str, **more: Any) -> PeerView:
    facts: dict[str, Any] = {
        "peer_id": PeerId(letter * 52),
        "name": f"peer-{letter}",
        "status": PeerStatus.ONLINE,
        "since": Millis(0),
        "why": "",
        "roles": frozenset({"worker"}),
        "grants": EXECUTE,
        "labels": frozenset(),
        "addresses": (),
        "isolation": int(registry_pb2.ISOLATION_LEVEL_BUBBLEWRAP),
        "is_self": False,
        "last_seen": Millis(0),
    }
    hardware = {key: more.pop(key) for key in ("cpu_cores", "memory_bytes") if key in more}
    sample = {key: more.pop(key) for key in ("running_jobs", "queued_jobs") if key in more}
    facts["hardware"] = registry_pb2.Hardware(**hardware)
    facts["sample"] = registry_pb2.Sample(**sample)
    if "region" in more:
        facts["location"] = registry_pb2.Location(region=more.pop("region"))
    if "group" in more:
        facts["groups"] = frozenset({more.pop("group")})
    return PeerView(**{**facts, **more})


def service(name: str = "count", **more: Any) -> catalog_pb2.Service:
    declared = {"kind": catalog_pb2.SERVICE_KIND_PROCESS, "argv": ["/bin/true"], **more}
    status = declared.pop("status", catalog_pb2.SERVICE_STATUS_ACTIVE)
    declaration = catalog_pb2.ServiceDeclaration(name=name, **declared)
    return catalog_pb2.Service(service_id=7, status=status, origin="config", declaration=declaration)


def candidate(letter: str, *, services: Any = "default", assigned: int = 0, **more: Any) -> Candidate:
    known = {key: more.pop(key) for key in ("allows_commands", "near", "turn", "refused") if key in more}
    offered = (service(),) if services == "default" else services
    return Candidate(peer=peer(letter, **more), services=offered, assigned=assigned, **known)


def need(**more: Any) -> Need:
    fields = ("peer", "role", "labels", "group", "region", "where")
    selected = Selector(**{key: more.pop(key) for key in fields if key in more})
    return Need(**{"node_id": "job", "service": "count", "selector": selected, **more})


def chosen(decision: Decision) -> str | None:
    return decision.peer_id[0] if decision.peer_id else None


STDIN = NeededInterface(kind=InterfaceKind.STDIN, receives=True)
OUTPUT = NeededInterface(kind=InterfaceKind.OUTPUT, receives=False)
APP_IN = NeededInterface(kind=InterfaceKind.MOUNT, path="app", receives=True)
APP_OUT = NeededInterface(kind=InterfaceKind.MOUNT, path="app", receives=False)
COMMAND = {"service": ""}
PODMAN_AWAY = registry_pb2.Hardware(
    runners=[registry_pb2.JobRunner(name="process"), registry_pb2.JobRunner(name="podman")]
)
PODMAN_THERE = registry_pb2.Hardware(runners=[registry_pb2.JobRunner(name="container", version="podman 4.3.1")])
CONTAINER = (service(kind=catalog_pb2.SERVICE_KIND_CONTAINER),)

FITS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("any peer", {}, {}),
    ("by name", {"peer": "peer-a"}, {}),
    ("by id", {"peer": "a" * 52}, {}),
    ("by role", {"role": "worker"}, {}),
    ("by labels", {"labels": frozenset({"gpu"})}, {"labels": frozenset({"gpu", "big"})}),
    ("by group", {"group": "berlin"}, {"group": "berlin"}),
    ("service by id", {"service": "7"}, {}),
    ("unknown catalog", {"service": "other"}, {"services": None}),
    ("a container", {}, {"services": CONTAINER, "hardware": PODMAN_THERE}),
    ("a container on an unknown machine", {}, {"services": CONTAINER}),
    ("everything its kind can", {"interfaces": (STDIN, OUTPUT, APP_IN, APP_OUT)}, {}),
    (
        "mount of both functions",
        {"interfaces": (APP_IN, APP_OUT)},
        {"services": (service(interfaces=[{"kind": catalog_pb2.INTERFACE_KIND_MOUNT, "path": "app"}]),)},
    ),
    (
        "data gives output",
        {"interfaces": (OUTPUT,)},
        {"services": (service(kind=catalog_pb2.SERVICE_KIND_DATA, argv=[], path="/data"),)},
    ),
    ("a command", COMMAND, {}),
    ("a command where isolation is unknown", COMMAND, {"isolation": 0}),
    ("declared service without isolation", {}, {"isolation": int(registry_pb2.ISOLATION_LEVEL_NONE)}),
    ("limits of which nothing is known", {}, {"services": (service(limits=registry_pb2.LIMITS_LEVEL_CGROUP),)}),
    (
        "limits as strict as demanded",
        {},
        {
            "services": (service(limits=registry_pb2.LIMITS_LEVEL_CGROUP),),
            "limits": int(registry_pb2.LIMITS_LEVEL_CGROUP),
        },
    ),
    ("itself, whatever its grants", {}, {"is_self": True, "grants": frozenset()}),
    ("large enough", {"cpus": 2.0, "memory_bytes": 1 << 30}, {"cpu_cores": 2, "memory_bytes": 1 << 30}),
    ("of unknown size", {"cpus": 64.0, "memory_bytes": 1 << 40}, {}),
    (
        "params and env as declared",
        {"params": frozenset({"x"}), "env": frozenset({"E"})},
        {"services": (service(params=[{"name": "x"}, {"name": "y", "default_value": ""}], job_env=["E"]),)},
    ),
]


@pytest.mark.parametrize(("asks", "has"), [row[1:] for row in FITS], ids=[row[0] for row in FITS])
def test_a_peer_that_fits_gets_the_job(asks: dict[str, Any], has: dict[str, Any]) -> None:
    decision = place(need(**asks), [candidate("a", **has)])
    assert (chosen(decision), decision.refusals) == ("a", ())


# (what is in the way, what the job asks, what the peer has, reason, a word of the message, a word of the next action)
REFUSED: list[tuple[str, dict[str, Any], dict[str, Any], str, str, str]] = [
    ("another role", {"role": "scanner"}, {}, "not_selected", "no scanner", "role scanner"),
    ("no role", {"role": "scanner"}, {"roles": frozenset()}, "not_selected", "no role", "role scanner"),
    (
        "one label of two",
        {"labels": frozenset({"gpu", "big"})},
        {"labels": frozenset({"gpu"})},
        "not_selected",
        "the label big",
        "label peer-a with big",
    ),
    ("another group", {"group": "berlin"}, {"group": "rome"}, "not_selected", "is in rome", "into group berlin"),
    ("no group", {"group": "berlin"}, {}, "not_selected", "in no group", "into group berlin"),
    ("revoked", {}, {"status": PeerStatus.REVOKED}, "revoked", "revoked", "another peer"),
    (
        "no grant",
        {},
        {"grants": frozenset({1, 3})},
        "permission_denied",
        "grant",
        "grants peer-a observe,execute,operate",
    ),
    ("no such service", {"service": "x"}, {}, "service_not_found", "no service x", "services add"),
    ("nothing offered", {}, {"services": ()}, "service_not_found", "no service count", "services add"),
    (
        "inactive",
        {},
        {"services": (service(status=catalog_pb2.SERVICE_STATUS_INACTIVE),)},
        "service_inactive",
        "inactive",
        "services activate count",
    ),
    (
        "container",
        {},
        {"services": CONTAINER, "hardware": PODMAN_AWAY},
        "service_kind_unsupported",
        "no container engine answers there",
        "peerd doctor",
    ),
    ("a newer kind", {}, {"services": (service(kind=99),)}, "service_kind_unsupported", "does not know", "update"),
    (
        "data takes nothing",
        {"interfaces": (STDIN,)},
        {"services": (service(kind=catalog_pb2.SERVICE_KIND_DATA),)},
        "illegal_interface",
        "does not take stdin",
        "takes nothing",
    ),
    (
        "undeclared output",
        {"interfaces": (OUTPUT,)},
        {"services": (service(interfaces=[{"kind": catalog_pb2.INTERFACE_KIND_STDOUT}]),)},
        "illegal_interface",
        "does not give output",
        "stdout",
    ),
    (
        "a mount the wrong way",
        {"interfaces": (APP_OUT,)},
        {
            "services": (
                service(
                    interfaces=[
                        {
                            "kind": catalog_pb2.INTERFACE_KIND_MOUNT,
                            "path": "app",
                            "mount_function": catalog_pb2.MOUNT_FUNCTION_INPUT,
                        }
                    ]
                ),
            )
        },
        "illegal_interface",
        "does not give mount app",
        "gives nothing",
    ),
    ("unknown parameter", {"params": frozenset({"x"})}, {}, "invalid_argument", "no parameter x", "none"),
    (
        "missing parameter",
        {},
        {"services": (service(params=[{"name": "x"}]),)},
        "invalid_argument",
        "needs x",
        "'params'",
    ),
    ("environment", {"env": frozenset({"E"})}, {}, "invalid_argument", "set E", "job_env"),
    (
        "too little isolation",
        {},
        {
            "services": (service(isolation=registry_pb2.ISOLATION_LEVEL_BUBBLEWRAP),),
            "isolation": int(registry_pb2.ISOLATION_LEVEL_NONE),
        },
        "isolation_insufficient",
        "isolation",
        "bubblewrap",
    ),
    (
        "limits that are kept less strictly",
        {},
        {
            "services": (service(limits=registry_pb2.LIMITS_LEVEL_CGROUP),),
            "limits": int(registry_pb2.LIMITS_LEVEL_RLIMITS),
        },
        "isolation_insufficient",
        "control groups",
        "peerd doctor",
    ),
    (
        "a command without isolation",
        COMMAND,
        {"isolation": int(registry_pb2.ISOLATION_LEVEL_NONE)},
        "isolation_insufficient",
        "no isolation",
        "bubblewrap",
    ),
    ("no commands", COMMAND, {"allows_commands": False}, "adhoc_not_allowed", "commands", "allow_commands_from"),
    ("its own word", {"peer": "peer-a"}, {"refused": "no room"}, "refused", "no room", "run the workflow again"),
    ("few cores", {"cpus": 4.5}, {"cpu_cores": 4}, "resources_insufficient", "4 cores", "4 cpus or less"),
    (
        "little memory",
        {"memory_bytes": 2 << 30},
        {"memory_bytes": 1 << 30},
        "resources_insufficient",
        "1024M",
        "1024M or less",
    ),
    ("another region", {"region": "eu"}, {"region": "us"}, "not_selected", "is in us, not in eu", "[peer] region"),
    ("no region", {"region": "eu"}, {}, "not_selected", "does not say where", "[peer] region"),
    (
        "too small by its expression",
        {"where": parse_expression("memory_gb>=16 AND cpus>=2")},
        {"cpu_cores": 4, "memory_bytes": 7_600_000_000},
        "not_selected",
        "memory_gb is 7.6, memory_gb>=16 is asked",
        "ask for what peer-a has: memory_gb 7.6",
    ),
    ("without peerd", {}, {"external": True}, "external", "runs no peerd", "let it join"),
    (
        "busy and of the wrong make",
        {"where": parse_expression("running_jobs<2 AND gpus>=1")},
        {"running_jobs": 5, "cpu_cores": 4},
        "not_selected",
        "gpus is 0",
        "ask for",
    ),
    ("in maintenance and out", {}, {"status": PeerStatus.REVOKED, "why": "lost"}, "revoked", "revoked", "another"),
    ("offline", {}, {"status": PeerStatus.OFFLINE, "why": "3 probes"}, "offline", "3 probes", "bring peer-a back"),
    ("left", {}, {"status": PeerStatus.LEFT, "why": "said so"}, "offline", "said so", "bring peer-a back"),
    (
        "maintenance",
        {},
        {"status": PeerStatus.MAINTENANCE, "why": "new disk"},
        "maintenance",
        "in maintenance: new disk",
        "'peerctl peers resume peer-a'",
    ),
    (
        "maintenance and suspected",
        {},
        {
            "status": PeerStatus.SUSPECT,
            "why": "no answer",
            "maintenance": Maintenance(reason="new disk", by=PeerId("b" * 52), since=Millis(0)),
        },
        "maintenance",
        "in maintenance: new disk",
        "'peerctl peers resume peer-a'",
    ),
    (
        "busy",
        {"where": parse_expression("running_jobs<2")},
        {"running_jobs": 5},
        "not_selected",
        "running_jobs is 5",
        "waits for it",
    ),
]
PASSES = {"offline", "left", "maintenance", "maintenance and suspected", "busy"}


@pytest.mark.parametrize(("case", "asks", "has", "reason", "says", "advises"), REFUSED, ids=[row[0] for row in REFUSED])
def test_a_peer_that_does_not_fit_is_told_why_and_what_would_help(
    case: str, asks: dict[str, Any], has: dict[str, Any], reason: str, says: str, advises: str
) -> None:
    decision = place(need(**asks), [candidate("a", **has)])
    assert decision.peer_id is None
    (refused,) = decision.refusals
    assert refused.reason == reason
    assert says in refused.message
    assert advises in refused.next_action
    assert refused.peer_name == "peer-a"
    assert (decision.waits_for == (refused,)) is (case in PASSES)


def test_the_owner_of_a_service_decides_who_may_order_it() -> None:
    picky = (service(allowed_roles=["boss"], allowed_peers=["z" * 52]),)
    orchestrator = candidate("o", is_self=True, roles=frozenset({"worker"}), services=())
    refused = place(need(), [orchestrator, candidate("a", services=picky)]).refusals[0]
    assert (refused.peer_name, refused.reason) == ("peer-a", "service_not_allowed")
    assert "role boss" in refused.message
    boss = candidate("o", is_self=True, roles=frozenset({"boss"}), services=())
    assert chosen(place(need(), [boss, candidate("a", services=picky)])) == "a"


def test_the_least_loaded_peer_gets_it_whatever_the_order() -> None:
    candidates = [
        candidate("a", running_jobs=2),
        candidate("b", running_jobs=1, assigned=0),
        candidate("c", running_jobs=0, assigned=1),
    ]
    for order in permutations(candidates):
        assert chosen(place(need(), order)) == "b"


RULES: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("fewer jobs", {"running_jobs": 1}, {"running_jobs": 2}, "least loaded: 1 job on 1 core; peer-b has 2 jobs"),
    ("fewer that wait", {"running_jobs": 1}, {"queued_jobs": 2}, "least loaded"),
    ("fewer that it was just given", {"running_jobs": 1}, {"assigned": 2}, "least loaded"),
    (
        "more cores for as many jobs",
        {"running_jobs": 3, "cpu_cores": 8},
        {"running_jobs": 2, "cpu_cores": 4},
        "least loaded: 3 jobs on 8 cores; peer-b has 2 jobs on 4 cores",
    ),
    ("equal load, near", {"near": 1, "turn": 9}, {"turn": 1}, "holds what the job takes: the outputs of 1 job before"),
    ("equal load, nearer", {"near": 3}, {"near": 2}, "the outputs of 3 jobs"),
    ("equal and as near, longer ago", {"near": 1, "turn": 1}, {"near": 1, "turn": 2}, "its turn"),
    ("never before", {"turn": 0}, {"turn": 1}, "its turn"),
    ("all the same", {}, {}, "the first of equals"),
    ("idle, not near", {}, {"near": 5, "running_jobs": 1}, "least loaded"),
    (
        "busy, but surely there",
        {"running_jobs": 50},
        {"status": PeerStatus.SUSPECT, "near": 5},
        "the only one that surely answers",
    ),
    ("alone", {}, {"status": PeerStatus.OFFLINE}, "the only one that fits"),
]


@pytest.mark.parametrize(
    ("winner", "loser", "rule"), [row[1:] for row in RULES], ids=[row[0].replace(" ", "-") for row in RULES]
)
def test_the_better_peer_gets_it_and_the_rule_is_told(winner: dict[str, Any], loser: dict[str, Any], rule: str) -> None:
    for order in permutations([candidate("a", **winner), candidate("b", **loser)]):
        decision = place(need(), order)
        assert chosen(decision) == "a"
        assert decision.rule.startswith(rule) or rule in decision.rule, decision.rule


def test_a_suspect_gets_the_job_when_nobody_else_fits() -> None:
    suspect = candidate("a", status=PeerStatus.SUSPECT)
    assert chosen(place(need(), [suspect, candidate("b", status=PeerStatus.OFFLINE)])) == "a"


def test_those_that_fit_are_told_best_first() -> None:
    decision = place(need(), [candidate("a", running_jobs=2), candidate("b"), candidate("c", running_jobs=1)])
    assert [peer.name for peer in decision.fitting] == ["peer-b", "peer-c", "peer-a"]
    assert decision.refusals == ()


def test_a_job_waits_for_a_drained_peer_as_for_one_that_is_away_and_never_for_a_machine_without_peerd() -> None:
    decision = place(
        need(),
        [
            candidate("a", status=PeerStatus.MAINTENANCE),
            candidate("b", status=PeerStatus.LEFT),
            candidate("c", external=True),
            candidate("d", status=PeerStatus.REVOKED),
        ],
    )
    assert decision.peer_id is None
    assert [refused.peer_name for refused in decision.waits_for] == ["peer-a", "peer-b"]
    assert chosen(place(need(), [candidate("a", status=PeerStatus.MAINTENANCE), candidate("b")])) == "b"


def test_equals_take_turns() -> None:
    candidates = {name: candidate(name) for name in "abc"}
    turns = ""
    for _ in range(6):
        name = chosen(place(need(), candidates.values()))
        assert name is not None
        turns += name
        candidates[name] = replace(candidates[name], assigned=candidates[name].assigned + 1)
    assert turns == "abcabc"


def test_a_busy_peer_that_fits_goes_before_an_idle_one_that_does_not() -> None:
    decision = place(need(role="gpu"), [candidate("a"), candidate("b", running_jobs=50, roles=frozenset({"gpu"}))])
    assert chosen(decision) == "b"
    assert [refused.peer_name for refused in decision.refusals] == ["peer-a"]


def test_a_job_waits_for_every_peer_that_would_take_it_and_for_no_other() -> None:
    offline: dict[str, Any] = {"status": PeerStatus.OFFLINE}
    decision = place(
        need(role="worker"),
        [
            candidate("a", **offline),
            candidate("b", **offline, services=None),
            candidate("c", **offline, services=()),
            candidate("d", **offline, roles=frozenset()),
        ],
    )
    assert decision.peer_id is None
    assert [refused.peer_name for refused in decision.waits_for] == ["peer-a", "peer-b"]


def test_it_does_not_wait_while_another_peer_fits() -> None:
    decision = place(need(), [candidate("a", status=PeerStatus.OFFLINE), candidate("b")])
    assert chosen(decision) == "b"
    assert decision.waits_for == ()


def test_a_pinned_job_waits_for_its_peer_alone() -> None:
    decision = place(need(peer="peer-a"), [candidate("a", status=PeerStatus.OFFLINE), candidate("b")])
    assert decision.peer_id is None
    assert [refused.peer_name for refused in decision.waits_for] == ["peer-a"]
    assert decision.refusals[1].next_action == "name peer-b instead, or no peer at all"


def test_a_peer_that_nobody_knows_is_named() -> None:
    refused = place(need(peer="alfa"), [candidate("a")]).refusals[0]
    assert (refused.peer_id, refused.reason) == ("", "not_found")
    assert "alfa" in refused.message


def test_a_name_that_two_peers_bear_must_be_an_id() -> None:
    twins = [candidate("a", name="twin"), candidate("b", name="twin")]
    decision = place(need(peer="twin"), twins)
    assert [refused.reason for refused in decision.refusals] == ["ambiguous_name", "ambiguous_name"]
    assert chosen(place(need(peer="b" * 52), twins)) == "b"
    gone = [candidate("a", name="twin", status=PeerStatus.REVOKED), candidate("b", name="twin")]
    assert chosen(place(need(peer="twin"), gone)) == "b"


def test_nobody_is_chosen_from_nobody() -> None:
    assert place(need(), []) == Decision(peer_id=None)


def test_the_need_of_a_job_comes_from_its_definition_and_its_edges() -> None:
    definition = valid(
        """\
        name: w
        jobs:
          - name: a
            service: s
          - name: b
            on: {peer: p, role: r, labels: [l, m], group: g, region: eu, where: "gpus>=1"}
            service: s
            inputs: [{from: a, into: mounts/app}, {from: a.stdout, into: mounts/app, to: x}]
            package: [{path: x, text: y}]
            params: {k: v}
            env: {E: f}
            resources: {cpus: 2, memory: 1G}
        deliver: [{from: b.mounts/app, to: one}, {from: b, to: two}]
        """
    )
    assert need_of(definition.jobs[1], edges_of(definition)) == Need(
        node_id="b",
        selector=Selector(
            peer="p",
            role="r",
            labels=frozenset({"l", "m"}),
            group="g",
            region="eu",
            where=parse_expression("gpus>=1"),
        ),
        service="s",
        interfaces=(APP_IN, NeededInterface(kind=InterfaceKind.PACKAGE, receives=True), APP_OUT, OUTPUT),
        params=frozenset({"k"}),
        env=frozenset({"E"}),
        cpus=2.0,
        memory_bytes=1 << 30,
    )
