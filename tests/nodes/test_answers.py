"""Any exchange is judged: nothing that a server sends is an error of ours, and only exact answers count."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from peerd.nodes.probing.answers import Answer, Verdict, judge
from peerd.nodes.probing.http_client import Exchange, Transfer
from peerd.nodes.protocols import Query, QueryKind, load_protocols

RPC = Query(kind=QueryKind.JSON_RPC, method="eth_chainId")
QUERIES = [RPC, Query(kind=QueryKind.HTTP, path="/info"), Query(kind=QueryKind.METRICS, path="/metrics")]
EXPECTATIONS = [
    expect
    for protocol in load_protocols()
    for expect in [
        *(one.expect for one in protocol.signatures),
        *(one.expect for one in protocol.versions),
        *(one.expect for one in protocol.health),
        *(one.expect for one in protocol.sensitive),
    ]
]
BODIES = (
    st.binary(max_size=200)
    | st.text(max_size=200).map(lambda text: text.encode())
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["jsonrpc", "id", "result"]), inner)
        ),
        max_leaves=6,
    ).map(lambda value: json.dumps(value).encode())
)


def replied(body: bytes, status: int = 200, **headers: str) -> Exchange:
    return Exchange(transfer=Transfer.REPLIED, status=status, headers=tuple(headers.items()), body=body)


def asked(query: Query, exchange: Exchange, rpc_id: int = 7) -> Answer:
    return judge(query, exchange, address="192.0.2.1", port=80, rpc_id=rpc_id)


@settings(deadline=None)
@given(
    st.sampled_from(QUERIES),
    st.sampled_from(list(Transfer)),
    st.integers(100, 599),
    st.lists(st.tuples(st.sampled_from(["content-type", "location", "server"]), st.text(max_size=20)), max_size=3),
    BODIES,
)
def test_anything_is_judged(
    query: Query, transfer: Transfer, status: int, headers: list[tuple[str, str]], body: bytes
) -> None:
    exchange = Exchange(transfer=transfer, status=status, headers=tuple(headers), body=body, detail="why")
    answer = asked(query, exchange)
    assert answer.detail.isprintable()
    for expect in EXPECTATIONS:
        for value in answer.values(expect):
            expect.accepts(value)
    if answer.verdict is Verdict.ANSWERED:
        assert status == 200
        assert transfer is Transfer.REPLIED or query.kind is QueryKind.METRICS


@given(
    st.dictionaries(st.sampled_from(["jsonrpc", "id", "result", "error"]), st.sampled_from(["2.0", 7, 7.0, True, None]))
)
def test_a_call_is_answered_by_version_id_and_result_only(body: dict[str, object]) -> None:
    right = (
        body.get("jsonrpc") == "2.0"
        and type(body.get("id")) is int
        and body.get("id") == 7
        and "result" in body
        and body.get("error") is None
    )
    answer = asked(RPC, replied(json.dumps(body).encode()))
    assert (answer.verdict is Verdict.ANSWERED) is right


def test_true_is_not_the_id_one() -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": True, "result": "0x1"}).encode()
    assert asked(RPC, replied(body), rpc_id=1).verdict is Verdict.OTHER


def test_metrics_that_were_cut_off_count_up_to_their_last_whole_line() -> None:
    cut = Exchange(transfer=Transfer.CUT, status=200, body=b'sui_node_build_info{version="1.2.3"} 1\nlotus_info{vers')
    answer = asked(QUERIES[2], cut)
    assert set(answer.metrics) == {"sui_node_build_info"}
    assert asked(QUERIES[1], cut).verdict is Verdict.TOO_LARGE


def test_the_first_of_several_headers_counts() -> None:
    exchange = Exchange(transfer=Transfer.REPLIED, status=200, headers=(("server", "a"), ("server", "b")), body=b"{}")
    assert asked(QUERIES[1], exchange).headers == {"server": "a"}
