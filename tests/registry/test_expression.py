"""Capability expressions: what they mean, what is refused, and what would help."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peerd.clock import Millis
from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.registry.expression import (
    NUMBERS,
    TEXTS,
    And,
    Comparison,
    Expression,
    Not,
    Or,
    may_hold,
    parse_expression,
    unmet,
)
from peerd.registry.model import PeerStatus, PeerView
from peerd.registry.selection import Selector, mismatch, selector
from peerd.v1 import registry_pb2

GIB = 1024**3


def peer(**more: Any) -> PeerView:
    facts: dict[str, Any] = {
        "peer_id": PeerId("a" * 52),
        "name": "ada",
        "status": PeerStatus.ONLINE,
        "since": Millis(0),
        "why": "",
        "roles": frozenset({"worker", "scanner"}),
        "grants": frozenset(),
        "labels": frozenset({"gpu", "rack=3"}),
        "groups": frozenset({"lab"}),
        "location": registry_pb2.Location(region="eu"),
        "hardware": registry_pb2.Hardware(
            cpu_cores=8,
            cpu_model="AMD EPYC",
            memory_bytes=31 * GIB // 2,
            gpus=[registry_pb2.Gpu(vendor="nvidia", model="RTX 4090", memory_bytes=24 * GIB)],
            runners=[registry_pb2.JobRunner(name="podman")],
        ),
        "sample": registry_pb2.Sample(
            running_jobs=3, cpu_percent=12.5, memory_available_bytes=2 * 10**9, disk_free_bytes=5 * 10**9
        ),
        "isolation": registry_pb2.ISOLATION_LEVEL_BUBBLEWRAP,
        "platform": "linux-x86_64",
    }
    return PeerView(**{**facts, **more})


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("gpus>=1 AND memory_gb>=16", True),
        ("gpus >= 2", False),
        ("cpus=8", True),
        ("cpus!=8", False),
        ("memory_gb>=16 and memory_gb<17", True),
        ("disk_gb=0 and serial_ports=0 and gpu_memory_gb>=24", True),
        ("running_jobs=3 and memory_free_gb<2.1 and disk_free_gb=5 and cpu_percent<=12.5", True),
        ("NOT cpus<8", True),
        ("not not gpu", True),
        ("gpu", True),
        ("tpu or gpu", True),
        ("tpu OR (gpu AND cpus>100)", False),
        ('label="rack=3"', True),
        ('"rack=3"', True),
        ("role=scanner AND role=worker", True),
        ("role!=scanner", False),
        ("gpu~4090 AND cpu_model~epyc", True),
        ('cpu_model="AMD EPYC"', True),
        ("runner=podman AND isolation=bubblewrap AND region=eu AND group=lab", True),
        ("status=online", True),
        ("latency_ms<5", False),
        ("tpu AND gpu OR gpu", True),
    ],
)
def test_what_an_expression_means(text: str, holds: bool) -> None:
    assert parse_expression(text).holds(peer()) is holds


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("", 1, "empty"),
        ("   ", 1, "empty"),
        ("cpus>=", 7, "value"),
        ("cpus>=many", 7, "number"),
        ("cpus>=nan", 7, "number"),
        ("cpus>=inf", 7, "number"),
        ("cpus~8", 5, "takes"),
        ("name>3", 5, "takes"),
        ("memroy_gb>3", 1, "memory_gb"),
        ("gpu AND", 8, "name"),
        ("AND gpu", 1, "name"),
        ("(gpu", 5, "')'"),
        ("gpu)", 4, "end"),
        ("gpu tpu", 5, "end"),
        ('"open', 1, "cannot"),
        ("label=rack=3", 11, "end"),
        ("(" * 5000, 1, "5000 characters"),
        ("(" * 500, 33, "nested"),
        ("NOT " * 200 + "gpu", 129, "nested"),
    ],
)
def test_a_mistake_is_named_with_its_column(text: str, column: int, says: str) -> None:
    with pytest.raises(PeerdError) as caught:
        parse_expression(text)
    assert caught.value.reason is Reason.INVALID_EXPRESSION
    assert caught.value.message.startswith(f"column {column}: "), caught.value.message
    assert says in caught.value.message


def test_the_smallest_change_is_named() -> None:
    def lacking(text: str) -> list[str]:
        return [str(entry) for entry in unmet(parse_expression(text), peer())]

    assert lacking("gpus>=1") == []
    assert lacking("memory_gb>=32 AND gpus>=1") == ["memory_gb is 16.64, memory_gb>=32 is asked"]
    assert lacking("memory_gb<=16.64") == ["memory_gb is 16.642998272, memory_gb<=16.64 is asked"], (
        "never rounded to what is asked"
    )
    assert lacking("(cpus>100 AND memory_gb>100) OR tpu") == ["label is gpu, rack=3, label=tpu is asked"]
    assert lacking("NOT gpu") == ["label is gpu, rack=3, not label=gpu is asked"]
    assert len(lacking("NOT (gpu OR role=worker)")) == 2


def test_what_is_not_known_compares_with_nothing() -> None:
    silent = peer(hardware=registry_pb2.Hardware(), sample=registry_pb2.Sample(), latency_ms=None)
    for name in NUMBERS:
        for sign in ("=", "!=", "<", "<=", ">", ">="):
            assert not parse_expression(f"{name}{sign}0").holds(silent), (name, sign)
    assert [str(entry) for entry in unmet(parse_expression("cpus>=1"), silent)] == ["cpus is unknown, cpus>=1 is asked"]
    assert parse_expression("latency_ms<1").holds(peer(is_self=True)), "it is near to itself"
    assert parse_expression("latency_ms=7").holds(peer(latency_ms=7.0))


def test_a_peer_that_says_what_this_version_does_not_know_is_no_error() -> None:
    newer = peer(isolation=99)
    assert not parse_expression("isolation=bubblewrap").holds(newer)
    assert [entry.found for entry in unmet(parse_expression("isolation=bubblewrap"), newer)] == ["99"]


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ("running_jobs<3", True),
        ("running_jobs<3 AND gpus>=1", True),
        ("running_jobs<3 AND gpus>=2", False),
        ("running_jobs<3 OR gpus>=2", True),
        ("NOT running_jobs>=3", True),
        ("NOT (running_jobs>=3 AND gpus>=1)", True),
        ("NOT (running_jobs<99 OR gpus>=1)", False),
        ("gpus>=2", False),
        ("gpus>=1", True),
        ("NOT status=online", True),
    ],
)
def test_load_passes_and_what_a_machine_is_does_not(text: str, may: bool) -> None:
    assert may_hold(parse_expression(text), peer()) is may
    found = mismatch(selector(where=text), peer())
    assert found is None or found.passes is may


names = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True).filter(lambda text: text not in ("and", "or", "not"))
comparisons = st.one_of(
    st.builds(
        Comparison,
        st.sampled_from(sorted(NUMBERS)),
        st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
        st.floats(min_value=0, max_value=100, allow_nan=False).map(lambda number: round(number, 3)),
    ),
    st.builds(
        Comparison,
        st.sampled_from(sorted(TEXTS)),
        st.sampled_from(["=", "!=", "~"]),
        st.one_of(names, st.just("two words"), st.just("AND"), st.just("")),
    ),
)
expressions: st.SearchStrategy[Expression] = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(lambda parts: And(tuple(parts)), st.lists(inner, min_size=2, max_size=3)),
        st.builds(lambda parts: Or(tuple(parts)), st.lists(inner, min_size=2, max_size=3)),
    ),
    max_leaves=8,
)


@given(expressions)
@settings(max_examples=300, deadline=None)
def test_what_is_printed_reads_as_the_same(expression: Expression) -> None:
    text = str(expression)
    again = parse_expression(text) if len(text) <= 1000 else expression
    assert str(again) == text
    assert again.holds(peer()) == expression.holds(peer())


@given(expressions)
@settings(max_examples=300, deadline=None)
def test_nothing_is_unmet_exactly_when_it_holds(expression: Expression) -> None:
    lacks = unmet(expression, peer())
    assert (not lacks) == expression.holds(peer())
    assert all(entry.comparison.holds(peer()) != entry.wanted for entry in lacks)


@given(expressions, st.booleans())
@settings(max_examples=200, deadline=None)
def test_evaluation_equals_a_plain_one(expression: Expression, known: bool) -> None:
    one = peer() if known else peer(hardware=registry_pb2.Hardware(), sample=registry_pb2.Sample())
    assert expression.holds(one) == plainly(expression, one)
    assert may_hold(expression, one) or not expression.holds(one), "what holds may hold"


def plainly(expression: Expression, one: PeerView) -> bool:
    """The meaning, written a second time and without care for speed or words."""
    if isinstance(expression, Not):
        return plainly(expression.of, one) is False
    if isinstance(expression, And):
        return [plainly(part, one) for part in expression.parts].count(False) == 0
    if isinstance(expression, Or):
        return [plainly(part, one) for part in expression.parts].count(True) > 0
    name, sign, value = expression.name, expression.operator, expression.value
    if isinstance(value, float):
        has = NUMBERS[name](one)
        if has is None:
            return False
        below, equal = has < value, has == value
        return {
            "=": equal,
            "!=": not equal,
            "<": below,
            "<=": below or equal,
            ">": not below and not equal,
            ">=": not below,
        }[sign]
    texts = list(TEXTS[name](one))
    if sign == "~":
        return sum(text.lower().count(value.lower()) for text in texts) > 0
    return (texts.count(value) > 0) == (sign == "=")


soup = st.lists(
    st.sampled_from(
        ["(", ")", "NOT", "and", "OR", "gpu", "cpus", ">=", "~", "=", "3", '"', '"x y"', "1e999", "²", "\x1c"]
    ),
    max_size=40,
).map(" ".join)


@given(st.one_of(st.text(max_size=60), soup))
@settings(max_examples=800, deadline=None)
def test_no_text_does_worse_than_being_refused(text: str) -> None:
    try:
        parse_expression(text).holds(peer())
    except PeerdError as error:
        assert error.reason is Reason.INVALID_EXPRESSION


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        (selector(role="worker", label="gpu", group="lab", region="eu"), True),
        (selector(role="boss"), False),
        (selector(label="tpu"), False),
        (selector(group="x"), False),
        (selector(region="us"), False),
        (selector(where="cpus>8"), False),
        (selector(where=" "), True),
        (selector(text=" "), True),
        (selector(text="scanner lab rtx online podman eu"), True),
        (selector(text="EPYC 4090"), True),
        (selector(text="epyc 3090"), False),
        (Selector(status=PeerStatus.OFFLINE), False),
        (Selector(peer="ada"), True),
        (Selector(peer="bob"), False),
    ],
)
def test_one_function_selects_for_lists_and_for_jobs(wanted: Selector, fits: bool) -> None:
    found = mismatch(wanted, peer())
    assert (found is None) is fits
    if found is not None:
        assert found.message and found.change
