"""Definition files: what is sent, and how problems are shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from peerd.cli.definition_file import read_declaration, read_definition
from peerd.client.definition_file import MAX_PACKAGE_BYTES
from peerd.errors import PeerdError, Reason
from peerd.v1 import catalog_pb2, workflows_pb2
from tests.cli.conftest import Peerctl
from tests.cli.fake_daemon import FakeDaemon, refusing

PROBLEM = workflows_pb2.Problem(
    reason="unknown_job",
    message="there is no job splitt",
    field="jobs[1].inputs[0].from",
    line=12,
    column=15,
    next_action="name a job of this workflow",
)


def test_problems_are_shown_with_file_line_and_column(peerctl: Peerctl, daemon: FakeDaemon, tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text("name: broken\n")
    daemon.on("WorkflowService.ValidateWorkflow", workflows_pb2.ValidateWorkflowResponse(problems=[PROBLEM]))
    outcome = peerctl("workflows", "validate", file)
    assert outcome.exit_code == 1
    assert outcome.out.splitlines() == [
        f"{file}:12:15: unknown_job: there is no job splitt (jobs[1].inputs[0].from)",
        "    next: name a job of this workflow",
    ]


@pytest.mark.parametrize("verb", ["run", "put", "plan"])
def test_a_definition_that_is_refused_is_explained_by_line(
    peerctl: Peerctl, daemon: FakeDaemon, tmp_path: Path, verb: str
) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text("name: broken\n")
    for method in ("RunWorkflow", "PutWorkflow", "PlanWorkflow"):
        daemon.on(
            f"WorkflowService.{method}", refusing(Reason.INVALID_DEFINITION, "1 problem", fields={"jobs[1]": "no"})
        )
    daemon.on("WorkflowService.ValidateWorkflow", workflows_pb2.ValidateWorkflowResponse(problems=[PROBLEM]))
    outcome = peerctl("workflows", verb, file)
    assert outcome.exit_code == 1
    assert outcome.out == ""
    assert outcome.err.startswith(f"{file}:12:15: unknown_job: there is no job splitt")
    assert "reason: invalid_definition" in outcome.err
    assert "  jobs[1]: no" not in outcome.err  # said once is enough


def test_a_sound_file_says_so(peerctl: Peerctl, daemon: FakeDaemon, tmp_path: Path) -> None:
    file = tmp_path / "fine.yaml"
    file.write_text("name: fine\n")
    definition = workflows_pb2.WorkflowDefinition(name="fine", jobs=[workflows_pb2.JobDefinition(name="only")])
    daemon.on("WorkflowService.ValidateWorkflow", workflows_pb2.ValidateWorkflowResponse(definition=definition))
    outcome = peerctl("workflows", "validate", file)
    assert outcome.exit_code == 0
    assert outcome.out == f"{file}: fine is sound: 1 job\n"


def test_run_sends_a_file_as_its_text_and_a_name_as_a_name(
    peerctl: Peerctl, daemon: FakeDaemon, tmp_path: Path
) -> None:
    file = tmp_path / "w.yaml"
    text = "name: w  # a comment that stays\njobs: []\n"
    file.write_text(text)
    daemon.on("WorkflowService.RunWorkflow", workflows_pb2.RunWorkflowResponse(workflow_execution_id=7))
    outcome = peerctl("workflows", "run", file, "--param", "a=1", "--param", "b=x=y")
    assert outcome.out == "7\n"
    peerctl("workflows", "run", "word-count")
    from_file, by_name = daemon.requests("WorkflowService.RunWorkflow")
    assert from_file.source.text == text
    assert from_file.source.file_name == "w.yaml"
    assert dict(from_file.params) == {"a": "1", "b": "x=y"}
    assert by_name.workflow == "word-count"


def test_a_plan_that_leaves_a_job_without_a_peer_is_exit_code_1(
    peerctl: Peerctl, daemon: FakeDaemon, tmp_path: Path
) -> None:
    file = tmp_path / "w.yaml"
    file.write_text("name: w\n")
    refusal = workflows_pb2.Refusal(
        peer_name="beta", reason="service_not_found", message="offers no counter", next_action="add it on beta"
    )
    plan = workflows_pb2.PlanWorkflowResponse(
        jobs=[
            workflows_pb2.JobPlan(node_id="texts", peer_id="a" * 52, peer_name="alpha"),
            workflows_pb2.JobPlan(node_id="count", refusals=[refusal]),
        ],
        edges=[
            workflows_pb2.PlannedEdge(
                edge_id=1,
                source_node_id="texts",
                source_kind=catalog_pb2.INTERFACE_KIND_MOUNT,
                source_path="left",
                destination_node_id="count",
                destination_kind=catalog_pb2.INTERFACE_KIND_STDIN,
            )
        ],
    )
    daemon.on("WorkflowService.PlanWorkflow", plan)
    outcome = peerctl("workflows", "plan", file)
    assert outcome.exit_code == 1
    assert "count not on beta: service_not_found: offers no counter" in outcome.out
    assert "next: add it on beta" in outcome.out
    assert "1: texts.mounts/left -> count.stdin" in outcome.out


YAML_WITH_PACKAGE = """\
name: packaged
params:
  source: not a package file
