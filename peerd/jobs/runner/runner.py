"""The daemon's side of an attempt: start its wrapper, wait for it, find it again after a restart, end it.

All that matters lies in the attempt's control directory (see :mod:`peerd.jobs.runner.wrapper`), so a daemon that
starts anew knows as much as the one that was killed. Whether a wrapper lives is asked of its lock, never of a pid that
may by now be somebody else's.
"""

from __future__ import annotations

import asyncio
import base64
import fcntl
import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import structlog

from peerd.clock import Millis
from peerd.errors import PeerdError, Reason
from peerd.jobs.runner import processes, wrapper
from peerd.jobs.runner.limits import Backend, base
from peerd.jobs.runner.limits import probe as probe_groups
from peerd.jobs.runner.sandbox import FIRST_SECRET_DESCRIPTOR, INSIDE, SANDBOX_PIDS, Bubblewrap
from peerd.jobs.runner.spec import Exit, Outcome, ProcessSpec, Recovered, Recovery, Secrets
from peerd.v1.registry_pb2 import IsolationLevel, LimitsLevel

_log = structlog.get_logger(__name__)

_POLL_SECONDS = 0.05
_DATA_MARGIN_BYTES = 64 << 20
"""Without control groups a job is ended when it is seen to hold too much; the kernel's own limit lies well above."""
_STOP_MARGIN_SECONDS = 15.0
"""How long after the grace a wrapper may need before it is killed itself; a busy disk takes seconds to keep an end."""


