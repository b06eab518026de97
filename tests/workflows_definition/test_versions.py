"""Definitions of earlier releases keep their digests, their bytes and their meaning; later ones are refused."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from peerd.digest import digest
from peerd.v1 import workflows_pb2
from peerd.workflows.definition import decode_stored, read_definition
from peerd.workflows.problems import ProblemReason
from peerd.workflows.versions import LATEST, version_of

from .reading import only_problem, read, valid

CORPUS = Path(__file__).parent / "corpus"
# What the first release stored for each file, never to be written anew.
FROZEN = json.loads((CORPUS / "stored.json").read_text())
SMALL = "name: w\njobs: [{name: a, service: s}]\n"


def test_every_file_of_the_corpus_was_frozen() -> None:
    assert {path.stem for path in CORPUS.glob("*.yaml")} == set(FROZEN)


@pytest.mark.parametrize("name", sorted(FROZEN))
def test_an_old_text_is_read_as_it_always_was(name: str) -> None:
    text = (CORPUS / f"{name}.yaml").read_text()
    reading = read_definition(workflows_pb2.DefinitionSource(text=text))
    assert reading.problems == ()
    assert reading.encoded == base64.b64decode(FROZEN[name]["stored"])
    assert reading.digest.hex() == FROZEN[name]["digest"]


@pytest.mark.parametrize("name", sorted(FROZEN))
def test_what_an_old_release_stored_is_still_valid_and_of_the_first_version(name: str) -> None:
    stored = base64.b64decode(FROZEN[name]["stored"])
    assert digest(stored).hex() == FROZEN[name]["digest"]
    definition = decode_stored(stored)
    assert version_of(definition) == 1
    reading = read_definition(workflows_pb2.DefinitionSource(definition=definition))
    assert reading.problems == ()
    assert reading.digest.hex() == FROZEN[name]["digest"]


def test_a_definition_may_say_its_version() -> None:
    assert version_of(valid(f"api_version: {LATEST}\n" + SMALL)) == LATEST
    assert read(f"apiVersion: {LATEST}\n" + SMALL).problems == ()


@pytest.mark.parametrize("rest", [SMALL, SMALL + "brand_new: [1]\n", "jobs: later\n"])
def test_a_later_version_is_refused_for_that_alone(rest: str) -> None:
    problem = only_problem(f"api_version: {LATEST + 1}\n" + rest)
    assert problem.reason is ProblemReason.DEFINITION_TOO_NEW
    assert (problem.field, problem.line) == ("api_version", 1)
    assert "update peerd" in problem.to_proto().next_action


def test_a_message_of_a_later_version_is_refused_for_that_alone() -> None:
    message = workflows_pb2.WorkflowDefinition(api_version=LATEST + 1)
    (problem,) = read_definition(workflows_pb2.DefinitionSource(definition=message)).problems
    assert problem.reason is ProblemReason.DEFINITION_TOO_NEW


@pytest.mark.parametrize(("text", "reason"), [("0", "out_of_range"), ("new", "wrong_type"), ("1.0", "wrong_type")])
def test_a_version_is_a_whole_number_from_1(text: str, reason: str) -> None:
    assert only_problem(f"api_version: {text}\n" + SMALL).reason.text == reason
