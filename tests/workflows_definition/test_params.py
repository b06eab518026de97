"""Parameters: values over defaults, text for text, within limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerd.errors import PeerdError, Reason
from peerd.v1 import jobs_pb2, workflows_pb2
from peerd.workflows.params import MAX_VALUE_BYTES, references, run_params, substitute, substituted

from .reading import valid

TEXT = """\
name: w
params: {who: world, n: 1}
jobs:
  - name: a
    run: {argv: [echo, "hello ${params.who}", "$${params.who}", "${HOME}"]}
    env: {N: "${params.n}${params.n}"}
  - name: b
    service: s
    params: {x: "<${params.who}>"}
"""


def test_given_values_replace_defaults() -> None:
    assert run_params(valid(TEXT), {"n": "2"}) == {"who": "world", "n": "2"}


def test_references_are_replaced_in_argv_env_and_params() -> None:
    definition = valid(TEXT)
    first, second = (substituted(job, run_params(definition, {"n": "7"})) for job in definition.jobs)
    assert list(first.run.argv) == ["echo", "hello world", "${params.who}", "${HOME}"]
    assert dict(first.env) == {"N": "77"}
    assert dict(second.params) == {"x": "<world>"}
    assert definition.jobs[0].run.argv[1] == "hello ${params.who}"
    assert not second.HasField("run")


def test_what_was_inserted_is_not_read_again() -> None:
    assert substitute("${params.a}", {"a": "${params.b}", "b": "no"}) == "${params.b}"
    assert substitute("${params.a}{params.b}", {"a": "$", "b": "no"}) == "${params.b}"


@given(st.text())
def test_an_escaped_text_comes_out_as_it_was(text: str) -> None:
    assert substitute(text.replace("${", "$${"), {}) == text


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("${params.a}", ["a"]),
        ("${params.a-b.c_d}${params.e}", ["a-b.c_d", "e"]),
        ("$${params.a}", []),
        ("$$${params.a}", []),
        ("${params.a", [None]),
        ("${params.}", [None]),
        ("${params.a b}", [None]),
        ("${param.a} ${a} $params.a", []),
    ],
)
def test_references_of_a_text(text: str, names: list[str | None]) -> None:
    assert list(references(text)) == names


@pytest.mark.parametrize(
    ("given_values", "field", "says"),
    [
        ({"whom": "x"}, "params.whom", "there are: n, who"),
        ({"who": "a\0b"}, "params.who", "NUL"),
        ({"who": "x" * (MAX_VALUE_BYTES + 1)}, "params.who", "longer than"),
        ({"who": "é" * (MAX_VALUE_BYTES // 2 + 1)}, "params.who", "longer than"),
        ({"who": "x" * MAX_VALUE_BYTES}, "jobs[0].run.argv[1]", "after substitution"),
    ],
)
def test_values_that_are_refused(given_values: dict[str, str], field: str, says: str) -> None:
    with pytest.raises(PeerdError) as refusal:
        run_params(valid(TEXT), given_values)
    assert refusal.value.reason is Reason.INVALID_ARGUMENT
    assert refusal.value.violations[0].field == field
    assert says in refusal.value.violations[0].message


def test_many_short_references_cannot_become_gigabytes() -> None:
    argv = ["x", *["${params.who}"] * 1000]
    definition = workflows_pb2.WorkflowDefinition(
        name="w", params={"who": ""}, jobs=[workflows_pb2.JobDefinition(name="a", run=jobs_pb2.Command(argv=argv))]
    )
    with pytest.raises(PeerdError) as refusal:
        run_params(definition, {"who": "x" * 60_000})
    assert refusal.value.violations[0].field == "jobs[0]"


def test_the_size_that_was_checked_is_the_size_that_comes_out() -> None:
    # 32 KiB twice is the limit exactly; one character more is beyond it.
    definition = valid("name: w\nparams: {p: ''}\njobs: [{name: a, service: s, env: {X: '${params.p}${params.p}'}}]\n")
    half = "x" * (MAX_VALUE_BYTES // 2)
    params = run_params(definition, {"p": half})
    assert len(substituted(definition.jobs[0], params).env["X"]) == MAX_VALUE_BYTES
    with pytest.raises(PeerdError):
        run_params(definition, {"p": half + "x"})
