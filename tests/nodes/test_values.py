"""Values and pages of metrics: what counts as which type, where it stands, and how it is shown."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerd.nodes.probing.metrics_page import read_metrics
from peerd.nodes.protocols.values import MAX_SHOWN, TYPE_NAMES, Expectation, Json, field_of, shown

ACCEPTED: list[tuple[str, list[Json]]] = [
    ("string", ["", "a"]),
    ("integer", [0, -1, 2**70]),
    ("number", [0, 1.5]),
    ("boolean", [True, False]),
    ("object", [{}, {"a": 1}]),
    ("array", [[], [1]]),
    ("hex_integer", ["0x0", "0x1", "0x1aF"]),
    ("decimal", ["0", "0012", "9" * 20]),
]
ODD: list[Json] = [
    *(None, True, 0, 1.5, "", "a", [], {}, "0x", "0X1", "0x00", "0xg", "0x" + "f" * 65, "x1", "-1", "1.5", " 1"),
    *("٣", "9" * 21, "0b1"),
]


@pytest.mark.parametrize(("kind", "values"), ACCEPTED)
def test_a_type_accepts_its_own(kind: str, values: list[Json]) -> None:
    for value in values:
        assert Expectation(type=kind).accepts(value), value


@pytest.mark.parametrize("kind", ["hex_integer", "decimal", "integer", "boolean"])
def test_a_type_refuses_what_only_resembles_it(kind: str) -> None:
    own: dict[str, list[Json]] = {"hex_integer": [], "decimal": [], "integer": [0], "boolean": [True]}
    assert [value for value in ODD if Expectation(type=kind).accepts(value)] == own[kind]


def test_ranges_are_those_of_the_number() -> None:
    assert Expectation(type="hex_integer", minimum=16, maximum=16).accepts("0x10")
    assert not Expectation(type="hex_integer", minimum=17).accepts("0x10")
    assert not Expectation(type="decimal", maximum=9).accepts("10")
    assert not Expectation(type="integer", minimum=1).accepts(True)
    assert not Expectation(type="string", pattern="a*", minimum=1).accepts("aa")


def test_equality_does_not_mix_truth_and_numbers() -> None:
    assert Expectation(type="boolean", equals=False).accepts(False)
    assert not Expectation(type="boolean", equals=False).accepts(True)
    assert not Expectation(type="number", equals=False).accepts(0)
    assert Expectation(type="integer", equals=4).accepts(4)


def test_a_pattern_is_for_the_whole_text() -> None:
    assert not Expectation(pattern="abc").accepts("xabcx")
    assert Expectation(pattern=r"v(?P<value>\d+).*").extract("v12-rest") == "12"
    assert Expectation(pattern=r"v(\d+)").extract("v12") == "v12"


def test_fields_are_found_by_names_and_positions() -> None:
    value: Json = {"a": [{"/": "x"}, None], "b.c": 1}
    assert field_of(value, "a.0./") == (True, "x")
    assert field_of(value, "a.1") == (True, None)
    assert field_of(value, "") == (True, value)
    for path in ("a.2", "a.-1", "a.b", "b.c", "a.0.y", "z", "a.0./.1"):
        assert field_of(value, path) == (False, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, st.sampled_from(TYPE_NAMES), st.text(max_size=10))
def test_any_value_is_judged_and_shown_on_one_printable_line(value: Json, kind: str, path: str) -> None:
    there, found = field_of(value, path)
    Expectation(type=kind, minimum=0, min_length=1).accepts(found if there else value)
    text = shown(value)
    assert len(text) <= MAX_SHOWN
    assert text.isprintable()


def test_a_page_of_metrics_is_read_leniently() -> None:
    page = (
        "# HELP a b\n# TYPE a counter\n"
        'a{version="1.2.3",path="C:\\\\x \\"q\\"\\n"} 1\n'
        "a 2 1700000000000\n"
        "not a sample at all\n"
        "b{broken 3\n"
        "c NaN\nd +Inf\ne 1e3\r\nlast 5"
    )
    metrics = read_metrics(page)
    assert [sample.value for sample in metrics["a"]] == [1, 2]
    assert metrics["a"][0].labels == {"version": "1.2.3", "path": 'C:\\x "q"\n'}
    assert math.isnan(metrics["c"][0].value)
    assert math.isinf(metrics["d"][0].value)
    assert metrics["e"][0].value == 1000
    assert set(metrics) == {"a", "c", "d", "e", "last"}
    assert "last" not in read_metrics(page, whole=False)


@given(st.text())
def test_any_text_is_a_page(text: str) -> None:
    read_metrics(text)


def test_a_hostile_line_takes_no_time() -> None:
    read_metrics(("a{" + 'b="' * 1300 + "\n") * 200 + ("a" * 4000 + " " * 90 + "\n") * 200)