class ProcessRunner:
    """Runs attempts on this machine."""

    def __init__(self, sandbox: Bubblewrap | None, groups: Backend | None = None) -> None:
        self._sandbox = sandbox
        self._groups = groups
        self._children: dict[Path, asyncio.subprocess.Process] = {}

    @classmethod
    async def probe(cls, *, sandbox: str, hidden: Iterable[Path], limits: str = "auto") -> ProcessRunner:
        """A runner with the best isolation that works here; ``sandbox="none"`` asks for none.

        ``limits="rlimits"`` asks for no control groups.
        """
        groups = None if limits == "rlimits" else await asyncio.to_thread(probe_groups)
        return cls(None if sandbox == "none" else await Bubblewrap.probe(hidden), groups)

    @property
    def isolation(self) -> IsolationLevel.ValueType:
        """What jobs get here."""
        return (
            IsolationLevel.ISOLATION_LEVEL_NONE if self._sandbox is None else IsolationLevel.ISOLATION_LEVEL_BUBBLEWRAP
        )

    @property
    def limits(self) -> LimitsLevel.ValueType:
        """How limits are kept here."""
        return LimitsLevel.LIMITS_LEVEL_RLIMITS if self._groups is None else LimitsLevel.LIMITS_LEVEL_CGROUP

    @property
    def limits_text(self) -> str:
        """The same for people."""
        if self._groups is None:
            return "no control groups: memory and processes are looked at now and then"
        cpus = "" if self._groups.limits_cpus else ", without cpus"
        return f"{self._groups.name}{cpus}"

    @property
    def limits_cpus(self) -> bool:
        """Whether a job gets no more processor time than it asked for."""
        return self._groups is not None and self._groups.limits_cpus

    async def start(self, control: Path, spec: ProcessSpec) -> None:
        """Start the attempt. Raises INVALID_ARGUMENT when its paths would show what must stay hidden."""
        content = self._content(control, spec)
        await asyncio.to_thread(self._prepare, control, spec, content)
        with open(control / "wrapper.log", "ab") as log, ExitStack() as stack:
            self._children[control] = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", wrapper.__file__, str(control),
                stdin=stack.enter_context(_handed_over(spec.secrets)), stdout=log, stderr=log,
                env={}, start_new_session=True, cwd="/",
            )  # fmt: skip

    async def wait(self, control: Path) -> Exit | None:
        """How the attempt ended, once it has; None when its wrapper died without saying (then nothing of it lives)."""
        child = self._children.get(control)
        if child is not None:
            await child.wait()
            self._children.pop(control, None)
        while is_locked(control):  # noqa: ASYNC110 - another process sets no event of ours
            await asyncio.sleep(_POLL_SECONDS)
        exit_ = read_exit(control)
        if exit_ is None:
            await self._end_marked(control)
        return exit_

    async def recover(self, control: Path) -> Recovered:
        """What became of an attempt that an earlier daemon may have started."""
        exit_ = read_exit(control)
        if exit_ is not None:
            return Recovered(state=Recovery.FINISHED, exit=exit_)
        if not control.exists():
            return Recovered(state=Recovery.NEVER_STARTED)
        with Lock(control) as mine:
            if not mine:
                return Recovered(state=Recovery.RUNNING)
            exit_ = read_exit(control)
            if exit_ is not None:
                return Recovered(state=Recovery.FINISHED, exit=exit_)
            if not (control / "started.json").exists():
                # Under the lock: a wrapper that is only now getting to its first line will see this and stop.
                wrapper.keep(str(control), "abandoned", {})
                return Recovered(state=Recovery.NEVER_STARTED)
        await self._end_marked(control)
        return Recovered(state=Recovery.LOST)

    async def stop(self, control: Path, grace_seconds: float) -> Exit | None:
        """End the attempt: TERM, the spec's grace, KILL. Returns when nothing of it lives.

        None when there was no orderly end to record.
        """
        _signal_wrapper(control, signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_seconds + _STOP_MARGIN_SECONDS):
                return await self.wait(control)
        except TimeoutError:
            _signal_wrapper(control, signal.SIGKILL)
            return await self.wait(control)

    def forget(self, control: Path) -> None:
        """Remove the control directory of an attempt whose end is recorded elsewhere, and its group if it is left."""
        _end_group(control)
        # First what a wrapper needs to run: one that comes late must find an order to stop, or no order at all.
        (control / "spec.json").unlink(missing_ok=True)
        shutil.rmtree(control, ignore_errors=True)

    def sweep(self, control_root: Path, wanted: Iterable[Path]) -> None:
        """Kill and remove the groups of this executor whose attempts are no longer open. Blocking."""
        if self._groups is None:
            return
        owner = _owner(control_root)
        kept = {f"{owner}/{control.name}" for control in wanted}
        for name in self._groups.names(owner):
            if name.rpartition("-")[0] not in kept:
                base.remove(self._groups.describe(name))

    def _prepare(self, control: Path, spec: ProcessSpec, content: dict[str, Any]) -> None:
        """Limits, their group and the spec are there before the wrapper is. Raises OSError."""
        (control / "tmp").mkdir(mode=0o700, parents=True, exist_ok=True)
        limits = spec.limits
        if self._sandbox is not None and limits.pids:
            limits = replace(limits, pids=limits.pids + SANDBOX_PIDS)
        rlimits = {"RLIMIT_CORE": 0}
        if limits.disk_bytes:
            # The sandbox writes the files of secrets, within the limits of the job.
            rlimits["RLIMIT_FSIZE"] = max([limits.disk_bytes, *map(len, spec.secrets.files.values())])
        if limits.memory_bytes and self._groups is None:
            rlimits["RLIMIT_DATA"] = 2 * limits.memory_bytes + _DATA_MARGIN_BYTES
        group = None
        if self._groups is not None:
            name = f"{_owner(control.parent)}/{control.name}-{_short(spec.marker)}"
            stale = self._groups.describe(name)
            base.remove(stale)
            wrapper.keep(str(control), "group.json", asdict(stale))
            group = asdict(self._groups.create(name, limits))
        content["limits"] = {
            **asdict(limits),
            "shown_pids": spec.limits.pids,
            "disk_paths": [str(spec.job_directory / name) for name in ("output", "mounts")],
            "rlimits": rlimits,
            "group": group,
        }
        wrapper.keep(str(control), "spec.json", content)

    def _content(self, control: Path, spec: ProcessSpec) -> dict[str, Any]:
        if spec.secrets.files and self._sandbox is None:
            raise PeerdError(
                Reason.ISOLATION_INSUFFICIENT, "secrets appear as files in a sandbox only, and this machine has none"
            )
        inside = INSIDE if self._sandbox is not None else spec.job_directory
        scratch = "/tmp" if self._sandbox is not None else str(control / "tmp")  # noqa: S108 - the sandbox's own
        env = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": scratch,
            "TMPDIR": scratch,
            "LANG": "C.UTF-8",
            **{f"PEERD_{name.upper()}": str(inside / name) for name in ("input", "output", "mounts", "package")},
            **({"PEERD_SECRETS": str(inside / "secrets")} if spec.secrets.files else {}),
            **spec.env,
            "PEERD_JOB": spec.marker,
        }
        spec = ProcessSpec(**{**spec.__dict__, "env": env})
        if self._sandbox is not None:
            argv = self._sandbox.command(spec)
        else:
            argv = [shutil.which(spec.argv[0], path=env["PATH"]) or spec.argv[0], *spec.argv[1:]]
        return {
            "marker": spec.marker,
            "argv": argv,
            "env": env,
            "cwd": str(spec.job_directory),
            "stdin_files": [str(path) for path in spec.stdin_files],
            "stdout_path": str(spec.stdout_path),
            "stderr_path": str(spec.stderr_path),
            "output_cap_bytes": spec.output_cap_bytes,
            "timeout_seconds": spec.timeout_seconds,
            "grace_seconds": spec.grace_seconds,
            "sandbox": self._sandbox.program if self._sandbox is not None else "",
            "secrets": bool(spec.secrets),
            "secret_descriptors": {
                name: FIRST_SECRET_DESCRIPTOR + number for number, name in enumerate(spec.secrets.files)
            },
        }

    async def _end_marked(self, control: Path) -> None:
        """Kill what a dead wrapper left running; bubblewrap's jobs died with it, others may not have."""
        await asyncio.to_thread(_end_group, control)
        try:
            marker = json.loads((control / "spec.json").read_text(encoding="utf-8"))["marker"]
        except (OSError, ValueError, KeyError):
            return
        while rest := await asyncio.to_thread(processes.marked, marker):
            for pid in rest:
                processes.send(pid, signal.SIGKILL)
            await asyncio.sleep(_POLL_SECONDS)


