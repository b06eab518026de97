"""Parameters with types: what may be declared, what may be given, and what ``${params.NAME}`` becomes."""

from __future__ import annotations

import json
import time
from textwrap import indent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerd.errors import PeerdError, Reason
from peerd.v1 import workflows_pb2
from peerd.workflows.definition import read_definition
from peerd.workflows.parameters import TYPES, items, normalised
from peerd.workflows.params import run_params, substituted

from .reading import only_problem, read, valid


def declared(lines: str, *, rest: str = "") -> str:
    """A workflow with one parameter ``p``, declared in these lines, which begin at line 4."""
    return f"name: w\nparameters:\n  p:\n{indent(lines, '    ')}\njobs: [{{name: a, service: s}}]\n{rest}"


def parameter(text: str) -> workflows_pb2.ParameterDefinition:
    return valid(declared(text)).parameters["p"]


@pytest.mark.parametrize(
    ("declaration", "given_text", "normal"),
    [
        ("type: text", " as it is ", " as it is "),
        ("description: text without a type", "x", "x"),
        ("type: integer", "007", "7"),
        ("type: integer", "-20", "-20"),
        ("type: integer", "+9223372036854775807", "9223372036854775807"),
        ("type: number", "0.50", "0.5"),
        ("type: number", "2e3", "2000"),
        ("type: number", "-0", "0"),
        ("type: number", "1e-7", "1e-07"),
        ("type: boolean", "Yes", "true"),
        ("type: boolean", "off", "false"),
        ("{type: choice, choices: [low, high]}", "high", "high"),
        ("type: duration", "1h30m", "5400"),
        ("type: duration", "1.5s", "1.5"),
        ("type: duration", "90", "90"),
        ("type: duration", "250ms", "0.25"),
        ("type: size", "512M", "536870912"),
        ("type: list", "a, b ,c", '["a","b","c"]'),
        ("type: list", '["a, b", "é"]', '["a, b","é"]'),
        ("type: list", "", "[]"),
        ("{type: list, choices: [a, b], max: 2}", "b,a", '["b","a"]'),
        ("{type: integer, min: 1, max: 10}", "10", "10"),
        ("{type: number, min: 0.1}", "0.1", "0.1"),
        ("{type: duration, max: 1h}", "60m", "3600"),
        ("{type: size, min: 1K, max: 1M}", "1024", "1024"),
        ("{type: text, min: 2, max: 3}", "éé", "éé"),
        ("{pattern: '[a-z]+(-[a-z]+)*'}", "a-b", "a-b"),
    ],
)
def test_a_value_comes_in_its_normal_form_which_is_its_own(declaration: str, given_text: str, normal: str) -> None:
    found = normalised(parameter(declaration), given_text)
    assert found == normal
    assert normalised(parameter(declaration), found) == normal


@pytest.mark.parametrize(
    ("declaration", "given_text", "says"),
    [
        ("type: integer", "1.5", "'1.5' is not a whole number"),
        ("type: integer", "9223372036854775808", "is not a whole number"),
        ("type: integer", "٣", "is not a whole number"),
        ("type: number", "nan", "is not a number"),
        ("type: number", "1e999", "is not a number"),
        ("type: boolean", "maybe", "true or false"),
        ("{type: choice, choices: [low, high]}", "hihg", "is not one of low, high; did you mean 'high'?"),
        ("type: duration", "soon", "a duration such as"),
        ("type: size", "0", "a size such as"),
        ("type: list", "[1]", "a JSON list of texts"),
        ("type: list", "[" * 100_000, "a JSON list of texts"),
        ("{type: list, choices: [a, b]}", "a,c", "'c' is not one of a, b"),
        ("{type: list, pattern: '[a-z]'}", "a,B", "'B' does not match [a-z]"),
        ("{type: list, min: 1}", "", "is not at least 1 texts"),
        ("{type: integer, min: 1, max: 10}", "11", "'11' is not from 1 to 10"),
        ("{type: integer, min: -9007199254740993}", "-9007199254740994", "is not at least -9007199254740993"),
        ("{type: size, max: 1M}", "2M", "'2M' is not at most 1M"),
        ("{type: text, max: 2}", "abc", "is not at most 2 characters"),
        ("{pattern: '[a-z]+'}", "a1", "'a1' does not match [a-z]+"),
        ("{pattern: 'a.b'}", "a", "does not match"),
    ],
)
def test_a_value_that_is_not_allowed_says_what_is(declaration: str, given_text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r".") as refusal:
        normalised(parameter(declaration), given_text)
    assert says in str(refusal.value)


@pytest.mark.parametrize("kind", TYPES)
@given(text=st.text(max_size=30) | st.from_regex(r"[-+0-9.eEhmsdKMGT,\[\]\"]{0,12}", fullmatch=True))
def test_any_text_is_refused_or_has_one_normal_form(kind: str, text: str) -> None:
    declaration = workflows_pb2.ParameterDefinition(type=kind, choices=["a"] if kind == "choice" else [])
    try:
        normal = normalised(declaration, text)
    except ValueError:
        return
    assert normalised(declaration, normal) == normal
    if kind == "list":
        assert all(isinstance(item, str) for item in items(normal))


