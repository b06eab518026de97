"""Real processes against their limits, by control groups and without: what ends them, and that nothing is left."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from peerd.jobs.runner import Exit, Limits, Outcome, ProcessRunner, ProcessSpec, Recovery, bounds, processes
from peerd.jobs.runner.limits import probe
from peerd.jobs.runner.runner import _owner
from peerd.v1 import registry_pb2

GROUPS = probe()
needs_groups = pytest.mark.skipif(
    GROUPS is None and not os.environ.get("PEERD_REQUIRE_ALL"), reason="needs control groups"
)
needs_bwrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap")
WAYS = [
    pytest.param(("auto", "auto"), marks=[needs_groups, needs_bwrap], id="cgroup-bwrap"),
    pytest.param(("none", "auto"), marks=needs_groups, id="cgroup"),
    pytest.param(("auto", "rlimits"), marks=needs_bwrap, id="rlimits-bwrap"),
    pytest.param(("none", "rlimits"), id="rlimits"),
]
MEGA = 1 << 20


@pytest.fixture(params=WAYS)
async def runner(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ProcessRunner]:
    sandbox, limits = request.param
    made = await ProcessRunner.probe(sandbox=sandbox, hidden=[tmp_path / "hidden"], limits=limits)
    wanted = registry_pb2.LIMITS_LEVEL_CGROUP if limits == "auto" else registry_pb2.LIMITS_LEVEL_RLIMITS
    assert made.limits == wanted
    yield made
    assert GROUPS is None or GROUPS.names(_owner(tmp_path)) == [], "groups are left"


@pytest.fixture
def spec(tmp_path: Path) -> ProcessSpec:
    job = tmp_path / "job"
    for name in ("input", "output", "mounts", "package", "logs"):
        (job / name).mkdir(parents=True)
    return ProcessSpec(
        marker=f"limits-{os.getpid()}-{tmp_path.name}",
        argv=("/bin/true",),
        env={},
        job_directory=job,
        stdin_files=(),
        stdout_path=job / "logs" / "stdout.txt",
        stderr_path=job / "logs" / "stderr.txt",
        output_cap_bytes=1_000_000,
        timeout_seconds=100,
        grace_seconds=1,
    )


def python(spec: ProcessSpec, program: str, **limits: float) -> ProcessSpec:
    argv = (sys.executable, "-c", textwrap.dedent(program))
    return replace(spec, argv=argv, limits=Limits(**limits))  # type: ignore[arg-type]


async def run(runner: ProcessRunner, spec: ProcessSpec, control: Path) -> Exit:
    await runner.start(control, spec)
    ended = await runner.wait(control)
    assert ended is not None, (control / "wrapper.log").read_text()
    assert processes.marked(spec.marker) == set()
    return ended


def grouped(runner: ProcessRunner) -> bool:
    return runner.limits == registry_pb2.LIMITS_LEVEL_CGROUP


async def test_a_job_within_its_limits_is_not_troubled(
    runner: ProcessRunner, spec: ProcessSpec, tmp_path: Path
) -> None:
    program = """
        import os, subprocess
        held = bytearray(30 << 20)
        for number in range(3):
            open(os.environ["PEERD_OUTPUT"] + f"/{number}", "wb").write(bytes(1 << 20))
        subprocess.run(["/bin/true"], check=True)
    """
    limited = python(spec, program, memory_bytes=100 * MEGA, pids=20, disk_bytes=10 * MEGA, cpus=1)
    ended = await run(runner, limited, tmp_path / "c")
    assert (ended.outcome, ended.exit_code, ended.limit) == (Outcome.EXITED, 0, ""), spec.stderr_path.read_text()


async def test_memory_of_all_its_processes_together_is_limited(
    runner: ProcessRunner, spec: ProcessSpec, tmp_path: Path
) -> None:
    program = """
        import os, time
        for _ in range(8):
            if os.fork() == 0:
                held = b"x" * (20 << 20)
                time.sleep(60)
        time.sleep(60)
    """
    ended = await run(runner, python(spec, program, memory_bytes=100 * MEGA), tmp_path / "c")
    assert (ended.outcome, ended.limit) == (Outcome.LIMITED, "memory_limit")
    assert ended.message == "memory limit of 100M was hit"
    assert ended.ended_at - ended.started_at < 15_000


@pytest.mark.parametrize("in_one_file", [True, False])
async def test_what_it_writes_is_limited(
    runner: ProcessRunner, spec: ProcessSpec, tmp_path: Path, in_one_file: bool
) -> None:
    program = """
        import os, time
        out = os.environ["PEERD_OUTPUT"]
        for number in range(100_000):
            name = "one" if IN_ONE_FILE else f"{number}"
            with open(f"{out}/{name}", "ab") as file:
                file.write(bytes(1 << 20))
            time.sleep(0.01)
    """.replace("IN_ONE_FILE", str(in_one_file))
    (spec.job_directory / "mounts" / "received").write_bytes(bytes(30 * MEGA))  # not its doing
    ended = await run(runner, python(spec, program, disk_bytes=20 * MEGA), tmp_path / "c")
    assert (ended.outcome, ended.limit) == (Outcome.LIMITED, "disk_limit"), spec.stderr_path.read_text()
    assert ended.message == "disk limit of 20M was hit"
    assert bounds.occupied([str(spec.job_directory / "output")]) < 400 * MEGA


async def test_a_fork_bomb_stays_small_and_ends(runner: ProcessRunner, spec: ProcessSpec, tmp_path: Path) -> None:
    program = """
        import os, sys, time
        started = 0
        try:
            while started < 200:
                if os.fork() == 0:
                    time.sleep(60)
                started += 1
                time.sleep(0.005)
        except OSError as error:
            print(started, flush=True)
            sys.exit(9)
        time.sleep(60)
    """
    ended = await run(runner, python(spec, program, pids=20), tmp_path / "c")
    assert (ended.outcome, ended.limit) == (Outcome.LIMITED, "pids_limit")
    assert ended.message == "limit of 20 processes was hit"
    if grouped(runner):
        assert int(spec.stdout_path.read_text()) <= 21


@pytest.mark.parametrize("runner", WAYS[:2], indirect=True)
async def test_processor_time_is_what_it_asked_for(runner: ProcessRunner, spec: ProcessSpec, tmp_path: Path) -> None:
    """By control groups: nothing else keeps it."""
    if not runner.limits_cpus:
        assert not os.environ.get("PEERD_REQUIRE_ALL"), "control groups of this machine do not limit it"
        pytest.skip("control groups of this machine do not limit it")
    program = """
        import time
        until = time.monotonic() + 2
        while time.monotonic() < until:
            pass
        print(time.process_time())
    """
    ended = await run(runner, python(spec, program, cpus=0.25), tmp_path / "c")
    assert ended.exit_code == 0
    assert float(spec.stdout_path.read_text()) < 1.0


def command_lines() -> Iterator[tuple[int, bytes]]:
    """(pid, command line) of every process; those of others may end while they are looked at."""
    for pid, _ in processes.running():
        try:
            yield pid, Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue


async def test_nothing_is_left_when_the_wrapper_is_killed(
    runner: ProcessRunner, spec: ProcessSpec, tmp_path: Path
) -> None:
    name = str(3_000_000 + os.getpid())  # by which this very process is known among those of other workers
    program = f"""
        import os, time
        os.environ.clear()
        if os.fork() == 0:
            os.setsid()
            # Out of the family and without the marker: only its group knows it.
            os.execve("/bin/sleep", ["/bin/sleep", "{name}"], {{}})
        print("up", flush=True)
        time.sleep(60)
    """
    control = tmp_path / "c"
    await runner.start(control, python(spec, program, pids=50))
    async with asyncio.timeout(30):
        while not spec.stdout_path.exists() or "up" not in spec.stdout_path.read_text():
            await asyncio.sleep(0.01)
    assert GROUPS is None or not grouped(runner) or len(GROUPS.names(_owner(tmp_path))) == 1
    again = await ProcessRunner.probe(sandbox="none", hidden=[], limits="auto" if grouped(runner) else "rlimits")
    for pid, line in command_lines():
        if str(control).encode() in line:
            processes.send(pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        while (await again.recover(control)).state is Recovery.RUNNING:
            await asyncio.sleep(0.01)
    assert (await again.recover(control)).state is Recovery.LOST
    if grouped(runner):
        assert not [pid for pid, line in command_lines() if line.endswith(f"{name}\0".encode())]
    else:  # what nothing ties to its job any more; not so in bubblewrap, which ended with its wrapper
        for pid, line in command_lines():
            if line.endswith(f"sleep\0{name}\0".encode()):
                processes.send(pid, signal.SIGKILL)
    assert await runner.wait(control) is None  # which also reaps the wrapper


@needs_groups
async def test_groups_of_attempts_that_are_over_are_swept_and_no_others(spec: ProcessSpec, tmp_path: Path) -> None:
    assert GROUPS is not None
    runner = await ProcessRunner.probe(sandbox="none", hidden=[])
    sleeper = replace(spec, argv=("/bin/sleep", "60"))
    for name in ("1", "2"):
        await runner.start(tmp_path / "control" / name, replace(sleeper, marker=f"{spec.marker}-{name}"))
    async with asyncio.timeout(30):
        while len(processes.marked(f"{spec.marker}-1") | processes.marked(f"{spec.marker}-2")) < 2:
            await asyncio.sleep(0.01)
    stranger = f"foreign{os.getpid()}"
    foreign = GROUPS.create(f"{stranger}/7-x", Limits())
    try:
        await asyncio.to_thread(runner.sweep, tmp_path / "control", [tmp_path / "control" / "2"])
        owner = _owner(tmp_path / "control")
        assert [name.split("-")[0] for name in GROUPS.names(owner)] == [f"{owner}/2"]
        assert GROUPS.names(stranger) == [f"{stranger}/7-x"]
        swept = await runner.wait(tmp_path / "control" / "1")
        assert swept is not None and swept.exit_code == 137
        assert processes.marked(f"{spec.marker}-2")
    finally:
        await runner.stop(tmp_path / "control" / "2", 1)
        assert bounds.remove({"folders": foreign.folders, "above": foreign.above})
    assert GROUPS.names(owner) == []


async def test_a_group_that_cannot_be_made_starts_nothing(spec: ProcessSpec, tmp_path: Path) -> None:
    class Broken:
        name = "broken"
        limits_cpus = True

        def __getattr__(self, name: str) -> object:
            return getattr(GROUPS, name)

        def create(self, name: str, limits: Limits) -> object:
            raise OSError(28, "No space left on device")

    if GROUPS is None:
        pytest.skip("needs control groups")
    runner = ProcessRunner(None, Broken())  # type: ignore[arg-type]
    with pytest.raises(OSError, match="No space"):
        await runner.start(tmp_path / "c", spec)
    assert (await runner.recover(tmp_path / "c")).state is Recovery.NEVER_STARTED


@needs_bwrap
async def test_memory_cannot_be_had_by_files_outside_the_job_directory(spec: ProcessSpec, tmp_path: Path) -> None:
    runner = await ProcessRunner.probe(sandbox="auto", hidden=[], limits="rlimits")
    program = """
        import os
        for place in ("/", "/dev", "/usr"):
            try:
                open(f"{place}/file", "wb")
            except OSError as error:
                print(place, "refused")
        for place in ("/tmp", "/dev/shm", "/job"):
            try:
                with open(f"{place}/file", "wb") as file:
                    for _ in range(40):
                        file.write(bytes(1 << 20))
                        file.flush()
            except OSError as error:
                print(place, "full")
            os.path.exists(f"{place}/file") and os.unlink(f"{place}/file")
    """
    begun = time.monotonic()
    ended = await run(runner, python(spec, program, memory_bytes=16 * MEGA * 2), tmp_path / "c")
    assert ended.exit_code == 0, spec.stderr_path.read_text()
    said = ["/ refused", "/dev refused", "/usr refused", "/tmp full", "/dev/shm full", "/job full"]
    assert spec.stdout_path.read_text().splitlines() == said
    assert time.monotonic() - begun < 20


async def test_being_killed_while_it_starts_processes_is_no_limit_of_processes(
    runner: ProcessRunner, spec: ProcessSpec, tmp_path: Path
) -> None:
    program = """
        import os, sys, time
        for _ in range(3):
            if os.fork() == 0:
                while True:
                    try:
                        if os.fork() == 0:
                            os._exit(0)
                        os.wait()
                    except OSError:
                        pass
        time.sleep(0.3)
        sys.exit(5)
    """
    ended = await run(runner, python(spec, program, pids=100), tmp_path / "c")
    assert (ended.outcome, ended.exit_code, ended.limit, ended.message) == (Outcome.EXITED, 5, "", "")
