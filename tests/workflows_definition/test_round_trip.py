"""Any valid definition survives being written as JSON or YAML and read again."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from google.protobuf.json_format import MessageToDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peerd.v1 import workflows_pb2
from peerd.workflows.definition import decode_stored, read_definition
from peerd.workflows.edges import edges_of

# The constructors take dicts for messages, which their stubs do not say.
make_job: Any = workflows_pb2.JobDefinition
make_workflow: Callable[..., workflows_pb2.WorkflowDefinition] = workflows_pb2.WorkflowDefinition

# Words that YAML 1.1 takes for something else, and characters that need care.
WORDS = st.sampled_from(
    [
        "no",
        "on",
        "null",
        "~",
        "1.10",
        "",
        " x ",
        "a: b",
        "- a",
        "#c",
        "\xe9\u2028",
        "'",
        '"',
        "\U0001f600",
        "a\nb",
        "\t",
        "\\",
        "|",
        "&a",
        "*a",
        "!t",
        "<<",
        "=",
        "%a",
        "@",
        "`",
    ]
)
TEXTS = WORDS | st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="$\ufeff\ufffe\uffff"), max_size=20
)
NAMES = st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_-]{0,10}\Z")
DURATIONS = st.sampled_from(["", "90s", "10m", "1h30m", "1.5s", "250ms", "2d", "90"])

PARAMETERS = st.sampled_from(["text", "", "list"]).flatmap(
    lambda kind: st.fixed_dictionaries(
        {"type": st.just(kind), "description": TEXTS},
        optional={"pattern": st.just("(?s).*"), "min": st.just("0"), "max": st.just("99")},
    )
) | st.fixed_dictionaries(
    {"type": st.sampled_from(["integer", "number", "duration", "size"])},
    optional={"default": st.just("7"), "required": st.just(False), "min": st.just("1")},
)


@st.composite
def definitions(draw: st.DrawFn) -> workflows_pb2.WorkflowDefinition:
    names = draw(st.lists(NAMES, min_size=1, max_size=6, unique_by=str.casefold))
    params = draw(st.dictionaries(NAMES, TEXTS, max_size=3))
    jobs = []
    for index, name in enumerate(names):
        work: dict[str, Any] = draw(
            st.fixed_dictionaries({"service": NAMES, "params": st.dictionaries(NAMES, TEXTS, max_size=2)})
            | st.fixed_dictionaries({"run": st.fixed_dictionaries({"argv": st.lists(TEXTS.filter(bool), min_size=1)})})
        )
        producers = draw(st.lists(st.sampled_from(names[:index]), unique=True, max_size=3)) if index else []
        inputs = [
            {
                "from": producer + draw(st.sampled_from(["", ".output", ".stdout", ".stderr", ".mounts/x/y"])),
                "into": draw(st.sampled_from(["", "input", "stdin", f"mounts/m{at}"])),
                "to": f"to-{at}",
            }
            for at, producer in enumerate(producers)
        ]
        jobs.append(
            make_job(
                name=name,
                description=draw(TEXTS),
                inputs=inputs,
                env={key: draw(TEXTS) for key in draw(st.lists(st.from_regex(r"\A[A-K][A-Z_0-9]{0,5}\Z"), max_size=2))},
                package=[{"path": "p/x", "content": draw(st.binary(max_size=9)), "executable": draw(st.booleans())}],
                timeout=draw(DURATIONS),
                deadline=draw(DURATIONS),
                secrets=draw(st.dictionaries(st.from_regex(r"\A[L-O][A-CE-Z_0-9]{0,5}\Z"), NAMES, max_size=2)),
                secret_files=draw(st.lists(NAMES, unique=True, max_size=2)),
                retry={
                    "attempts": draw(st.integers(1, 100)),
                    "backoff": draw(DURATIONS),
                    "on": ["exit", "lost"],
                    "jitter": draw(st.sampled_from([0, 0.25, 1])),
                    "exit_codes": draw(st.sampled_from([[], ["3"], ["1-9", "75"]])),
                },
                needs=draw(st.lists(st.sampled_from(names[:index]), max_size=2)) if index else [],
                when=draw(st.sampled_from(["", "always()", "!failure() || success()"])) if producers else "",
                continue_on_failure=draw(st.booleans()),
                queue_timeout=draw(DURATIONS),
                start_timeout=draw(DURATIONS),
                transfer_timeout=draw(DURATIONS),
                resources={"cpus": draw(st.floats(0.001, 4096)), "memory": draw(st.sampled_from(["", "512M", "2G"]))},
                **work,
            )
        )
    parameters = draw(st.dictionaries(NAMES.filter(lambda name: name not in params), PARAMETERS, max_size=3))
    return make_workflow(
        name=draw(NAMES),
        description=draw(TEXTS),
        params=params,
        parameters=parameters,
        api_version=draw(st.sampled_from([0, 1])),
        jobs=jobs,
        deliver=[{"from": names[-1]}],
    )


def check(text: str, meant: workflows_pb2.WorkflowDefinition) -> None:
    reading = read_definition(workflows_pb2.DefinitionSource(text=text))
    assert not reading.problems, [(problem.field, problem.message) for problem in reading.problems]
    # Empty messages in maps and lists have no other form, so equality is exact.
    assert reading.definition == meant
    assert decode_stored(reading.encoded) == meant
    edges = edges_of(meant)
    assert [edge.edge_id for edge in edges] == list(range(1, len(edges) + 1))


@pytest.mark.timeout(300)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(definitions(), st.booleans())
def test_a_definition_survives_json_and_yaml(meant: workflows_pb2.WorkflowDefinition, camel: bool) -> None:
    content = MessageToDict(meant, preserving_proto_field_name=not camel)
    check(json.dumps(content), meant)
    check(json.dumps(content, indent=1, ensure_ascii=False), meant)
    check(yaml.safe_dump(content), meant)
    check(yaml.safe_dump(content, default_flow_style=True, allow_unicode=True), meant)


@settings(max_examples=300, deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
    | st.text("{}[]:,-\"'& *!ab\n\t#|>?%<01", max_size=60)
)
def test_no_text_raises(text: str) -> None:
    reading = read_definition(workflows_pb2.DefinitionSource(text=text))
    assert reading.problems
    assert all(problem.message for problem in reading.problems)
