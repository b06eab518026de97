"""Workflows built in Python are the message that YAML gives, and are refused as YAML is."""

from __future__ import annotations

import importlib.util
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf.json_format import MessageToDict
from hypothesis import HealthCheck, given, settings

from peerd.client import Workflow
from peerd.errors import PeerdError, Reason
from peerd.v1 import workflows_pb2
from peerd.workflows.definition import accept_definition, read_definition
from tests.workflows_definition.test_round_trip import definitions

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
REFERENCE = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "workflows.md").read_text(), re.DOTALL)
DOCS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)


def rebuilt(definition: workflows_pb2.WorkflowDefinition) -> Workflow:
    """The same definition made call by call."""
    content: dict[str, Any] = MessageToDict(definition, preserving_proto_field_name=True)
    jobs, deliveries = content.pop("jobs", []), content.pop("deliver", [])
    wf = Workflow(content.pop("name"), **content)
    for job in jobs:
        wf.job(job.pop("name"), **job)
    for delivery in deliveries:
        wf.deliver(delivery)
    return wf


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_survives_python_and_yaml(path: Path) -> None:
    wf = Workflow.from_file(path)
    assert rebuilt(wf.definition).definition == wf.definition
    again = Workflow.from_yaml(wf.to_yaml())
    assert again.definition == wf.definition
    assert accept_definition(again.source).digest == accept_definition(wf.source).digest
    if "source:" not in path.read_text():
        text = workflows_pb2.DefinitionSource(text=path.read_text())
        assert accept_definition(text).digest == accept_definition(wf.source).digest


@pytest.mark.parametrize("text", REFERENCE)
def test_a_definition_of_the_reference_survives(text: str) -> None:
    wf = Workflow.from_yaml(text)
    assert rebuilt(wf.definition).definition == Workflow.from_yaml(wf.to_yaml()).definition == wf.definition


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(definitions())
def test_any_definition_survives(meant: workflows_pb2.WorkflowDefinition) -> None:
    wf = Workflow.from_definition(meant)
    assert Workflow.from_yaml(wf.to_yaml()).definition == meant
    assert rebuilt(meant).definition == meant


def test_what_is_built_is_what_the_same_yaml_says() -> None:
    wf = Workflow("count", description="d", params={"top": 15})
    make = wf.job("make", run=["make", "all"], on={"role": "worker"}, timeout=timedelta(minutes=2), package={"a": "b"})
    count = wf.job(
        "count",
        service="counter",
        inputs=[
            make.stdout.into("stdin"),
            (make.output / "t").into(to="t", files=["*.c"], optional=True),
            {"from": "make.mounts/x", "to": "m"},
        ],
        retry={"attempts": 3, "on": ["exit"]},
        resources={"cpus": 0.5},
        env={"QUIET": True},
    )
    wf.job("last", service="s", inputs=["count.stderr"])
    wf.deliver(count, to="home", rename="x.txt")
    wf.deliver(make.mount("log"), to="log")
    text = """
name: count
description: d
params: {top: 15}
jobs:
  - {name: make, run: {argv: [make, all]}, on: {role: worker}, timeout: 120.000s, package: [{path: a, text: b}]}
  - name: count
    service: counter
    inputs:
      - {from: make.stdout, into: stdin}
      - {from: make.output/t, into: input, to: t, files: ["*.c"], optional: true}
      - {from: make.mounts/x, to: m}
    retry: {attempts: 3, on: [exit]}
    resources: {cpus: 0.5}
    env: {QUIET: "true"}
  - {name: last, service: s, inputs: [{from: count.stderr}]}
deliver:
  - {from: count, to: home, rename: x.txt}
  - {from: make.mounts/log, to: log}
"""
    assert wf.definition == Workflow.from_yaml(text).definition
    assert [job.name for job in wf] == ["make", "count", "last"]
    assert wf["count"].definition.service == "counter"
    with pytest.raises(KeyError):
        wf["nothing"]


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"timout": "5m"}, "jobs[1].timout", "did you mean 'timeout'"),
        ({"retry": {"attempts": "many"}}, "jobs[1].retry.attempts", "a whole number"),
        ({"inputs": [{"from": "a", "inot": "stdin"}]}, "jobs[1].inputs[0].inot", "did you mean 'into'"),
        ({"run": "echo hi"}, "jobs[1].run", "the fields of a command"),
        ({"run": ["x"], "service": "y", "env": [1]}, "jobs[1].env", "names with values"),
    ],
)
def test_what_no_file_could_say_is_refused_where_it_is_written(fields: Any, field: str, words: str) -> None:
    wf = Workflow("w")
    wf.job("first", service="s")
    with pytest.raises(PeerdError) as caught:
        wf.job("second", **fields)
    assert caught.value.reason is Reason.INVALID_DEFINITION
    assert caught.value.violations[0].field == field
    assert words in f"{caught.value.message} {caught.value.next_action}"
    assert len(wf.definition.jobs) == 1


