"""What becomes of a container whose holder, daemon or engine dies: never run twice, never forgotten, never left."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from peerd.errors import PeerdError, Reason
from peerd.jobs.runner import Outcome, Recovery, processes, wrapper
from peerd.jobs.runner.containers.runner import ContainerRunner
from peerd.jobs.runner.containers.spec import ContainerSpec
from tests.e2e.fleet import wait_for
from tests.e2e.load import busier

from .podman import IMAGE, Podman
from .test_runner import DEFAULTS, PEER, runner, said, shell, spec, until

__all__ = ["runner", "spec"]


pytestmark = pytest.mark.timeout(300)


def kill_holder(control: Path) -> None:
    """As the kernel does when memory is short. It is gone afterwards."""
    killed = []
    for pid, _ in processes.running():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(control).encode() in command:
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
    wait_for(lambda: not any(lives(pid) for pid in killed), 30, "the holder is dead")


def lives(pid: int) -> bool:
    """Whether it is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def another(engine: Podman) -> ContainerRunner:
    """The runner of the next daemon."""
    return ContainerRunner(str(engine.socket), DEFAULTS, owner=PEER)


async def test_the_next_daemon_finds_a_container_that_runs(
    runner: ContainerRunner, engine: Podman, spec: ContainerSpec, tmp_path: Path
) -> None:
    control, gate = tmp_path / "c", spec.job_directory / "mounts" / "app" / "gate"
    await runner.start(control, shell(spec, "echo up; while [ ! -e /app/gate ]; do sleep 0.05; done; echo on; exit 5"))
    await until(said(spec))
    later = another(engine)
    assert (await later.recover(control)).state is Recovery.RUNNING
    gate.touch()
    ended = await later.wait(control)
    assert ended is not None
    assert (ended.outcome, ended.exit_code, ended.stdout_truncated) == (Outcome.EXITED, 5, False)
    assert spec.stdout_path.read_text() == "up\non\n"
    assert await later.recover(control) is not None


async def test_a_container_whose_holder_died_is_adopted(
    runner: ContainerRunner, engine: Podman, spec: ContainerSpec, tmp_path: Path
) -> None:
    control, gate = tmp_path / "c", spec.job_directory / "mounts" / "app" / "gate"
    await runner.start(control, shell(spec, "echo up; while [ ! -e /app/gate ]; do sleep 0.05; done; echo on; exit 5"))
    await until(said(spec))
    kill_holder(control)
    later = another(engine)
    assert (await later.recover(control)).state is Recovery.RUNNING
    await later.sweep()
    assert len(engine.containers()) == 1, "it belongs to an attempt"
    gate.touch()
    ended = await later.wait(control)
    assert ended is not None
    assert (ended.outcome, ended.exit_code) == (Outcome.EXITED, 5)
    assert ended.stdout_truncated, "what it wrote meanwhile may be missing"


async def test_an_end_that_nobody_saw_is_found(
    runner: ContainerRunner, engine: Podman, spec: ContainerSpec, tmp_path: Path
) -> None:
    control, gate = tmp_path / "c", spec.job_directory / "mounts" / "app" / "gate"
    await runner.start(control, shell(spec, "echo up; while [ ! -e /app/gate ]; do sleep 0.05; done; exit 6"))
    await until(said(spec))
    kill_holder(control)
    gate.touch()
    await until(lambda: engine.containers()[0]["State"] == "exited")
    later = another(engine)
    assert (await later.recover(control)).state is Recovery.RUNNING, "it is asked for"
    ended = await later.wait(control)
    assert ended is not None
    assert (ended.outcome, ended.exit_code) == (Outcome.EXITED, 6)


async def test_a_time_limit_holds_over_a_dead_holder(
    runner: ContainerRunner, engine: Podman, spec: ContainerSpec, tmp_path: Path
) -> None:
    control = tmp_path / "c"
    await runner.start(control, shell(replace(spec, timeout_seconds=6), "echo up; sleep 100"))
    await until(said(spec))
    kill_holder(control)
    ended = await runner.wait(control)
    assert ended is not None
    assert ended.outcome is Outcome.TIMED_OUT
    assert 5500 < ended.ended_at - ended.started_at < 12_000 * busier()


