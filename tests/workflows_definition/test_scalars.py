"""What YAML would make of a word does not matter: the field decides."""

from __future__ import annotations

import base64

import pytest

from peerd.v1 import workflows_pb2

from .reading import job_with, read, valid


@pytest.mark.parametrize(
    "written", ["no", "yes", "on", "off", "true", "1.10", "007", "0x1F", "1e3", "2026-11-21", "12:30:45", "1_000", ".5"]
)
def test_a_scalar_for_a_text_field_is_taken_as_written(written: str) -> None:
    definition = valid(job_with(f"params: {{x: {written}}}\ndescription: {written}"))
    assert definition.jobs[0].params["x"] == written
    assert definition.jobs[0].description == written


def test_on_is_a_field_and_not_true() -> None:
    definition = valid(job_with("on: {peer: alpha, role: worker, labels: [gpu, no], group: y}"))
    assert definition.jobs[0].on == workflows_pb2.Placement(
        peer="alpha", role="worker", labels=["gpu", "no"], group="y"
    )


def test_keys_are_text_too() -> None:
    assert dict(valid(job_with("params: {1: a, no: b}")).jobs[0].params) == {"1": "a", "no": "b"}


def test_a_bare_number_is_a_duration_in_seconds() -> None:
    assert valid(job_with("timeout: 90")).jobs[0].timeout == "90"


def test_numbers_in_json_are_taken_as_written() -> None:
    definition = valid('{"name": "w", "params": {"v": 1.10}, "jobs": [{"name": "a", "service": "s", "timeout": 90}]}')
    assert definition.params["v"] == "1.10"
    assert definition.jobs[0].timeout == "90"


@pytest.mark.parametrize("nothing", ["", " ~", " null"])
def test_null_is_an_absent_field(nothing: str) -> None:
    job = valid(job_with(f"retry:{nothing}\ndescription:{nothing}\ninputs:{nothing}")).jobs[0]
    assert not job.HasField("retry")
    assert job.description == ""


def test_quoted_null_and_empty_text_are_text() -> None:
    assert dict(valid(job_with("env: {A: 'null', B: ''}")).jobs[0].env) == {"A": "null", "B": ""}


def test_both_spellings_of_a_field_are_known() -> None:
    job = valid(job_with("executionConstraint: none\npartition_policy: stop\nretry: {maxBackoff: 1m}")).jobs[0]
    assert (job.execution_constraint, job.partition_policy, job.retry.max_backoff) == ("none", "stop", "1m")


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("padding", [True, False])
def test_bytes_are_base64_of_either_alphabet(encode: object, padding: bool) -> None:
    assert callable(encode)
    text = encode(b"\xfb\xff\x00").decode() if padding else encode(b"\xfb\xff\x00\x01").decode().rstrip("=")
    content = valid(job_with(f'package: [{{path: x, content: "{text}"}}]')).jobs[0].package[0].content
    assert content == (b"\xfb\xff\x00" if padding else b"\xfb\xff\x00\x01")


@pytest.mark.parametrize(("written", "meant"), [("true", True), ("True", True), ("false", False)])
def test_truth_values(written: str, meant: bool) -> None:
    job = valid(job_with(f"package: [{{path: x, text: y, executable: {written}}}]")).jobs[0]
    assert job.package[0].executable is meant


def test_json_is_read_as_json_and_flow_yaml_as_yaml() -> None:
    emoji = valid('{"name": "w", "description": "\\ud83d\\ude00\\/", "jobs": [{"name": "a", "service": "s"}]}')
    assert emoji.description == "\U0001f600/"
    tabs = valid('{\n\t"name": "w",\n\t"jobs": [\n\t\t{"name": "a", "service": "s"}]\n}')
    assert valid("{name: w, jobs: [{name: a, service: s}]}") == tabs
    assert valid('\ufeff{"name": "w", "jobs": [{"name": "a", "service": "s"}]}') == tabs


def test_a_block_of_text_keeps_its_lines() -> None:
    job = valid(
        job_with("package:\n  - path: x.sh\n    text: |\n      #!/bin/sh\n      echo hi\n    executable: true")
    ).jobs[0]
    assert job.package[0].text == "#!/bin/sh\necho hi\n"


def test_layout_does_not_change_the_digest_and_content_does() -> None:
    yaml = read("name: w # a comment\njobs:\n- service: s\n  name: a\n  params: {b: 1, a: 2}\n")
    json = read('{"jobs": [{"name": "a", "params": {"a": "2", "b": "1"}, "service": "s"}], "name": "w"}')
    other = read("name: w\njobs: [{name: a, service: s, params: {a: 2, b: 2}}]\n")
    assert len(yaml.digest) == 32
    assert yaml.digest == json.digest
    assert yaml.encoded == json.encoded
    assert yaml.digest != other.digest
