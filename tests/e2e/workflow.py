"""Small definitions for tests, and what a finished execution looks like from outside."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from peerd.errors import PeerdError

from .fleet import PATIENCE_SECONDS, Daemon, Fleet, wait_for

FINAL = {"COMPLETED", "FAILED", "CANCELLED"}


def job(name: str, peer: str, inputs: Sequence[str | Mapping[str, str]] = (), **more: Any) -> dict[str, Any]:
    """A job of the step service. Inputs are "JOB.output" or whole input definitions."""
    params = {"name": name, **more.pop("params", {})}
    edges = [{"from": entry} if isinstance(entry, str) else dict(entry) for entry in inputs]
    return {"name": name, "on": {"peer": peer}, "service": "step", "params": params, "inputs": edges, **more}


def definition(name: str, *jobs: dict[str, Any], deliver: Sequence[str | Mapping[str, str]] = ()) -> dict[str, Any]:
    edges = [{"from": entry} if isinstance(entry, str) else dict(entry) for entry in deliver]
    return {"name": name, "jobs": list(jobs), "deliver": edges}


def allow_commands(fleet: Fleet) -> None:
    """Every machine runs ad-hoc commands of the founder from now on, where it can isolate them."""
    for daemon in fleet.daemons.values():
        daemon.kill()
        daemon.configure(f"\n[jobs]\nallow_commands_from = ['{fleet.founder.peer_id}']\n")
        daemon.start()
    fleet.wait_until_all_see_all()


def need_bubblewrap() -> None:
    """Commands run nowhere without it."""
    if shutil.which("bwrap") is None:
        assert not os.environ.get("PEERD_REQUIRE_ALL"), "bubblewrap is missing, and this machine must run everything"
        pytest.skip("needs bubblewrap")


class Run:
    """One execution, asked about at its orchestrator."""

    def __init__(self, fleet: Fleet, orchestrator: Daemon, execution_id: int) -> None:
        self.fleet = fleet
        self.orchestrator = orchestrator
        self.id = execution_id

    def view(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.orchestrator.json("executions", "show", str(self.id))
        return dict(answer.get("execution", answer))

    @property
    def status(self) -> str:
        return short(self.view()["status"])

    def status_if_reachable(self) -> str | None:
        """The status, or None while the orchestrator is dead."""
        try:
            return self.status
        except PeerdError:
            return None

    def jobs(self) -> dict[str, dict[str, Any]]:
        return {entry["node_id"]: entry for entry in self.view()["jobs"]}

    def job_status(self, node: str) -> str:
        return short(self.jobs()[node]["status"])

    def wait(self, seconds: float = 1.5 * PATIENCE_SECONDS) -> str:
        wait_for(
            lambda: self.status in FINAL, seconds, lambda: f"execution {self.id} final: {self.explain()}", pause=0.1
        )
        return self.status

    def explain(self) -> str:
        """Everything not final and why, for messages of tests."""
        view = self.view()
        lines = [f"{view['status']} {view.get('reason', '')} {view.get('error', '')}"]
        lines += [
            f"  {entry['node_id']}: {entry['status']} {entry.get('reason', '')} {entry.get('message', '')}"
            for entry in view["jobs"]
        ]
        return "\n".join(lines)

    def directory(self, node: str) -> Path:
        """The job's directory by the specified pattern, computed here and not asked for."""
        row = self.jobs()[node]
        return job_directory(
            self.fleet, self.orchestrator, self.id, row["executor_peer_id"], int(row["remote_job_execution_id"])
        )

    @property
    def home(self) -> Path:
        """Where deliveries to Local Peer 0 lie."""
        me = self.orchestrator
        return job_directory(self.fleet, me, self.id, me.peer_id, 0) / "input"


def job_directory(fleet: Fleet, orchestrator: Daemon, execution: int, executor_id: str, job_execution_id: int) -> Path:
    executor = next(daemon for daemon in fleet.daemons.values() if daemon.peer_id == executor_id)
    parts = (orchestrator.peer_id, str(execution), "jobs", executor_id, str(job_execution_id))
    return executor.data.joinpath("workflows", *parts)


def start(fleet: Fleet, orchestrator: str, content: Mapping[str, Any], **params: str) -> Run:
    """Write the definition to a file and run it with peerctl, as an operator does."""
    daemon = fleet[orchestrator]
    file = fleet.folder / f"{content['name']}-{os.urandom(4).hex()}.json"
    file.write_text(json.dumps(content))
    arguments = [argument for key, value in params.items() for argument in ("--param", f"{key}={value}")]
    answer = daemon.json("workflows", "run", str(file), *arguments)
    return Run(fleet, daemon, int(answer["workflow_execution_id"]))


def say(fleet: Fleet, line: str) -> None:
    """Let go on whoever waits until this line is in the effect log."""
    with fleet.effect_log.open("a") as log:
        log.write(f"{line}\n")


def short(status: str) -> str:
    """COMPLETED for EXECUTION_STATUS_COMPLETED and so on."""
    for prefix in ("EXECUTION_STATUS_", "WORKFLOW_JOB_STATUS_", "JOB_STATUS_"):
        status = status.removeprefix(prefix)
    return status


def staged(folder: Path) -> list[Path]:
    """Files of transfers under way below a folder that daemons work in: what goes meanwhile is left out."""
    return [
        Path(root, name)
        for root, _, names in os.walk(folder)
        if ".incoming" in Path(root).relative_to(folder).parts
        for name in names
    ]


def tree(folder: Path) -> dict[str, str]:
    """Relative path -> text of every file below a folder."""
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}
