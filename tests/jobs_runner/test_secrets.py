"""Secrets of an attempt: in its environment and its files, and nowhere else."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from peerd.errors import PeerdError, Reason
from peerd.jobs.runner import Limits, ProcessRunner, ProcessSpec, Secrets, processes
from peerd.v1.registry_pb2 import ISOLATION_LEVEL_BUBBLEWRAP

SECRET = b"s3cret-\xc3\xa9-value"
BOXED = pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap")
# Says what it got only in a form that is not masked: reversed.
TELL = "import os, sys; sys.stdout.buffer.write(os.environb[b'TOKEN'][::-1])"


@pytest.fixture(params=["none", pytest.param("auto", marks=BOXED)])
async def runner(request: pytest.FixtureRequest) -> ProcessRunner:
    return await ProcessRunner.probe(sandbox=request.param, hidden=[])


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


def command_lines() -> Iterator[bytes]:
    for pid, _ in processes.running():
        try:
            yield Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue


async def finish(runner: ProcessRunner, control: Path, spec: ProcessSpec) -> bytes:
    await runner.start(control, spec)
    exit_ = await runner.wait(control)
    assert exit_ is not None
    assert exit_.exit_code == 0, (exit_, spec.stderr_path.read_bytes())
    return spec.stdout_path.read_bytes()


async def test_a_variable_reaches_the_job(runner: ProcessRunner, spec: ProcessSpec, tmp_path: Path) -> None:
    spec = replace(spec, argv=(sys.executable, "-c", TELL), secrets=Secrets(env={"TOKEN": SECRET}))
    assert await finish(runner, tmp_path / "control", spec) == SECRET[::-1]


async def test_other_variables_are_as_without(runner: ProcessRunner, spec: ProcessSpec, tmp_path: Path) -> None:
    spec = replace(spec, argv=("/usr/bin/env",), env={"MINE": "1"})
    plain = await finish(runner, tmp_path / "plain", spec)
    secret = await finish(runner, tmp_path / "secret", replace(spec, secrets=Secrets(env={"TOKEN": SECRET})))
    names = {line.partition(b"=")[0] for line in secret.splitlines()}
    assert names - {b"TOKEN", b"PWD"} == {line.partition(b"=")[0] for line in plain.splitlines()} - {b"PWD"}
    assert names - {b"PWD"} == {
        b"PATH", b"HOME", b"TMPDIR", b"LANG", b"MINE", b"TOKEN", b"PEERD_JOB",
        *(f"PEERD_{name}".encode() for name in ("INPUT", "OUTPUT", "MOUNTS", "PACKAGE")),
    }  # fmt: skip


async def test_what_it_writes_is_masked_in_both_logs(runner: ProcessRunner, spec: ProcessSpec, tmp_path: Path) -> None:
    program = (
        "import os, sys, time\nvalue = os.environb[b'TOKEN']\n"
        "for stream in (sys.stdout.buffer, sys.stderr.buffer):\n"
        "    stream.write(b'it is ' + value[:5]); stream.flush(); time.sleep(0.05)\n"
        "    stream.write(value[5:] + b'!' + value[:7]); stream.flush()\n"
    )
    spec = replace(spec, argv=(sys.executable, "-c", program), secrets=Secrets(env={"TOKEN": SECRET}))
    assert await finish(runner, tmp_path / "control", spec) == b"it is ***!" + SECRET[:7]
    assert spec.stderr_path.read_bytes() == b"it is ***!" + SECRET[:7]


async def test_nothing_of_it_is_on_disk_or_on_a_command_line(
    runner: ProcessRunner,
    spec: ProcessSpec,
    tmp_path: Path,
) -> None:
    files = {"key": SECRET} if runner.isolation == ISOLATION_LEVEL_BUBBLEWRAP else {}
    program = "import time; print('up', flush=True); time.sleep(60)"
    spec = replace(spec, argv=(sys.executable, "-c", program), secrets=Secrets(env={"TOKEN": SECRET}, files=files))
    control = tmp_path / "control"
    await runner.start(control, spec)
    async with asyncio.timeout(30):
        while not spec.stdout_path.exists() or not spec.stdout_path.read_bytes():
            await asyncio.sleep(0.02)
    lines = list(command_lines())
    assert any(str(control).encode() in line for line in lines)
    assert not any(SECRET in line for line in lines)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert control / "spec.json" in written
    assert not [path for path in written if SECRET in path.read_bytes()]
    await runner.stop(control, 1)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and SECRET in path.read_bytes()]


@BOXED
async def test_a_file_is_there_for_the_job_alone(spec: ProcessSpec, tmp_path: Path) -> None:
    runner = await ProcessRunner.probe(sandbox="auto", hidden=[])
    program = (
        "import os\nplace = os.environ['PEERD_SECRETS'] + '/deploy.key'\n"
        "print(place, oct(os.stat(place).st_mode & 0o777), sorted(os.listdir('/proc/self/fd')))\n"
        "print(open(place).read()[::-1])\n"
        "try:\n    open(place, 'w')\nexcept OSError as error:\n    print('not written:', type(error).__name__)\n"
    )
    value = b"line one\nline two, with more\n"
    spec = replace(
        spec, argv=(sys.executable, "-c", program), secrets=Secrets(files={"deploy.key": value, "b": b"bbbb"})
    )
    said = (await finish(runner, tmp_path / "control", spec)).decode().splitlines()
    assert said[0] == "/job/secrets/deploy.key 0o400 ['0', '1', '2', '3']"
    assert "\n".join(said[1:4]) == value.decode()[::-1]
    assert said[4].startswith("not written:")
    assert not (spec.job_directory / "secrets").exists()


async def test_files_need_a_sandbox(spec: ProcessSpec, tmp_path: Path) -> None:
    runner = await ProcessRunner.probe(sandbox="none", hidden=[])
    with pytest.raises(PeerdError) as refusal:
        await runner.start(tmp_path / "control", replace(spec, secrets=Secrets(files={"a": b"x"})))
    assert refusal.value.reason is Reason.ISOLATION_INSUFFICIENT


def test_a_spec_in_a_log_shows_no_value(spec: ProcessSpec) -> None:
    shown = repr(replace(spec, secrets=Secrets(env={"TOKEN": SECRET}, files={"a": SECRET})))
    assert "s3cret" not in shown and os.fsdecode(SECRET) not in shown


@BOXED
async def test_a_secret_is_whole_though_it_is_larger_than_what_the_job_may_write(
    spec: ProcessSpec, tmp_path: Path
) -> None:
    runner = await ProcessRunner.probe(sandbox="auto", hidden=[])
    large = b"0123456789abcdef" * 4000
    program = "import os; print(len(open(os.environ['PEERD_SECRETS'] + '/key', 'rb').read()))"
    limited = replace(
        spec,
        argv=(sys.executable, "-c", program),
        secrets=Secrets(files={"key": large}),
        limits=Limits(disk_bytes=8192),
    )
    assert await finish(runner, tmp_path / "control", limited) == f"{len(large)}\n".encode()
