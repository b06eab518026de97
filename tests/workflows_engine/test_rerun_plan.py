"""What a rerun of an execution with a map will be, which runs again as a whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import cast

import pytest

from peerd.errors import PeerdError, Reason
from peerd.v1 import workflows_pb2
from peerd.workflows.matrix import expanded
from peerd.workflows.model import ExecutionStatus
from peerd.workflows.repository import WorkflowVersion
from peerd.workflows.rerun_plan import Origin, Plan, plan_rerun
from peerd.workflows.reuse import Reused, named_jobs
from tests.workflows_definition.reading import valid

OVER = valid("""
    name: w
    jobs:
      - {name: make, service: s}
      - {name: each, service: s, map: {from: make}, params: {p: "${each.item}"}}
      - {name: sum, service: s, inputs: [{from: each}]}
      - {name: last, service: s, inputs: [{from: sum}]}
    deliver: [{from: last}]
""")
JOBS = ("make", "each", "each.0", "each.1", "sum", "last")


def plan(*names: str, failed: bool = False, unfinished: Iterable[str] = ()) -> Plan:
    gone = frozenset(unfinished)
    origin = Origin(
        execution_id=7,
        version=cast("WorkflowVersion", SimpleNamespace(definition=OVER)),
        params={},
        completed={
            name: Reused(execution_id=7, peer_id="p", job_execution_id=1 + number)
            for number, name in enumerate(JOBS)
            if name not in gone
        },
        unfinished=gone,
        status=ExecutionStatus.FAILED if gone else ExecutionStatus.COMPLETED,
    )
    return plan_rerun(origin, workflows_pb2.RerunExecutionRequest(from_jobs=names, failed=failed))


def refusal(*names: str, failed: bool = False, unfinished: Iterable[str] = ()) -> tuple[str, str]:
    with pytest.raises(PeerdError) as caught:
        plan(*names, failed=failed, unfinished=unfinished)
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    return caught.value.message, caught.value.next_action


def test_a_map_that_nobody_takes_files_of_is_reused_without_its_instances() -> None:
    found = plan("last")
    assert set(found.rerun.reused) == {"make", "each", "sum"}
    assert set(found.sent_again) == {"sum"}


def test_from_a_map_on_its_list_is_sent_again_and_from_its_maker_on_it_is_not() -> None:
    found = plan("each")
    assert set(found.rerun.reused) == set(found.sent_again) == {"make"}
    assert not plan("make").rerun.reused


def test_files_of_its_instances_are_not_sent_again() -> None:
    message, next_action = refusal("sum")
    assert "'each' has a map" in message and next_action.endswith("--from each")
    assert set(plan("sum", "each").rerun.reused) == {"make"}


def test_one_instance_that_did_not_complete_has_all_of_them_run_again() -> None:
    found = plan(failed=True, unfinished=["each.1", "sum", "last"])
    assert set(found.rerun.reused) == {"make"}
    refusal(failed=True, unfinished=["sum", "last"])


def test_an_instance_cannot_be_named_and_is_told_apart_from_a_job_that_is_not_there() -> None:
    message, next_action = refusal("each.1")
    assert message == "'each.1' is an instance of a map, which runs again as a whole"
    assert next_action.endswith("--from each")
    for name in ("sum.1", "each.x", "each.01", "other"):
        assert "has no job" in refusal(name)[0]


def test_a_name_that_is_given_a_thousand_times_counts_once() -> None:
    many = valid("""
        name: w
        jobs:
          - {name: a, service: s, matrix: [{name: x, values: [1, 2]}]}
    """)
    assert named_jobs(many, expanded(many), ["a", "a.1"] * 1000 + ["b"] * 1000) == (["a.0", "a.1", "a.1"], ["b"])
