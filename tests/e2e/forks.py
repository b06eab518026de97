"""Processes of ``peerd`` and ``peerctl`` without the second of CPU that each costs an interpreter to import them.

A server, one for each test process, imports everything once and becomes, in a fork of its own, what it is asked for:
with the arguments, environment, descriptors and ``main`` that the console script would have. What needs a new program
image (another network namespace, a preloaded library, its own command line in ``/proc``) is started as usual.
"""

from __future__ import annotations

import atexit
import faulthandler
import functools
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

PROGRAMS = {"peerd": "peerd.__main__", "peerctl": "peerd.cli"}
"""The console scripts of pyproject.toml, by the modules whose ``main`` they call."""
ALSO = ("peerd.daemon.daemon", "peerd.logs")
"""What they import when they run."""
_LONGEST_REQUEST = 1 << 20


class Fork:
    """A process that the server made, with as much of :class:`subprocess.Popen` as tests use."""

    def __init__(self, reports: int) -> None:
        self._reports = os.fdopen(reports, "rb", buffering=0)  # what was read ahead would not be seen by select
        self.pid = int(self._reports.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended; minus the signal's number if that ended it."""
        code = self._ended(timeout)
        if code is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
        return code

    def send_signal(self, number: int) -> None:
        """Nothing happens once it has ended: the number may be another process by now."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """At once."""
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._reports], [], [], timeout)[0]:
            line = self._reports.readline()
            assert line, "the server of forks has ended"
            self.returncode = os.waitstatus_to_exitcode(int(line))
            self._reports.close()
        return self.returncode


def start(
    program: str, arguments: Sequence[str], environ: Mapping[str, str], *, stdin: int, stdout: int, stderr: int
) -> Fork:
    """A new process of one of :data:`PROGRAMS`."""
    request = {"program": program, "arguments": list(arguments), "environ": dict(environ), "directory": os.getcwd()}
    reports, report = os.pipe2(os.O_CLOEXEC)
    try:
        socket.send_fds(_server(), [json.dumps(request).encode()], [stdin, stdout, stderr, report])
    finally:
        os.close(report)
    return Fork(reports)


def run(
    program: str, arguments: Sequence[str], environ: Mapping[str, str], *, stdin: str | None, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run it to its end, as :func:`subprocess.run` does with captured text."""
    with (
        tempfile.TemporaryFile("w+") as given,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
    ):
        given.write(stdin or "")
        given.seek(0)
        started = start(
            program, arguments, environ, stdin=given.fileno(), stdout=out.fileno(), stderr=err.fileno()
        )  # fmt: skip
        try:
            code = started.wait(timeout)
        except BaseException:
            started.kill()
            raise
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess([program, *arguments], code, out.read(), err.read())


@functools.cache
def _server() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, str(Path(__file__)), str(theirs.fileno())]
        serving = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)

    def end() -> None:
        ours.close()
        serving.wait(10)

    atexit.register(end)
    return ours


# In the server


def _serve(channel: socket.socket) -> str:
    """Fork for each request. Returns in the child, with the program to be; ends with the one who asks."""
    poller = select.poll()
    poller.register(channel, select.POLLIN)
    running: dict[int, tuple[int, int]] = {}
    while True:
        for descriptor, _ in poller.poll():
            if descriptor != channel.fileno():
                poller.unregister(descriptor)
                pid, report = running.pop(descriptor)
                _tell(report, os.waitpid(pid, 0)[1])
                os.close(report)
                os.close(descriptor)
                continue
            message, descriptors, _, _ = socket.recv_fds(channel, _LONGEST_REQUEST, 4)
            if not message:
                sys.exit(0)
            pid = os.fork()
            if not pid:
                for number, given in enumerate(descriptors[:3]):
                    os.dup2(given, number)
                reported = [report for _, report in running.values()]
                os.closerange(3, max(*descriptors, descriptor, *running, *reported) + 1)
                return _become(json.loads(message))
            *given_away, report = descriptors
            for each in given_away:
                os.close(each)
            _tell(report, pid)
            pidfd = os.pidfd_open(pid)
            running[pidfd] = pid, report
            poller.register(pidfd, select.POLLIN)


def _tell(report: int, number: int) -> None:
    try:
        os.write(report, f"{number}\n".encode())
    except BrokenPipeError:
        pass  # nobody waits for it


def _become(request: dict[str, object]) -> str:
    """Take over what a new program image would start with."""
    from peerd import failpoints

    program, arguments, environ = request["program"], request["arguments"], request["environ"]
    assert isinstance(program, str) and isinstance(arguments, list) and isinstance(environ, dict)
    os.environ.clear()
    os.environ.update(environ)
    time.tzset()
    if os.environ.get("PYTHONFAULTHANDLER"):
        faulthandler.enable()
    failpoints.arm(os.environ.get("PEERD_FAILPOINT", ""))
    os.chdir(str(request["directory"]))
    sys.argv = [program, *arguments]
    return program


def _import_everything() -> None:
    for name in (*PROGRAMS.values(), *ALSO):
        importlib.import_module(name)
    commands = importlib.import_module("peerd.cli")
    for module in pkgutil.iter_modules(commands.__path__, "peerd.cli."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    assert len(os.listdir("/proc/self/task")) == 1, "a thread would not be in a fork"
    gc.freeze()


def main() -> None:
    """The server, on the socket whose number is the argument; or, in a fork of it, one of the programs."""
    sys.path[0] = str(Path(__file__).parents[2])  # as the tests find it; never this folder
    _import_everything()
    program = _serve(socket.socket(fileno=int(sys.argv[1])))
    importlib.import_module(PROGRAMS[program]).main()


if __name__ == "__main__":
    main()
