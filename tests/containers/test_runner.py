"""One container: how it starts, what it sees, how it ends, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from peerd.catalog.model import ContainerImage
from peerd.errors import PeerdError, Reason
from peerd.jobs.runner import Exit, Limits, Outcome, Recovery
from peerd.jobs.runner.containers.request import Defaults
from peerd.jobs.runner.containers.runner import ContainerRunner
from peerd.jobs.runner.containers.spec import ContainerSpec
from tests.e2e.load import busier

from .podman import IMAGE, Podman

pytestmark = pytest.mark.timeout(300)

DEFAULTS = Defaults(tmp_bytes=16 * 1024**2)
PEER = "peer-of-the-tests"


@pytest.fixture
async def runner(engine: Podman) -> AsyncIterator[ContainerRunner]:
    made = ContainerRunner(str(engine.socket), DEFAULTS, owner=PEER)
    yield made
    for holder in made._children.values():  # those that were killed, or for which another runner waited
        try:
            await asyncio.wait_for(holder.wait(), 30)
        except TimeoutError:
            holder.kill()
            await holder.wait()


@pytest.fixture
def spec(tmp_path: Path) -> ContainerSpec:
    job = tmp_path / "job"
    for name in ("input", "output", "mounts/app", "mounts/ro", "package", "logs"):
        (job / name).mkdir(parents=True, mode=0o700)
    return ContainerSpec(
        marker=f"{PEER}/store/{os.getpid()}-{tmp_path.name}",
        argv=(),
        env={},
        job_directory=job,
        stdin_files=(),
        stdout_path=job / "logs" / "stdout.txt",
        stderr_path=job / "logs" / "stderr.txt",
        output_cap_bytes=1_000_000,
        timeout_seconds=90,
        grace_seconds=1,
        image=ContainerImage(image=IMAGE),
        limits=Limits(memory_bytes=256 * 1024**2, cpus=1, pids=64),
        mounts=(("app", True), ("ro", False)),
    )


def shell(spec: ContainerSpec, script: str, **image: object) -> ContainerSpec:
    """The image's own shell, inside: peerd itself reads nothing of it."""
    return replace(spec, argv=("sh", "-c", script), image=replace(spec.image, **image))  # type: ignore[arg-type]


async def run(runner: ContainerRunner, spec: ContainerSpec, control: Path) -> Exit:
    await runner.start(control, spec)
    ended = await runner.wait(control)
    assert ended is not None, (control / "wrapper.log").read_text()
    return ended


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


def said(spec: ContainerSpec, text: str = "up") -> Callable[[], bool]:
    return lambda: spec.stdout_path.exists() and text in spec.stdout_path.read_text()


async def test_exit_code_and_both_outputs_come_back(
    runner: ContainerRunner, spec: ContainerSpec, tmp_path: Path
) -> None:
    ended = await run(runner, shell(spec, "echo out; echo err >&2; exit 7"), tmp_path / "c")
    assert (ended.outcome, ended.exit_code) == (Outcome.EXITED, 7), (tmp_path / "c" / "wrapper.log").read_text()
    assert spec.stdout_path.read_text() == "out\n"
    assert spec.stderr_path.read_text() == "err\n"
    assert ended.started_at <= ended.ended_at
    assert not ended.stdout_truncated


async def test_a_job_sees_its_own_directories_and_can_change_only_what_it_may(
    runner: ContainerRunner, spec: ContainerSpec, tmp_path: Path
) -> None:
    job = spec.job_directory
    (job / "input" / "in.txt").write_text("in")
    (job / "input" / "in.txt").chmod(0o600)
    (job / "package" / "p.txt").write_text("pack")
    (job / "mounts" / "app" / "a.txt").write_text("app")
    (job / "mounts" / "ro" / "r.txt").write_text("ro")
    script = """
        set -e
        cat /job/input/in.txt $PEERD_PACKAGE/p.txt $PEERD_MOUNTS/app/a.txt /ro/r.txt
        echo; echo made > $PEERD_OUTPUT/o.txt; mkdir /job/output/deep; echo x > /job/output/deep/y; echo w > /app/w.txt
        echo t > /tmp/t; id -u; id -g; env | sort | head -50 >&2
        for place in /job/input /job/package /ro / /etc /bin; do
            if echo no > $place/new 2>/dev/null; then echo "wrote to $place"; fi
        done
        awk '/^(CapEff|CapBnd|NoNewPrivs|Seccomp):/ {print $1 $2}' /proc/self/status
        awk '$2 == "/" {print substr($4, 1, 3)}' /proc/mounts
        ip -o link | wc -l
        ls /proc | awk '/^[0-9]+$/' | wc -l
    """
    ended = await run(runner, shell(spec, script), tmp_path / "c")
    assert ended.exit_code == 0, spec.stderr_path.read_text()
    lines = spec.stdout_path.read_text().splitlines()
    assert lines[:3] == ["inpackappro", "65534", "65534"]
    assert sorted(lines[3:7]) == ["CapBnd:0000000000000000", "CapEff:0000000000000000", "NoNewPrivs:1", "Seccomp:2"]
    assert lines[7] == "ro,", "the root"
    assert lines[8] == "1", "the loopback interface and no other"
    assert int(lines[9]) <= 4, "no process but its own"
    assert (job / "output" / "o.txt").read_text() == "made\n"
    assert (job / "mounts" / "app" / "w.txt").read_text() == "w\n"
    assert f"PEERD_JOB={spec.marker}" in spec.stderr_path.read_text()


