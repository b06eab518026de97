"""Real processes: how attempts end, survive the daemon, and are ended completely."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from peerd.errors import PeerdError, Reason
from peerd.jobs.runner import Exit, Outcome, ProcessRunner, ProcessSpec, Recovery, processes
from tests.timing import quickest

MODES = [
    "none",
    pytest.param("auto", marks=pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap")),
]
STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)
    os._exit(0)
print("up", flush=True)
time.sleep(60)
"""


@pytest.fixture(params=MODES)
async def runner(request: pytest.FixtureRequest, tmp_path: Path) -> ProcessRunner:
    return await ProcessRunner.probe(sandbox=request.param, hidden=[tmp_path / "hidden"])


@pytest.fixture
def spec(tmp_path: Path) -> ProcessSpec:
    job = tmp_path / "job"
    for name in ("input", "output", "mounts", "package", "logs"):
        (job / name).mkdir(parents=True)
    return ProcessSpec(
        marker=f"test-{os.getpid()}-{tmp_path.name}",
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


def python(spec: ProcessSpec, program: str, *args: str) -> ProcessSpec:
    return replace(spec, argv=(sys.executable, "-c", textwrap.dedent(program), *args))


async def run(runner: ProcessRunner, spec: ProcessSpec, control: Path) -> Exit:
    await runner.start(control, spec)
    ended = await runner.wait(control)
    assert ended is not None, (control / "wrapper.log").read_text()
    return ended


async def started(spec: ProcessSpec, text: str = "up") -> None:
    async with asyncio.timeout(30):
        while not spec.stdout_path.exists() or text not in spec.stdout_path.read_text():
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def nothing_lives(spec: ProcessSpec) -> Iterator[None]:
    yield
    assert processes.marked(spec.marker) == set()


@pytest.mark.parametrize(
    ("program", "code"), [("pass", 0), ("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)]
)
async def test_the_exit_code_is_kept(
    runner: ProcessRunner, spec: ProcessSpec, tmp_path: Path, program: str, code: int
) -> None:
    ended = await run(runner, python(spec, program), tmp_path / "c")
    assert (ended.outcome, ended.exit_code) == (Outcome.EXITED, code)


async def test_output_is_kept_up_to_the_cap_and_the_rest_counted(
    runner: ProcessRunner, spec: ProcessSpec, tmp_path: Path
) -> None:
    ended = await run(
        runner, python(spec, "import sys; sys.stdout.write('x' * 3_000_000); sys.stderr.write('e')"), tmp_path / "c"
    )
    assert ended.exit_code == 0
    assert ended.stdout_truncated and not ended.stderr_truncated
    assert spec.stdout_path.stat().st_size == 1_000_000
    assert spec.stderr_path.read_text() == "e"


async def test_stdin_is_the_files_one_after_the_other(runner: ProcessRunner, spec: ProcessSpec, tmp_path: Path) -> None:
    files = []
    for number in range(3):
        path = spec.job_directory / "input" / str(number)
        path.write_bytes(bytes([65 + number]) * 2_000_000)
        files.append(path)
    program = "import sys, hashlib; d = sys.stdin.buffer.read(); print(len(d), d[:1], d[-1:])"
    await run(runner, python(replace(spec, stdin_files=tuple(files)), program), tmp_path / "c")
    assert spec.stdout_path.read_text() == "6000000 b'A' b'C'\n"


async def test_a_job_that_does_not_read_its_stdin_is_fine(
    runner: ProcessRunner, spec: ProcessSpec, tmp_path: Path
) -> None:
    path = spec.job_directory / "input" / "big"
    path.write_bytes(bytes(5_000_000))
    ended = await run(runner, python(replace(spec, stdin_files=(path,)), "print('done')"), tmp_path / "c")
    assert ended.exit_code == 0


async def test_a_timeout_ends_even_what_ignores_term(runner: ProcessRunner, spec: ProcessSpec, tmp_path: Path) -> None:
    limited = replace(python(spec, STUBBORN), timeout_seconds=0.7, grace_seconds=0.3)

    async def attempt() -> float:
        ended = await run(runner, limited, Path(tempfile.mkdtemp(dir=tmp_path)))
        assert ended.outcome is Outcome.TIMED_OUT
        return (ended.ended_at - ended.started_at) / 1000

    await quickest(3, attempt)


async def test_stop_ends_everything_within_two_seconds(
    runner: ProcessRunner, spec: ProcessSpec, tmp_path: Path
) -> None:
    async def attempt() -> float:
        control = Path(tempfile.mkdtemp(dir=tmp_path))
        stubborn = replace(python(spec, STUBBORN), stdout_path=control / "out")
        await runner.start(control, stubborn)
        await started(stubborn)
        begun = time.monotonic()
        ended = await runner.stop(control, 1)
        took = time.monotonic() - begun
        assert ended is not None and ended.outcome is Outcome.KILLED
        return took

    await quickest(2, attempt)


async def test_a_wrapper_that_was_held_up_for_seconds_still_says_how_its_job_ended(
    spec: ProcessSpec, tmp_path: Path
) -> None:
    runner = await ProcessRunner.probe(sandbox="none", hidden=[])
    control = tmp_path / "c"
    await runner.start(control, python(spec, STUBBORN))
    await started(spec)
    (child,) = runner._children.values()
    child.send_signal(signal.SIGSTOP)  # as by a disk that takes its time
    stopping = asyncio.ensure_future(runner.stop(control, 1))
    await asyncio.wait({stopping}, timeout=5)
    child.send_signal(signal.SIGCONT)
    ended = await stopping
    assert ended is not None and ended.outcome is Outcome.KILLED


async def test_stop_lets_a_job_that_listens_to_term_clean_up(
    runner: ProcessRunner, spec: ProcessSpec, tmp_path: Path
) -> None:
    program = """
    import signal, sys, time
    def bye(*_):
        print("cleaned", flush=True)
        sys.exit(5)
    signal.signal(signal.SIGTERM, bye)
    print("up", flush=True)
    time.sleep(60)
    """
    await runner.start(tmp_path / "c", python(spec, program))
    await started(spec)
    ended = await runner.stop(tmp_path / "c", 1)
    assert ended is not None and ended.exit_code == 5
    assert spec.stdout_path.read_text() == "up\ncleaned\n"


async def test_what_a_job_leaves_behind_ends_with_it(runner: ProcessRunner, spec: ProcessSpec, tmp_path: Path) -> None:
    await run(
        runner,
        python(spec, STUBBORN.replace('print("up", flush=True)\ntime.sleep(60)', "time.sleep(0.3)")),
        tmp_path / "c",
    )


async def test_a_command_that_does_not_exist_is_said(spec: ProcessSpec, tmp_path: Path) -> None:
    runner = await ProcessRunner.probe(sandbox="none", hidden=[])
    ended = await run(runner, replace(spec, argv=("/no/such/program",)), tmp_path / "c")
    assert ended.outcome is Outcome.SPAWN_FAILED
    assert "No such file" in ended.message


async def test_the_environment_is_clean(
    runner: ProcessRunner, spec: ProcessSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "canary")
    await run(runner, replace(spec, argv=("/usr/bin/env",), env={"GIVEN": "yes"}), tmp_path / "c")
    said = spec.stdout_path.read_text()
    assert "canary" not in said
    assert "GIVEN=yes" in said and f"PEERD_JOB={spec.marker}" in said and "PEERD_INPUT=" in said


async def test_a_job_ends_and_is_recorded_while_the_daemon_is_dead(
    runner: ProcessRunner, spec: ProcessSpec, tmp_path: Path
) -> None:
    control = tmp_path / "c"
    program = """
    import os, time
    print("up", flush=True)
    while not os.path.exists(os.environ["PEERD_INPUT"] + "/go"):
        time.sleep(0.02)
    raise SystemExit(4)
    """
    waits = python(spec, program)
    sandbox = "none" if runner.isolation == 1 else "auto"
    daemon = f"""
import asyncio, pickle, sys, pathlib, os, signal
from peerd.jobs.runner import ProcessRunner
async def main():
    runner = await ProcessRunner.probe(sandbox={sandbox!r}, hidden=[])
    await runner.start(pathlib.Path({str(control)!r}), pickle.loads(sys.stdin.buffer.read()))
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    import pickle

    done = subprocess.run([sys.executable, "-c", daemon], input=pickle.dumps(waits))
    assert done.returncode == -signal.SIGKILL
    await started(spec)
    assert (await runner.recover(control)).state is Recovery.RUNNING
    (spec.job_directory / "input" / "go").touch()
    ended = await runner.wait(control)
    assert ended is not None and ended.exit_code == 4
    assert (await runner.recover(control)).state is Recovery.FINISHED


async def test_a_dead_wrapper_means_lost_and_nothing_of_the_job_lives(
    runner: ProcessRunner, spec: ProcessSpec, tmp_path: Path
) -> None:
    control = tmp_path / "c"
    await runner.start(control, python(spec, STUBBORN))
    await started(spec)
    for child in runner._children.values():
        child.kill()
    assert await runner.wait(control) is None
    assert (await runner.recover(control)).state is Recovery.LOST


async def test_an_attempt_declared_never_started_never_starts(
    runner: ProcessRunner, spec: ProcessSpec, tmp_path: Path
) -> None:
    control = tmp_path / "c"
    (control / "tmp").mkdir(parents=True)
    assert (await runner.recover(control)).state is Recovery.NEVER_STARTED
    await runner.start(control, python(spec, "print('ran')"))  # the wrapper that came too late
    assert await runner.wait(control) is None
    assert not spec.stdout_path.exists()


async def test_a_wrapper_that_waited_while_its_attempt_was_given_up_and_cleared_away_runs_nothing(
    runner: ProcessRunner, spec: ProcessSpec, tmp_path: Path
) -> None:
    control = tmp_path / "c"
    (control / "tmp").mkdir(parents=True)
    with runner_lock(control):
        await runner.start(control, python(spec, "print('ran')"))
        (child,) = runner._children.values()
        async with asyncio.timeout(30):
            while str(control / "lock") not in open_files(child.pid):  # it waits for its lock
                await asyncio.sleep(0.01)
        runner.forget(control)
    assert await child.wait() == 0
    assert not spec.stdout_path.exists()
    assert not control.exists()


def open_files(pid: int) -> set[str]:
    """Paths of what a process has open."""
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(link))
    return found


@contextlib.contextmanager
def runner_lock(control: Path) -> Iterator[None]:
    """Held as recovery holds it."""
    descriptor = os.open(control / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap")
async def test_inside_the_sandbox_nothing_else_exists(spec: ProcessSpec, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "identity.key").write_text("secret")
    runner = await ProcessRunner.probe(sandbox="auto", hidden=[hidden])
    program = """
    import os, socket, sys
    def attempt(what, act):
        try:
            print(what, "done", act())
        except OSError as error:
            print(what, type(error).__name__)
    attempt("key", lambda: open(sys.argv[1]).read())
    attempt("shadow", lambda: open("/etc/shadow").read())
    attempt("input", lambda: open("input/new", "w").write("x"))
    attempt("output", lambda: open("output/new", "w").write("x"))
    attempt("network", lambda: socket.create_connection(("127.0.0.1", int(sys.argv[2])), 2))
    print("pids", len([p for p in os.listdir("/proc") if p.isdigit()]))
    """
    with __import__("socket").create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        await run(runner, python(spec, program, str(hidden / "identity.key"), port), tmp_path / "c")
    said = spec.stdout_path.read_text().splitlines()
    assert said[0] == "key FileNotFoundError"
    assert said[1] == "shadow FileNotFoundError"
    assert said[2].startswith("input ") and "done" not in said[2]
    assert said[3] == "output done 1"
    assert "done" not in said[4]
    assert int(said[5].split()[1]) <= 3
    for path in (hidden, tmp_path, hidden / "identity.key"):
        with pytest.raises(PeerdError) as caught:
            await runner.start(tmp_path / "d", replace(spec, read_only_paths=(path,)))
        assert caught.value.reason is Reason.INVALID_ARGUMENT


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap")
async def test_a_job_with_links_that_lead_in_a_circle_ends_and_says_so(spec: ProcessSpec, tmp_path: Path) -> None:
    runner = await ProcessRunner.probe(sandbox="auto", hidden=[tmp_path / "hidden"])
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    ended = await run(runner, replace(spec, read_only_paths=(tmp_path / "circle",)), tmp_path / "c")
    assert ended.exit_code and "circle" in spec.stderr_path.read_text()


async def test_many_at_once(runner: ProcessRunner, spec: ProcessSpec, tmp_path: Path) -> None:
    async def one(number: int) -> int | None:
        mine = replace(
            spec,
            marker=f"{spec.marker}-{number}",
            stdout_path=tmp_path / f"{number}.out",
            stderr_path=tmp_path / f"{number}.err",
        )
        return (await run(runner, mine, tmp_path / f"c{number}")).exit_code

    assert await asyncio.gather(*(one(number) for number in range(50))) == [0] * 50
