"""``when``: what it says, what it refuses and where, and what it may ask."""

from __future__ import annotations

import pytest

from peerd.errors import PeerdError
from peerd.workflows.condition_answers import End, Facts
from peerd.workflows.condition_tokens import ConditionError
from peerd.workflows.conditions import parse_condition
from peerd.workflows.matrix import expanded
from peerd.workflows.params import run_params

from .reading import job_with, only_problem, read, valid

FACTS = Facts(
    params={"mode": "full", "n": "10", "flag": "true", "text": "abc"},
    ends={"a": End(status="failed", exit_code=3), "b.2": End(status="skipped")},
    success=False,
    failure=True,
)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("true", True),
        ("false", False),
        ("always()", True),
        ("success()", False),
        ("failure()", True),
        ("!failure()", False),
        ("!(success() && failure())", True),
        ("success() || failure() && false", False),
        ("false && false || true", True),
        ("params.mode == 'full'", True),
        ('params.mode != "full"', False),
        ("'full' == params.mode", True),
        ("params.n == 10", True),
        ("params.n == 10.0", True),
        ("params.n == '10.0'", False),
        ("params.n > 9 && params.n >= 10 && params.n < 10.5 && params.n <= 10", True),
        ("params.n < 9", False),
        ("params.flag == true", True),
        ("params.flag == false", False),
        ("params.mode in ['half', 'full']", True),
        ("params.n in [1, 2, 10]", True),
        ("params.mode in ['half']", False),
        ("jobs.a.status == 'failed'", True),
        ("jobs.a.status in ['completed', 'skipped']", False),
        ("jobs.a.exit_code in [3, 4]", True),
        ("jobs.a.exit_code > 3", False),
        ("jobs.b.2.status == 'skipped'", True),
        # A job without an exit code equals nothing, and is neither less nor more.
        ("jobs.b.2.exit_code == 0", False),
        ("jobs.b.2.exit_code != 0", True),
        ("jobs.b.2.exit_code < 1 || jobs.b.2.exit_code >= 0", False),
        ("params.text == 3", False),
        ("params.text < 3", False),
        ("(failure()) == true", True),
    ],
)
def test_what_a_condition_says(text: str, holds: bool) -> None:
    assert parse_condition(text).holds(FACTS) is holds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a value, found nothing (at character 1)"),
        ("params.mode", "expected true or false, found a parameter: compare it with something (at character 1)"),
        ("params.mode && true", "expected true or false, found a parameter"),
        ("always() always()", "'always' is one too many (at character 10)"),
        ("always", "write always() (at character 1)"),
        ("sometimes()", "there is no sometimes(), only success(), failure(), always() (at character 1)"),
        ("cancelled()", "a cancel ends every job that has not ended (at character 1)"),
        ("(always()", "expected ')', found the end (at character 10)"),
        ("params.mode < 'x'", "'<' compares numbers, and this is a text (at character 15)"),
        ("jobs.a.status == 3", "a status is never equal to a number (at character 15)"),
        ("jobs.a.exit_code == '3'", "a number is never equal to a text"),
        ("jobs.a.status == 'done'", "'done' is no status that a job ends in: completed, failed, skipped"),
        ("jobs.a.result == 'x'", "is not params.NAME, jobs.NAME.status or jobs.NAME.exit_code"),
        ("mode == 'x'", "'mode' is not params.NAME"),
        ("params.n in []", "expected a value, found ']' (at character 14)"),
        ("params.n in [params.n]", "only texts, numbers, true and false may stand in a list (at character 14)"),
        ("params.n == 1 == 2", "'==' is one too many"),
        ("params.n + 1 > 2", "'+' cannot be read here (at character 10)"),
        ("params.n == 'open", '"\'" cannot be read here (at character 13)'),
        ("!" * 40 + "true", "nested deeper than 32 (at character 33)"),
        ("(" * 40 + "true" + ")" * 40, "nested deeper than 32"),
        ("true " * 300, "longer than 1000 characters"),
    ],
)
def test_what_is_refused_and_where(text: str, message: str) -> None:
    with pytest.raises(ConditionError) as refused:
        parse_condition(text)
    assert message in str(refused.value)