async def test_what_never_ran_may_run_again(
    runner: ContainerRunner, engine: Podman, spec: ContainerSpec, tmp_path: Path
) -> None:
    """The holder died between making the container and letting it run."""
    control = tmp_path / "c"
    content, _ = runner._content(control, shell(spec, "echo ran"), await found(runner))
    control.mkdir()
    wrapper.keep(str(control), "spec.json", content)
    labels = [f"--label={key}={value}" for key, value in content["body"]["Labels"].items()]
    engine.call("create", "--network=none", *labels, IMAGE, "true")
    assert len(engine.containers()) == 1
    assert (await runner.recover(control)).state is Recovery.NEVER_STARTED
    await runner.sweep()
    assert engine.containers() == []
    # The same, after it had written down that it would: the engine knows that it did not.
    again = tmp_path / "again"
    content, _ = runner._content(again, shell(spec, "echo ran"), await found(runner))
    again.mkdir()
    wrapper.keep(str(again), "spec.json", content)
    made = engine.call("create", "--network=none", *labels, IMAGE, "true").strip()
    wrapper.keep(str(again), "started.json", {"container": made, "started_at": wrapper.now()})
    assert (await runner.recover(again)).state is Recovery.RUNNING
    ended = await runner.wait(again)
    assert ended is not None
    assert ended.outcome is Outcome.POSTPONED
    assert not spec.stdout_path.read_text()


async def found(runner: ContainerRunner):  # type: ignore[no-untyped-def]
    await runner.look()
    assert runner.found is not None
    return runner.found


async def test_half_of_stdin_is_no_result(
    runner: ContainerRunner, engine: Podman, spec: ContainerSpec, tmp_path: Path
) -> None:
    control, gate = tmp_path / "c", spec.job_directory / "mounts" / "app" / "gate"
    file = spec.job_directory / "input" / "big"
    file.write_bytes(bytes(5_000_000))
    slow = "echo up; while [ ! -e /app/gate ]; do sleep 0.05; done; wc -c"
    await runner.start(control, shell(replace(spec, stdin_files=(file,)), slow))
    await until(said(spec))
    kill_holder(control)
    gate.touch()
    assert await runner.wait(control) is None, "lost: it may have counted less than there was"
    assert (await runner.recover(control)).state is Recovery.LOST


async def test_a_container_that_somebody_removed_is_not_waited_for(
    runner: ContainerRunner, engine: Podman, spec: ContainerSpec, tmp_path: Path
) -> None:
    await runner.start(tmp_path / "c", shell(spec, "echo up; sleep 60"))
    await until(said(spec))
    engine.call("rm", "--force", "--time", "0", str(engine.containers()[0]["Id"]))
    ended = await runner.wait(tmp_path / "c")
    assert ended is not None
    assert ended.outcome in (Outcome.KILLED, Outcome.EXITED)
    assert ended.exit_code != 0


async def test_containers_of_nobody_are_removed_and_others_left_alone(
    runner: ContainerRunner, engine: Podman, spec: ContainerSpec, tmp_path: Path
) -> None:
    engine.call("run", "--detach", "--network=none", f"--label=peerd.peer={PEER}", IMAGE, "sleep", "60")
    other = engine.call("run", "--detach", "--network=none", "--label=peerd.peer=another", IMAGE, "sleep", "60").strip()
    await runner.sweep()
    assert [container["Id"] for container in engine.containers()] == [other]
    engine.call("rm", "--force", "--time", "0", other)


async def test_an_engine_that_restarts_loses_no_container(
    runner: ContainerRunner, engine: Podman, spec: ContainerSpec, tmp_path: Path
) -> None:
    control, gate = tmp_path / "c", spec.job_directory / "mounts" / "app" / "gate"
    await runner.start(control, shell(spec, "echo up; while [ ! -e /app/gate ]; do sleep 0.05; done; echo on; exit 5"))
    await until(said(spec))
    await until(lambda: engine.containers()[0]["State"] == "running")  # it has written down what it started
    engine.stop()
    try:
        with pytest.raises(PeerdError) as caught:
            await runner.start(tmp_path / "d", replace(spec, marker=spec.marker + "2"))
        assert caught.value.reason is Reason.ENGINE_UNAVAILABLE
        gate.touch()
    finally:
        engine.start()
    ended = await runner.wait(control)
    assert ended is not None
    assert (ended.outcome, ended.exit_code, ended.stdout_truncated) == (Outcome.EXITED, 5, True)


async def test_stop_waits_for_an_engine_that_is_away(
    runner: ContainerRunner, engine: Podman, spec: ContainerSpec, tmp_path: Path
) -> None:
    import asyncio

    control = tmp_path / "c"
    await runner.start(control, shell(spec, "echo up; sleep 60"))
    await until(said(spec))
    engine.stop()
    stopping = asyncio.create_task(runner.stop(control, 1))
    await asyncio.wait({stopping}, timeout=1)
    assert not stopping.done(), "nobody can say that nothing of it lives"
    engine.start()
    ended = await stopping
    assert ended is not None
    assert ended.outcome is Outcome.KILLED
