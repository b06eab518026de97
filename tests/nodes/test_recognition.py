"""Recognition of any set of answers: evidence adds up, controls take it away, and nothing else does."""

from __future__ import annotations

import dataclasses
import json
from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from peerd.nodes.messages import Recognition
from peerd.nodes.probing.answers import Answer, Verdict
from peerd.nodes.probing.metrics_page import read_metrics
from peerd.nodes.probing.recognition import MIN_CONFIDENCE, Answers, evidence_for, recognise
from peerd.nodes.protocols import Protocols, Query, QueryKind, load_protocols
from tests.nodes import servers as sites
from tests.nodes.servers import Asked, Site

SITES: list[Site] = [
    *(sites.SUI, sites.SUI_METRICS, sites.ETHEREUM, sites.FILECOIN, sites.ARWEAVE, sites.HELIUM, sites.RENDER),
    *(sites.WALRUS, sites.WALRUS_METRICS, sites.SOLANA, sites.PROMETHEUS),
]


@cache
def protocols() -> Protocols:
    return load_protocols()


def answer_of(site: Site, query: Query, port: int) -> Answer:
    """What a survey would keep of a site's answer to a query."""
    where = {"query": query, "address": "192.0.2.1", "port": port}
    other = Answer(**where, verdict=Verdict.OTHER)  # type: ignore[arg-type]
    body = json.dumps({"id": 1, "method": query.method}).encode() if query.kind is QueryKind.JSON_RPC else b""
    page = site(Asked(method="POST" if body else "GET", path=query.path, body=body, host="h"))
    if page.status != 200 or query.kind is QueryKind.BANNER:
        return other
    if query.kind is QueryKind.METRICS:
        return dataclasses.replace(other, verdict=Verdict.ANSWERED, metrics=read_metrics(page.body.decode()))
    value = json.loads(page.body)
    if query.kind is QueryKind.JSON_RPC:
        if "result" not in value:
            return other
        value = value["result"]
    return dataclasses.replace(other, verdict=Verdict.ANSWERED, json=value)


@cache
def everything() -> tuple[Answer, ...]:
    """All answers of all sites, each at a port of its own."""
    queries = {probe.query for protocol in protocols() for probe in protocol.discovery_probes}
    return tuple(
        answer_of(site, query, 1000 + number) for number, site in enumerate(SITES) for query in sorted(queries, key=str)
    )


def confidences(answers: Answers) -> dict[str, float]:
    """Also of what is too little to be a finding."""
    found = {}
    for protocol in protocols():
        doubt = 1.0
        for one in evidence_for(protocol, answers):
            doubt *= 1 - one.weight
        found[protocol.name] = 1 - doubt
    return found


def test_all_answers_together_are_all_protocols() -> None:
    found = recognise(protocols(), Answers(asked=everything()))
    assert {one.protocol for one in found} == set(protocols().names()) - {"generic"}


@settings(deadline=None, max_examples=40)
@given(st.sets(st.integers(0, 2000)))
def test_taking_answers_away_never_raises_a_confidence(removed: set[int]) -> None:
    fewer = tuple(
        answer for number, answer in enumerate(everything()) if number % 211 not in {x % 211 for x in removed}
    )
    before, after = confidences(Answers(asked=everything())), confidences(Answers(asked=fewer))
    for name, value in after.items():
        assert value <= before[name] + 1e-9
        assert 0 <= value < 1


@settings(deadline=None, max_examples=40)
@given(st.sets(st.integers(0, len(SITES) - 1)), st.sampled_from(["/", "/rpc/v0", "/rpc/v1", "/x"]))
def test_a_control_never_raises_a_confidence(ports: set[int], path: str) -> None:
    controls = tuple(
        Answer(
            query=Query(kind=kind, path=path, method="peerd_x"),
            address="192.0.2.1",
            port=1000 + port,
            verdict=Verdict.ANSWERED,
            json={"network": "arweave.N.1", "release": 69},
        )
        for port in ports
        for kind in (QueryKind.JSON_RPC, QueryKind.HTTP)
    )
    before = confidences(Answers(asked=everything()))
    after = confidences(Answers(asked=everything(), controls=controls))
    assert all(value <= before[name] + 1e-9 for name, value in after.items())


@settings(deadline=None, max_examples=40)
@given(st.permutations(range(20)))
def test_the_order_of_answers_changes_no_confidence(order: list[int]) -> None:
    numbered = sorted(enumerate(everything()), key=lambda pair: order[pair[0] % 20])
    mixed = tuple(answer for _, answer in numbered)
    before, after = confidences(Answers(asked=everything())), confidences(Answers(asked=mixed))
    assert all(abs(before[name] - after[name]) < 1e-9 for name in before)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["1.2.3", "ok", "0x1", "v1.2.3"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["version", "Version", "status", "name", "data", "info", "height"]), inner)
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=40)
@given(JSON)
def test_one_value_given_to_everything_is_no_protocol(value: object) -> None:
    """Even without controls: versions, heights and such words are too little."""
    queries = {probe.query for protocol in protocols() for probe in protocol.discovery_probes}
    asked = tuple(
        Answer(query=query, address="192.0.2.1", port=80, verdict=Verdict.ANSWERED, json=value)
        for query in queries
        if query.kind is QueryKind.HTTP
    )
    assert recognise(protocols(), Answers(asked=asked)) == ()


def test_a_fallback_is_named_only_where_nothing_else_was_found() -> None:
    generic = tuple(answer for answer in everything() if answer.port == 1000 + SITES.index(sites.PROMETHEUS))
    (found,) = recognise(protocols(), Answers(asked=generic))
    assert found.protocol == "generic"
    sui = tuple(answer for answer in everything() if answer.port == 1000)
    assert [one.protocol for one in recognise(protocols(), Answers(asked=(*generic, *sui)))] == ["sui"]


def test_findings_are_messages_with_confidence_from_the_threshold_on() -> None:
    for one in recognise(protocols(), Answers(asked=everything())):
        assert isinstance(one, Recognition)
        assert MIN_CONFIDENCE <= one.confidence < 1
        assert one.version or one.protocol == "walrus"
