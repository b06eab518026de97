"""Parameters with types, the examples of this, and definitions of the first release, on real daemons."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from peerd.client import Client
from peerd.v1 import workflows_pb2

from .fleet import Fleet, run_async
from .workflow import Run, tree

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap")

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "parameters.yaml"
CORPUS = ROOT / "tests" / "workflows_definition" / "corpus"
KEY = "a-key-for-signing"


@pytest.fixture(scope="module")
def one() -> Iterator[Fleet]:
    """A mesh of one, which takes its own commands and has a secret of its own."""
    fleet = Fleet(["c"])
    try:
        fleet.found()
        c = fleet["c"]
        c.kill()
        (fleet.folder / "key").write_text(KEY + "\n")
        c.configure(
            f"\n[jobs]\nallow_commands_from = ['{c.peer_id}']\n[secrets.signing-key]\nfile = '{fleet.folder}/key'\n"
        )
        c.start()
        yield fleet
    finally:
        fleet.close()


def run(fleet: Fleet, what: str, *params: str) -> Run:
    arguments = [argument for param in params for argument in ("--param", param)]
    answer = fleet["c"].json("workflows", "run", what, *arguments)
    return Run(fleet, fleet["c"], int(answer["workflow_execution_id"]))


def test_the_example_runs_with_normal_forms(one: Fleet) -> None:
    done = run(one, str(EXAMPLE), "greeting=hi", "times=02", "names=Ada, Alan", "tone=loud", "pause=0.001s")
    assert done.wait() == "COMPLETED", done.explain()
    assert list(tree(done.home).values()) == ["HI, ADA!\nHI, ADA!\nHI, ALAN!\nHI, ALAN!\n"]


def test_what_is_not_allowed_is_refused_by_name_before_anything_runs(one: Fleet) -> None:
    before = one["c"].json("executions", "list")
    refused = one["c"].peerctl("workflows", "run", str(EXAMPLE), "--param", "times=10", "--param", "tone=lou", code=2)
    assert "params.greeting: must be given: a value of type text (What is said)" in refused.stderr
    assert "params.times: '10' is not from 1 to 9" in refused.stderr
    assert "params.tone: 'lou' is not one of plain, loud; did you mean 'loud'?" in refused.stderr
    assert "reason: invalid_argument" in refused.stderr
    assert one["c"].json("executions", "list") == before


def test_show_lists_the_parameters_of_a_stored_workflow(one: Fleet) -> None:
    one["c"].peerctl("workflows", "put", str(EXAMPLE))
    rows = [line.split() for line in one["c"].peerctl("workflows", "show", "parameters").stdout.splitlines()]
    assert ["times", "integer", "1", "1..9", "How", "often"] in rows
    assert ["tone", "choice", "plain", "plain,", "loud"] in rows
    assert any(row[:3] == ["greeting", "text", "(required)"] for row in rows)
    assert run(one, "parameters", "greeting=hello").wait() == "COMPLETED"


def test_the_example_of_secrets_runs(one: Fleet) -> None:
    done = run(one, str(ROOT / "examples" / "secrets.yaml"))
    assert done.wait() == "COMPLETED", done.explain()
    assert len("".join(tree(done.home).values()).strip()) == 64
    assert one["c"].peerctl("logs", str(done.id), "sign").stdout == "signed with ***\n"


def test_a_definition_of_the_first_release_still_runs_as_text_and_as_it_was_stored(one: Fleet) -> None:
    frozen = json.loads((CORPUS / "stored.json").read_text())["running"]
    stored = workflows_pb2.WorkflowDefinition.FromString(base64.b64decode(frozen["stored"]))

    async def put_and_run() -> int:
        async with Client(socket=one["c"].socket) as peerd:
            workflow = await peerd.put_workflow(workflows_pb2.DefinitionSource(definition=stored))
            assert workflow.digest.hex() == frozen["digest"]
            return int((await peerd.run(workflow=workflow.name, params={"what": "moon"})).workflow_execution_id)

    from_text = run(one, str(CORPUS / "running.yaml"), "what=moon")
    as_stored = Run(one, one["c"], run_async(put_and_run()))
    for done in (from_text, as_stored):
        assert done.wait() == "COMPLETED", done.explain()
        assert tree(done.home) == {"read/stdout.txt": "hello moon\nend\n", "made/kept.txt": "kept\n"}


def test_a_later_version_of_the_language_is_refused(one: Fleet) -> None:
    file = one.folder / "later.yaml"
    file.write_text("name: later\napi_version: 2\njobs: [{name: a, run: {argv: ['true']}, new_field: x}]\n")
    refused = one["c"].peerctl("workflows", "run", str(file), code=1)
    assert "definition_too_new" in refused.stderr
    assert "later.yaml:2:14" in refused.stderr
    assert "update peerd" in refused.stderr
    assert "new_field" not in refused.stderr
