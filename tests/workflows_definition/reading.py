"""Short ways to read a definition in tests."""

from __future__ import annotations

from textwrap import dedent

from peerd.v1 import workflows_pb2
from peerd.workflows.definition import Reading, read_definition
from peerd.workflows.problems import Problem


def read(text: str) -> Reading:
    """What the daemon makes of a text; indentation of the test is removed."""
    return read_definition(workflows_pb2.DefinitionSource(text=dedent(text)))


def valid(text: str) -> workflows_pb2.WorkflowDefinition:
    """The definition in a text that must be right."""
    reading = read(text)
    assert reading.definition is not None, [(problem.field, problem.message) for problem in reading.problems]
    return reading.definition


def only_problem(text: str) -> Problem:
    """The one problem of a text that has exactly one."""
    problems = read(text).problems
    assert len(problems) == 1, [(problem.field, problem.reason.text, problem.message) for problem in problems]
    return problems[0]


def job_with(lines: str) -> str:
    """A workflow of one job ``a`` of service ``s``, with these lines in it, which begin at line 5."""
    indented = "\n".join("    " + line for line in dedent(lines).strip("\n").split("\n"))
    return f"name: w\njobs:\n  - name: a\n    service: s\n{indented}\n"