jobs:
  - name: one
    package:
      - {path: run.sh, source: run.sh, executable: true}
      - path: data.bin
        source: "sub/data.bin"   # after it
    service: s
"""


def sources(tmp_path: Path) -> dict[str, bytes]:
    files = {"run.sh": b"#!/bin/sh\necho hi\n", "sub/data.bin": bytes(range(256))}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return files


@pytest.mark.parametrize("as_json", [False, True])
def test_package_files_beside_the_definition_become_content_on_the_same_lines(tmp_path: Path, as_json: bool) -> None:
    files = sources(tmp_path)
    text = json.dumps(yaml.safe_load(YAML_WITH_PACKAGE), indent=1) if as_json else YAML_WITH_PACKAGE
    (tmp_path / "w.yaml").write_text(text)
    sent = read_definition(tmp_path / "w.yaml").text
    content = json.loads(sent) if as_json else yaml.safe_load(sent)
    from google.protobuf.json_format import ParseDict

    definition = ParseDict(content, workflows_pb2.WorkflowDefinition())
    package = definition.jobs[0].package
    assert [file.content for file in package] == list(files.values())
    assert package[0].executable
    assert definition.params["source"] == "not a package file"
    assert len(sent.splitlines()) == len(text.splitlines())
    assert as_json or "# after it" in sent


def test_a_missing_package_file_is_named_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text(YAML_WITH_PACKAGE)
    (tmp_path / "run.sh").write_text("")
    with pytest.raises(PeerdError, match=r"w\.yaml:9:17: cannot read the package file .*data\.bin") as caught:
        read_definition(tmp_path / "w.yaml")
    assert caught.value.reason is Reason.INVALID_DEFINITION


def test_a_directory_or_pipe_is_no_package_file(tmp_path: Path) -> None:
    sources(tmp_path)
    (tmp_path / "run.sh").unlink()
    (tmp_path / "run.sh").mkdir()
    (tmp_path / "w.yaml").write_text(YAML_WITH_PACKAGE)
    with pytest.raises(PeerdError, match=r"w\.yaml:7:32"):
        read_definition(tmp_path / "w.yaml")


def test_package_files_have_a_limit(tmp_path: Path) -> None:
    sources(tmp_path)
    (tmp_path / "run.sh").write_bytes(bytes(MAX_PACKAGE_BYTES))
    (tmp_path / "w.yaml").write_text(YAML_WITH_PACKAGE)
    with pytest.raises(PeerdError) as caught:
        read_definition(tmp_path / "w.yaml")
    assert caught.value.reason is Reason.TOO_LARGE


@pytest.mark.parametrize(
    "text", ["jobs: [{package: [{source: ", "? [a]\n: source: x\n", "source: a\n" * 3, "- source: x\n- [source: y]\n"]
)
def test_what_is_no_definition_is_left_for_the_daemon_to_explain(tmp_path: Path, text: str) -> None:
    (tmp_path / "w.yaml").write_text(text)
    assert read_definition(tmp_path / "w.yaml").text == text


def test_a_declaration_is_read_from_json_and_yaml(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"name": "texts", "kind": "SERVICE_KIND_DATA", "path": "/srv/texts"}')
    (tmp_path / "s.yaml").write_text("name: texts\nkind: SERVICE_KIND_DATA\npath: /srv/texts\n")
    assert read_declaration(tmp_path / "s.json") == read_declaration(tmp_path / "s.yaml")


@pytest.mark.parametrize("text", ["[]", "name: [", '{"name": "x", "colour": "red"}', '{"kind": "NO_SUCH_KIND"}'])
def test_a_faulty_declaration_is_refused_with_the_file_and_the_fault(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(PeerdError, match=r"s\.json is not a service declaration: .+"):
        read_declaration(tmp_path / "s.json")