class Lock:
    """The wrapper's lock, if it can be had: then no wrapper lives."""

    def __init__(self, control: Path) -> None:
        self._path = control / "lock"

    def __enter__(self) -> bool:
        self._descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def is_locked(control: Path) -> bool:
    """Whether somebody holds the attempt of this control directory."""
    if not control.exists():
        return False
    with Lock(control) as mine:
        return not mine


def _owner(control_root: Path) -> str:
    """Names the groups of one executor: several may run on one machine."""
    return _short(str(control_root))


@contextmanager
def _handed_over(secrets: Secrets) -> Iterator[int]:
    """A descriptor that the wrapper reads secrets from: memory of the kernel without a name, and no file."""
    if not secrets:
        yield asyncio.subprocess.DEVNULL
        return
    descriptor = os.memfd_create("secrets")
    try:
        content = {"env": _encoded(secrets.env), "files": _encoded(secrets.files)}
        with open(descriptor, "wb", closefd=False) as file:
            file.write(json.dumps(content).encode())
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def _encoded(values: Mapping[str, bytes]) -> dict[str, str]:
    return {name: base64.b64encode(value).decode() for name, value in values.items()}


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _end_group(control: Path) -> None:
    """Kill and remove the group of an attempt, whoever made it."""
    try:
        group = base.Group(**_tuples(json.loads((control / "group.json").read_text(encoding="utf-8"))))
    except (OSError, ValueError, TypeError):
        return  # it has none
    if not base.remove(group):
        _log.warning("job.group_stays", folders=group.folders)


def _tuples(content: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}


def read_exit(control: Path) -> Exit | None:
    """The recorded end, if there is one."""
    try:
        content = json.loads((control / "exit.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Exit(
        outcome=Outcome(content["outcome"]),
        exit_code=content.get("exit_code"),
        started_at=Millis(content["started_at"]),
        ended_at=Millis(content["ended_at"]),
        message=content["message"],
        limit=content.get("limit", ""),
        reason=content.get("reason", ""),
        stdout_truncated=bool(content.get("stdout_dropped")),
        stderr_truncated=bool(content.get("stderr_dropped")),
    )


def _signal_wrapper(control: Path, number: signal.Signals) -> None:
    send_to(wrapper.__file__, control, number)


def send_to(program: str, control: Path, number: signal.Signals) -> None:
    """Signal who holds this control directory, found by its command line: pids are reused, paths are not."""
    wanted = str(control).encode()
    for pid, _ in processes.running():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if wanted in command and program.encode() in command:
            processes.send(pid, number)