def test_values_that_are_none_are_absent_and_others_refused() -> None:
    wf = Workflow("w", description=None)
    wf.job("a", service="s", timeout=None, on=None)
    assert wf.definition == Workflow.from_yaml("name: w\njobs: [{name: a, service: s}]").definition
    with pytest.raises(PeerdError, match="object has no place"):
        wf.job("b", service=object())


def test_a_bad_definition_is_refused_as_a_daemon_does() -> None:
    wf = Workflow("bad")
    wf.job("a", service="s", inputs=["b", {"from": "a", "files": ["../*"]}], timeout="soon")
    said = read_definition(wf.source).problems
    assert {problem.reason.text for problem in said} == {
        "unknown_job", "self_reference", "bad_pattern", "bad_duration",
    }  # fmt: skip
    assert wf.problems() == [problem.to_proto() for problem in said]
    with pytest.raises(PeerdError) as caught:
        wf.check()
    assert [violation.field for violation in caught.value.violations] == [problem.field for problem in said]
    with pytest.raises(PeerdError, match=r"bad\.yaml:2:"):
        Workflow.from_yaml("name: w\njobs: x", file_name="bad.yaml")


def test_package_files_come_with_a_definition_file_and_from_paths(tmp_path: Path) -> None:
    (tmp_path / "tool.sh").write_text("exit 0\n")
    (tmp_path / "tool.sh").chmod(0o755)
    (tmp_path / "w.yaml").write_text("name: w\njobs: [{name: a, service: s, package: [{path: p, source: tool.sh}]}]")
    assert Workflow.from_file(tmp_path / "w.yaml").definition.jobs[0].package[0].content == b"exit 0\n"
    wf = Workflow("w")
    wf.job("a", service="s", package={"bin/tool": tmp_path / "tool.sh", "raw": b"\xff"})
    first, second = wf.definition.jobs[0].package
    assert (first.path, first.content, first.executable) == ("bin/tool", b"exit 0\n", True)
    assert (second.content, second.executable) == (b"\xff", False)
    wf.to_file(tmp_path / "again.yaml")
    assert Workflow.from_file(tmp_path / "again.yaml").definition == wf.definition


def test_the_yaml_reads_like_one_written_by_hand() -> None:
    wf = Workflow("w")
    wf.job("a", run=["echo", "no"], on={"role": "worker"})
    assert yaml.safe_load(wf.to_yaml()) == {
        "name": "w",
        "jobs": [{"name": "a", "on": {"role": "worker"}, "run": {"argv": ["echo", "no"]}}],
    }


# For notebooks


def test_a_workflow_shows_itself_with_its_graph_or_what_is_wrong() -> None:
    wf = Workflow("w")
    a = wf.job("a", run=["echo", "<b>|*x*"])
    wf.job("b", service="s", inputs=[a.stdout.into("stdin")])
    markdown, html = wf._repr_markdown_(), wf._repr_html_()
    assert '```mermaid\nflowchart LR\n    n0["a"]' in markdown
    assert "| a | echo &#60;b&#62;&#124;&#42;x&#42; |" in markdown
    assert "<td>echo &lt;b&gt;|*x*</td>" in html and '<pre class="mermaid">' in html
    wf.job("c", service="s", inputs=["nobody"])
    assert "mermaid" not in wf._repr_html_() and "there is no job &#x27;nobody&#x27;" in wf._repr_html_()


@pytest.mark.parametrize("code", DOCS)
def test_python_in_the_documentation_compiles_and_builds(code: str) -> None:
    space: dict[str, Any] = {}
    if "Client" not in code:
        exec(compile(code, "docs/python.md", "exec"), space)
        for made in space.values():
            if isinstance(made, Workflow):
                made.check()
    else:
        compile(code, "docs/python.md", "exec", flags=0x2000)  # top-level await


@pytest.mark.parametrize("name", ["letters", "squares"])
def test_python_examples_build_sound_definitions(name: str) -> None:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    wf = module.letters() if name == "letters" else module.squares(range(3))
    wf.check()
    assert Workflow.from_yaml(wf.to_yaml()).definition == wf.definition


def test_a_map_takes_an_output_or_the_fields_of_a_file() -> None:
    wf = Workflow("over")
    pages = wf.job("pages", service="s")
    wf.job("one", service="s", map=pages.output / "list.json", max_parallel=3)
    wf.job("two", service="s", map={"from": pages.stdout, "as": "page"})
    wf.job("three", service="s", map={"from": "pages"})
    found = [(getattr(job.map, "from"), getattr(job.map, "as")) for job in wf.definition.jobs[1:]]
    assert found == [("pages.output/list.json", ""), ("pages.stdout", "page"), ("pages", "")]
    assert wf.definition.jobs[1].max_parallel == 3
    wf.check()
