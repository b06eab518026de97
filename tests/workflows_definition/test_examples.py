"""The examples and the reference are right: every definition in them is valid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from peerd.v1 import workflows_pb2
from peerd.workflows.definition import read_definition
from peerd.workflows.problems import ProblemReason

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
REFERENCE = ROOT / "docs" / "workflows.md"
BLOCKS = re.findall(r"```yaml\n(.*?)```", REFERENCE.read_text(), re.DOTALL)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_valid(path: Path) -> None:
    # Package files named by source are filled in by peerctl.
    problems = read_definition(workflows_pb2.DefinitionSource(text=path.read_text())).problems
    assert [problem for problem in problems if problem.reason is not ProblemReason.UNRESOLVED_SOURCE] == []


@pytest.mark.parametrize("text", BLOCKS)
def test_a_definition_in_the_reference_is_valid(text: str) -> None:
    assert read_definition(workflows_pb2.DefinitionSource(text=text)).problems == ()


def test_the_reference_names_every_field_and_every_reason() -> None:
    text = REFERENCE.read_text()
    messages = [workflows_pb2.WorkflowDefinition.DESCRIPTOR]
    while messages:
        for field in messages.pop().fields:
            assert f"`{field.name}`" in text, field.full_name
            if field.message_type is not None and not field.message_type.GetOptions().map_entry:
                messages.append(field.message_type)
    assert [reason.text for reason in ProblemReason if f"`{reason.text}`" not in text] == []


def test_the_reference_and_the_examples_are_there() -> None:
    assert len(BLOCKS) >= 2
    assert len(EXAMPLES) >= 2