async def test_stdin_is_the_files_one_after_the_other_byte_for_byte(
    runner: ContainerRunner, spec: ContainerSpec, tmp_path: Path
) -> None:
    pieces = [os.urandom(3_000_000), b"", os.urandom(17), bytes(range(256)) * 4000]
    files = []
    for number, piece in enumerate(pieces):
        files.append(spec.job_directory / "input" / str(number))
        files[-1].write_bytes(piece)
    spec = replace(spec, stdin_files=tuple(files), output_cap_bytes=100_000_000)
    ended = await run(runner, shell(spec, "cat"), tmp_path / "c")
    assert (ended.outcome, ended.exit_code, ended.stdout_truncated) == (Outcome.EXITED, 0, False)
    assert spec.stdout_path.read_bytes() == b"".join(pieces)


async def test_a_job_that_does_not_read_its_stdin_ends_as_it_likes(
    runner: ContainerRunner, spec: ContainerSpec, tmp_path: Path
) -> None:
    file = spec.job_directory / "input" / "big"
    file.write_bytes(bytes(5_000_000))
    ended = await run(runner, shell(replace(spec, stdin_files=(file,)), "exit 3"), tmp_path / "c")
    assert (ended.outcome, ended.exit_code) == (Outcome.EXITED, 3)


async def test_entrypoint_command_and_working_directory_are_the_services(
    runner: ContainerRunner, spec: ContainerSpec, tmp_path: Path
) -> None:
    image = replace(spec.image, entrypoint=("/bin/busybox", "ls"), working_directory="/bin")
    ended = await run(runner, replace(spec, image=image, argv=("-d", "busybox")), tmp_path / "c")
    assert (ended.exit_code, spec.stdout_path.read_text()) == (0, "busybox\n")


async def test_output_beyond_its_cap_is_dropped_and_told(
    runner: ContainerRunner, spec: ContainerSpec, tmp_path: Path
) -> None:
    ended = await run(runner, shell(spec, "yes | head -c 30000000; echo e >&2"), tmp_path / "c")
    assert (ended.exit_code, ended.stdout_truncated, ended.stderr_truncated) == (0, True, False)
    assert spec.stdout_path.stat().st_size == spec.output_cap_bytes


async def test_output_is_there_while_it_runs(runner: ContainerRunner, spec: ContainerSpec, tmp_path: Path) -> None:
    await runner.start(tmp_path / "c", shell(spec, "echo up; sleep 60"))
    await until(said(spec))
    assert await runner.stop(tmp_path / "c", 1) is not None


async def test_time_out_asks_first_and_kills_after_the_grace(
    runner: ContainerRunner, spec: ContainerSpec, tmp_path: Path
) -> None:
    spec = replace(spec, timeout_seconds=3)  # time for the shell to say what it does with a signal
    polite = "trap 'echo bye; exit 9' TERM; echo up; while true; do sleep 0.1; done"
    ended = await run(runner, shell(replace(spec, grace_seconds=20), polite), tmp_path / "c")
    assert (ended.outcome, ended.exit_code) == (Outcome.TIMED_OUT, 9)
    assert spec.stdout_path.read_text() == "up\nbye\n"
    stubborn = replace(spec, marker=spec.marker + "2")
    ended = await run(runner, shell(stubborn, "trap '' TERM; while true; do sleep 0.1; done"), tmp_path / "c2")
    assert (ended.outcome, ended.exit_code) == (Outcome.TIMED_OUT, 137)
    assert ended.ended_at - ended.started_at < 8000 * busier()


@pytest.mark.parametrize("when", ["at once", "later"])
async def test_stop_leaves_nothing(runner: ContainerRunner, spec: ContainerSpec, tmp_path: Path, when: str) -> None:
    await runner.start(tmp_path / "c", shell(spec, "trap '' TERM; echo up; sleep 60 & sleep 60"))
    if when == "later":
        await until(said(spec))
    ended = await runner.stop(tmp_path / "c", 1)
    assert ended is not None
    assert ended.outcome is Outcome.KILLED