def two(lines: str, params: str = "{}") -> str:
    return f"name: w\nparams: {params}\njobs:\n  - {{name: a, service: s}}\n  - name: b\n    service: s\n    {lines}\n"


def test_a_condition_is_refused_with_the_place_where_it_stands() -> None:
    problem = only_problem(two("needs: [a]\n    when: jobs.a.status == 3"))
    assert (problem.reason.text, problem.field) == ("bad_expression", "jobs[1].when")
    assert (problem.line, problem.column) == (8, 11)


@pytest.mark.parametrize(
    ("lines", "reason", "field"),
    [
        ("when: params.x == 'y'", "unknown_param", "jobs[1].when"),
        ("when: params.n > 3", "bad_expression", "jobs[1].when"),
        ("when: failure()", "bad_expression", "jobs[1].when"),
        ("needs: [a]\n    when: jobs.c.status == 'failed'", "unknown_job", "jobs[1].when"),
        ("needs: [aa]", "unknown_job", "jobs[1].needs[0]"),
        ("needs: [b]", "self_reference", "jobs[1].needs[0]"),
        ("queue_timeout: soon", "bad_duration", "jobs[1].queue_timeout"),
        ("start_timeout: 0", "bad_duration", "jobs[1].start_timeout"),
        ("transfer_timeout: 400d", "bad_duration", "jobs[1].transfer_timeout"),
        ("retry: {jitter: 1.5}", "out_of_range", "jobs[1].retry.jitter"),
        ("retry: {exit_codes: [0]}", "bad_exit_codes", "jobs[1].retry.exit_codes[0]"),
        ("retry: {exit_codes: [3, 9-4]}", "bad_exit_codes", "jobs[1].retry.exit_codes[1]"),
        ("retry: {exit_codes: [256]}", "bad_exit_codes", "jobs[1].retry.exit_codes[0]"),
        ("retry: {exit_codes: [3], on: [timeout]}", "bad_value", "jobs[1].retry.exit_codes"),
        ("continue_on_failure: perhaps", "wrong_type", "jobs[1].continue_on_failure"),
    ],
)
def test_what_is_wrong_with_a_control(lines: str, reason: str, field: str) -> None:
    problem = only_problem(two(lines, "{n: many}"))
    assert (problem.reason.text, problem.field) == (reason, field)
    assert problem.line >= 7


MATRIX = "name: w\njobs:\n  - {name: a, service: s, matrix: [{name: x, values: [p, q]}]}\n  - name: b\n    service: s\n"


def test_who_needs_a_matrix_needs_every_instance() -> None:
    plain = expanded(valid(MATRIX + "    needs: [a]\n    when: failure()\n"))
    assert [(job.name, list(job.needs)) for job in plain.jobs] == [("a.0", []), ("a.1", []), ("b", ["a.0", "a.1"])]


def test_a_matrix_has_no_end_of_its_own_to_ask_for() -> None:
    problem = only_problem(MATRIX + "    needs: [a]\n    when: jobs.a.status == 'failed'\n")
    assert (problem.reason.text, problem.field) == ("bad_expression", "jobs[1].when")


def test_a_cycle_may_go_through_needs() -> None:
    text = "name: w\njobs:\n  - {name: a, service: s, needs: [b]}\n  - {name: b, service: s, inputs: [{from: a}]}\n"
    problem = only_problem(text)
    assert problem.reason.text == "cycle" and problem.field == "jobs[0].needs[0]"


def test_the_controls_leave_the_digest_of_older_definitions_alone() -> None:
    assert read(job_with("timeout: 5s")).digest.hex()[:16] == "d09176b5b42efef3"
    with_default = read(job_with("timeout: 5s\ncontinue_on_failure: false"))
    assert with_default.digest.hex()[:16] == "d09176b5b42efef3"


def test_a_parameter_that_is_compared_with_a_number_must_be_one() -> None:
    definition = valid(two("when: params.n > 3", '{n: ""}'))
    assert run_params(definition, {"n": "4"}) == {"n": "4"}
    for given in ({}, {"n": "four"}):
        with pytest.raises(PeerdError) as refused:
            run_params(definition, given)
        assert refused.value.violations[0].field == "params.n"
