"""A large definition does not keep anybody waiting: 2 s on a quiet machine, which scripts/bench definition measures.

Here, beside other tests, only its growth is judged: ten times the jobs, not much more than ten times the time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_definition.py"


def measured(jobs: int) -> dict[str, float]:
    command = [sys.executable, str(SCRIPT), str(jobs), "3"]
    figures: dict[str, float] = json.loads(
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    )
    assert figures["jobs"] == jobs
    return figures


@pytest.mark.timeout(300)
def test_the_time_that_a_definition_takes_grows_with_its_jobs_and_not_faster() -> None:
    few, many = measured(500), measured(5000)
    for part in ("yaml_seconds", "json_seconds"):
        assert many[part] < few[part] * 10 * 3, (part, few, many)