@pytest.mark.parametrize(
    ("declaration", "reason", "field", "says"),
    [
        ("type: whole", "bad_choice", "type", "is not one of text, integer"),
        ("type: choice", "missing", "choices", "needs its choices"),
        ("{type: integer, choices: ['1']}", "bad_value", "choices", "for choice, list"),
        ("{type: size, pattern: x}", "bad_value", "pattern", "for text, list"),
        ("{type: boolean, min: 1}", "bad_value", "min", "means nothing for the type boolean"),
        ("{type: integer, min: one}", "bad_value", "min", "'one' is not a whole number"),
        ("{type: integer, min: 3, max: 2}", "out_of_range", "min", "nothing would be allowed"),
        ("pattern: '('", "bad_parameter_pattern", "pattern", "not an RE2 expression"),
        ("pattern: '(?=a)b'", "bad_parameter_pattern", "pattern", "not an RE2 expression"),
        (r"pattern: '(a)\1'", "bad_parameter_pattern", "pattern", "not an RE2 expression"),
        (f"pattern: '{'a' * 201}'", "bad_parameter_pattern", "pattern", "longer than 200"),
        ("{type: integer, default: x}", "bad_default", "default", "'x' is not a whole number"),
        ("{type: integer, default: 5, max: 4}", "bad_default", "default", "'5' is not at most 4"),
        ("{required: true, default: x}", "bad_value", "default", "never be used"),
        ("{tipe: integer}", "unknown_field", "tipe", "is not a field of a parameter"),
    ],
)
def test_a_declaration_that_makes_no_sense(declaration: str, reason: str, field: str, says: str) -> None:
    problem = only_problem(declared(declaration))
    assert (problem.reason.text, problem.field) == (reason, f"parameters.p.{field}")
    assert says in problem.message
    assert problem.line == 4


def test_one_name_stands_in_one_place() -> None:
    problem = only_problem(declared("type: integer", rest="params: {p: x}\n"))
    assert (problem.reason.text, problem.field) == ("duplicate_name", "parameters.p")


def test_a_name_is_a_name() -> None:
    problem = only_problem("name: w\nparameters: {'a b': {}}\njobs: [{name: a, service: s}]\n")
    assert (problem.reason.text, problem.field) == ("bad_name", 'parameters["a b"]')


def test_a_reference_to_a_parameter_that_cannot_be_read_is_no_second_problem() -> None:
    rest = "deliver: []\n"
    text = "name: w\nparameters: 7\njobs: [{name: a, service: s, env: {X: '${params.p}'}}]\n" + rest
    assert only_problem(text).reason.text == "wrong_type"


TEXT = """\
name: w
params: {free: text}
parameters:
  count: {type: integer, default: "05", min: 1, max: 10, description: How many}
  when: {type: duration, default: 1h30m}
  target: {required: true, pattern: '[a-z]+', description: Where to}
  note: {}
  flag: {type: boolean}
jobs:
  - name: a
    run: {argv: [x, "${params.count}", "${params.when}", "${params.target}", "${params.note}", "${params.flag}"]}
"""


def test_values_are_normal_where_they_are_used() -> None:
    definition = valid(TEXT)
    params = run_params(definition, {"target": "moon", "count": "+7", "flag": "on"})
    assert params == {"free": "text", "count": "7", "when": "5400", "target": "moon", "note": "", "flag": "true"}
    assert list(substituted(definition.jobs[0], params).run.argv) == ["x", "7", "5400", "moon", "", "true"]
    # As when an execution is run again with what it had, although the flag was not given then.
    again = run_params(definition, {"target": "moon"})
    assert run_params(definition, again) == again


def test_everything_wrong_is_said_at_once_by_name() -> None:
    with pytest.raises(PeerdError) as refusal:
        run_params(valid(TEXT), {"count": "11", "when": "soon"})
    error = refusal.value
    assert error.reason is Reason.INVALID_ARGUMENT
    assert [violation.field for violation in error.violations] == ["params.count", "params.target", "params.when"]
    assert error.violations[0].message == "'11' is not from 1 to 10"
    assert error.violations[1].message == "must be given: a value of type text (Where to)"
    assert "(and 2 more)" in error.message


def test_an_unknown_one_names_the_nearest() -> None:
    with pytest.raises(PeerdError) as refusal:
        run_params(valid(TEXT), {"targt": "moon"})
    assert "did you mean 'target'?" in refusal.value.message


def test_a_definition_with_parameters_means_the_same_in_yaml_json_and_as_a_message() -> None:
    from google.protobuf.json_format import MessageToDict

    reading = read(TEXT)
    as_json = json.dumps(MessageToDict(valid(TEXT)))
    assert read_definition(workflows_pb2.DefinitionSource(text=as_json)).digest == reading.digest
    assert read_definition(workflows_pb2.DefinitionSource(definition=valid(TEXT))).digest == reading.digest
    assert valid(TEXT).parameters["count"].default == "05"
    assert not valid(TEXT).parameters["note"].HasField("default")


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|aa)*b", "([a-z]+)*[0-9]", "(.*)*(.*)*(.*)*b"])
def test_no_pattern_takes_long(pattern: str) -> None:
    declaration = workflows_pb2.ParameterDefinition(pattern=pattern)
    begun = time.thread_time()
    with pytest.raises(ValueError, match="does not match"):
        normalised(declaration, "a" * 60_000)
    assert time.thread_time() - begun < 2
