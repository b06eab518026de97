"""Parameters with types in conditions: their normal form decides, whatever spelling was given."""

from __future__ import annotations

from pathlib import Path

import pytest

from peerd.v1 import workflows_pb2

from .fakes import home, job, workflow

DEFINITION = workflow(
    job("many", when="params.count > 3"),
    job("real", when="params.dry == false"),
    job("patient", when="params.wait >= 3600"),
    job("large", when="params.size > 1000000"),
    job("heavy", when="params.mass >= 1000"),
    job("live", when='params.target in ["live", "test"]'),
) | {
    "parameters": {
        "count": {"type": "integer", "default": "5"},
        "dry": {"type": "boolean", "default": "no"},
        "wait": {"type": "duration", "default": "60m"},
        "size": {"type": "size", "default": "1M"},
        "mass": {"type": "number", "default": "999.5"},
        "target": {"type": "choice", "choices": ["live", "test", "none"], "default": "none"},
    }
}


@pytest.mark.parametrize(
    ("given", "ran"),
    [
        ({}, {"many", "real", "patient", "large"}),
        ({"count": "+003", "dry": "YES", "wait": "59m59s", "size": "999K", "target": "live"}, {"large", "live"}),
        (
            {"count": "4", "dry": "0", "wait": "1h", "size": "10", "mass": "3e25", "target": "test"},
            {"heavy", "many", "real", "patient", "live"},
        ),
    ],
)
async def test_a_condition_compares_values_and_not_spellings(
    tmp_path: Path, given: dict[str, str], ran: set[str]
) -> None:
    async with home(tmp_path, "p") as made:
        execution = await made.finished(await made.run(DEFINITION, params=given))
        completed = workflows_pb2.WORKFLOW_JOB_STATUS_COMPLETED
        assert {entry.node_id for entry in execution.jobs if entry.status == completed} == ran
        assert execution.status == workflows_pb2.EXECUTION_STATUS_COMPLETED