@pytest.mark.parametrize("turn", range(3))
async def test_too_much_memory_is_told_from_failure(
    runner: ContainerRunner, engine: Podman, spec: ContainerSpec, tmp_path: Path, turn: int
) -> None:
    eater = "head -c 200000000 /dev/zero | tr '\\0' x | tail -c 150000000 | wc -c; exit $?"
    greedy = shell(
        replace(spec, limits=Limits(memory_bytes=32 << 20)),
        f"set -e; x=$({eater}); exec dd if=/dev/zero of=/dev/null bs=100M count=1",
    )
    ended = await run(runner, greedy, tmp_path / "c")
    assert (ended.outcome, ended.limit) == (Outcome.LIMITED, "memory_limit"), ended
    assert "32M" in ended.message
    assert turn < 3


async def test_memory_that_is_enough_is_no_failure(
    runner: ContainerRunner, spec: ContainerSpec, tmp_path: Path
) -> None:
    ended = await run(runner, shell(spec, "dd if=/dev/zero of=/dev/null bs=8M count=2; exit 137"), tmp_path / "c")
    assert (ended.outcome, ended.limit, ended.exit_code) == (Outcome.EXITED, "", 137)


async def test_a_fork_bomb_stops_at_its_limit(runner: ContainerRunner, spec: ContainerSpec, tmp_path: Path) -> None:
    bomb = "bomb() { bomb | bomb & }; bomb; for i in $(seq 300); do sleep 20 & done; wait; exit 1"
    ended = await run(runner, shell(replace(spec, timeout_seconds=10, limits=Limits(pids=20)), bomb), tmp_path / "c")
    assert (ended.outcome, ended.limit) == (Outcome.LIMITED, "pids_limit"), ended


async def test_writing_more_than_allowed_ends_it(runner: ContainerRunner, spec: ContainerSpec, tmp_path: Path) -> None:
    spec = replace(spec, limits=Limits(disk_bytes=5_000_000))
    filler = "i=0; while true; do i=$((i+1)); head -c 1000000 /dev/zero > /job/output/$i; sleep 0.02; done"
    ended = await run(runner, shell(spec, filler), tmp_path / "c")
    assert (ended.outcome, ended.limit) == (Outcome.LIMITED, "disk_limit"), ended


async def test_network_is_there_when_granted(runner: ContainerRunner, spec: ContainerSpec, tmp_path: Path) -> None:
    ended = await run(runner, shell(replace(spec, network=True), "ip -o link"), tmp_path / "c")
    assert ended.exit_code == 0, ended
    assert "eth0" in spec.stdout_path.read_text()


async def test_the_image_is_the_one_of_the_digest(
    runner: ContainerRunner, engine: Podman, spec: ContainerSpec, tmp_path: Path
) -> None:
    ended = await run(runner, shell(spec, "exit 0", digest=engine.digest()), tmp_path / "c")
    assert ended.exit_code == 0
    other = replace(spec, marker=spec.marker + "2")
    ended = await run(runner, shell(other, "exit 0", digest="sha256:" + "0" * 64), tmp_path / "c2")
    assert (ended.outcome, ended.reason) == (Outcome.REFUSED, Reason.IMAGE_MISMATCH.text)


@pytest.mark.parametrize("pull", [False, True])
async def test_an_image_that_is_not_there_is_refused(
    runner: ContainerRunner, spec: ContainerSpec, tmp_path: Path, pull: bool
) -> None:
    # Port 9 is closed: asking that registry ends at once.
    ended = await run(runner, shell(spec, "exit 0", image="127.0.0.1:9/none:1", pull=pull), tmp_path / "c")
    assert (ended.outcome, ended.reason) == (Outcome.REFUSED, Reason.IMAGE_NOT_FOUND.text)
    assert ("could not be fetched" in ended.message) == pull, ended.message


async def test_a_program_that_is_not_in_the_image_is_no_exit_code(
    runner: ContainerRunner, spec: ContainerSpec, tmp_path: Path
) -> None:
    ended = await run(runner, replace(spec, argv=("/no/such/program",)), tmp_path / "c")
    assert ended.outcome is Outcome.SPAWN_FAILED
    assert "/no/such/program" in ended.message


async def test_nobody_gets_root(runner: ContainerRunner, spec: ContainerSpec, tmp_path: Path) -> None:
    ended = await run(runner, shell(spec, "id -u; touch /job/output/x", user="4242:4343"), tmp_path / "c")
    assert (ended.exit_code, spec.stdout_path.read_text()) == (0, "4242\n")
    assert (spec.job_directory / "output" / "x").stat().st_uid == 4242


async def test_no_engine_means_wait(spec: ContainerSpec, tmp_path: Path) -> None:
    runner = ContainerRunner(str(tmp_path / "none.sock"), DEFAULTS, owner=PEER)
    with pytest.raises(PeerdError) as caught:
        await runner.start(tmp_path / "c", spec)
    assert caught.value.reason is Reason.ENGINE_UNAVAILABLE
    assert (await runner.recover(tmp_path / "c")).state is Recovery.NEVER_STARTED
