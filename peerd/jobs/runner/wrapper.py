"""Stands between the daemon and one attempt of a job; outlives the daemon and keeps how the attempt ended.

Run as ``python -I -S wrapper.py CONTROL`` in a session of its own. Standard library only, and little of it: it starts
once per attempt. CONTROL is a directory that the job cannot see:

    spec.json     what to run, written by the daemon before this program starts
    lock          held (flock) by this program as long as it lives
    abandoned     written by the daemon, under the lock, when it found that this attempt never started; then it
                  never will
    started.json  written before the command is started: from here on the attempt may have had effects
    exit.json     how it ended, and which limit it hit, if any

The first process of the job is the job: when it ends, everything else of it is killed. In bubblewrap the end of the pid
namespace does that; outside, this program is the subreaper of all descendants and also finds those that carry the
job's marker in their environment. Refuses nothing and decides nothing: what may run was decided before.
"""

from __future__ import annotations

import binascii
import ctypes
import errno
import fcntl
import json
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False  # as typing has it, without the cost of importing typing at each start
if TYPE_CHECKING or __name__ != "__main__":
    from peerd.jobs.runner import bounds
    from peerd.jobs.runner.capped import Capped
    from peerd.jobs.runner.masking import Masker
    from peerd.jobs.runner.processes import executable, family, send
else:
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))
    import bounds
    from capped import Capped
    from masking import Masker
    from processes import executable, family, send
if TYPE_CHECKING:
    from typing import Any

PR_SET_CHILD_SUBREAPER = 36
BLOCK = 1024 * 1024
POLL_SECONDS = 0.02
FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
FULL_SECONDS = 0.5
"""How often a full disk is asked again."""


def main() -> int:
    """Run the attempt described in the control directory given as argument."""
    control = sys.argv[1]
    lock = os.open(os.path.join(control, "lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    if os.path.exists(os.path.join(control, "abandoned")) or os.path.exists(os.path.join(control, "started.json")):
        return 0
    try:
        with open(os.path.join(control, "spec.json"), encoding="utf-8") as file:
            spec = json.load(file)
    except FileNotFoundError:  # the attempt was given up and cleared away
        return 0
    secrets = take_secrets() if spec.get("secrets") else {"env": {}, "files": {}}
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    keep(control, "started.json", {"pid": os.getpid(), "started_at": now()})
    outcome = Attempt(spec, secrets).run()
    keep_at_last(control, "exit.json", outcome)
    return 0


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def take_secrets() -> dict[str, dict[str, bytes]]:
    """What the daemon handed over as our stdin, which is closed with that: nothing of it is ever written."""
    with open(0, "rb", closefd=False) as file:
        content = json.load(file)
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    os.close(nothing)
    return {
        kind: {name: binascii.a2b_base64(value) for name, value in values.items()} for kind, values in content.items()
    }


def keep(control: str, name: str, content: dict[str, object]) -> None:
    """Write a file so that it is there, whole, after a power cut."""
    path = os.path.join(control, name)
    descriptor = os.open(path + ".tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        data = json.dumps(content).encode()
        while data:  # the last block of a disk may take a part
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(path + ".tmp", path)
    directory = os.open(control, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def keep_at_last(control: str, name: str, content: dict[str, object]) -> None:
    """Keep it as soon as the disk has room: what a job has done must not be forgotten for the lack of a block.

    Until then the attempt counts as running, since its lock is held.
    """
    while True:
        try:
            return keep(control, name, content)
        except OSError as error:
            if error.errno not in FULL_ERRNOS:
                raise
        time.sleep(FULL_SECONDS)


class Attempt:
    """One process with its pipes, its time limit and its end."""

    def __init__(self, spec: dict[str, Any], secrets: dict[str, dict[str, bytes]]) -> None:
        self.spec = spec
        self.secrets = secrets
        self.stdin_files = list(spec["stdin_files"])
        self.stdin_source: int | None = None
        self.stdin_pending = b""
        self.stop_asked = False
        self.outcome = "exited"
        self.kill_at: float | None = None
        self.logs: dict[int, Capped] = {}
        self.child = 0
        self.bounds = bounds.Bounds(spec.get("limits") or {}, lambda: family(spec["marker"]))
        # A signal must end a poll at once: Python itself would go on waiting after its handler ran.
        self.woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self.on_term)

    def run(self) -> dict[str, object]:
        """Start, pump, wait, clean up; returns the content of exit.json."""
        started = now()
        try:
            values = [value for kind in self.secrets.values() for value in kind.values()]
            stdout = Capped(self.spec["stdout_path"], self.spec["output_cap_bytes"], Masker(values))
            stderr = Capped(self.spec["stderr_path"], self.spec["output_cap_bytes"], Masker(values))
            self.bounds.begin()
            held = self.hold_secrets()  # before the job's limits are ours: one on disk would cut them short
            try:
                self.bounds.enter()
                self.spawn(held)
            finally:
                self.bounds.leave(self.child)
        except OSError as error:
            self.kill_the_rest()
            self.bounds.close()
            return {"outcome": "spawn_failed", "message": str(error), "started_at": started, "ended_at": now()}
        self.logs = {self.out: stdout, self.err: stderr}
        status = self.pump()
        self.kill_the_rest()
        self.drain()
        code = os.waitstatus_to_exitcode(status)
        limit = self.bounds.judge(code)
        if limit and self.outcome == "exited":
            self.outcome = "limited"
        message = self.bounds.words() if self.outcome == "limited" else self.bounds.note()
        self.bounds.close()
        for log in (stdout, stderr):
            log.finish()
        return {
            "outcome": self.outcome,
            "exit_code": code if code >= 0 else 128 - code,
            "message": message,
            "limit": limit,
            "started_at": started,
            "ended_at": now(),
            "stdout_dropped": stdout.dropped,
            "stderr_dropped": stderr.dropped,
        }

    def hold_secrets(self) -> dict[int, int]:
        """Memory with each secret that appears as a file, by the descriptor that the command gets it as."""
        held = {}
        for name, number in self.spec.get("secret_descriptors", {}).items():
            held[number] = os.memfd_create(name)
            os.write(held[number], self.secrets["files"][name])
            os.lseek(held[number], 0, os.SEEK_SET)
        return held

    def spawn(self, held: dict[int, int]) -> None:
        """Start the command on the vfork path: no Python runs between fork and exec."""
        in_read, self.inp = os.pipe2(os.O_CLOEXEC)
        self.out, out_write = os.pipe2(os.O_CLOEXEC)
        self.err, err_write = os.pipe2(os.O_CLOEXEC)
        for descriptor in (self.inp, self.out, self.err):
            os.set_blocking(descriptor, False)
        os.chdir(self.spec["cwd"])
        actions = [
            (os.POSIX_SPAWN_DUP2, in_read, 0),
            (os.POSIX_SPAWN_DUP2, out_write, 1),
            (os.POSIX_SPAWN_DUP2, err_write, 2),
        ]
        actions += [(os.POSIX_SPAWN_DUP2, descriptor, number) for number, descriptor in held.items()]
        try:
            self.child = os.posix_spawn(
                self.spec["argv"][0],
                self.spec["argv"],
                {**self.spec["env"], **self.secrets["env"]},
                file_actions=actions,
                setpgroup=0,
                setsigdef=[signal.SIGTERM, signal.SIGPIPE],
                setsigmask=[],
            )
        finally:
            for descriptor in (in_read, out_write, err_write, *held.values()):
                os.close(descriptor)

    def on_term(self, *_: object) -> None:
        """The daemon wants the job ended."""
        self.stop_asked = True

    def pump(self) -> int:
        """Move bytes until the first process has ended; returns its wait status."""
        deadline = time.monotonic() + self.spec["timeout_seconds"] if self.spec["timeout_seconds"] else None
        pidfd = os.pidfd_open(self.child)
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        for descriptor in (self.out, self.err, self.woken):
            poller.register(descriptor, select.POLLIN)
        self.feed(poller, first=True)
        while True:
            moment = time.monotonic()
            if self.kill_at is None and moment >= self.bounds.next_at and self.bounds.look():
                self.outcome = "limited"
                self.kill_at = moment  # at once: what it does in a grace may be just what must not go on
            if self.kill_at is None and self.stop_asked:
                self.end("killed")
            elif self.kill_at is None and deadline is not None and moment >= deadline:
                self.end("timed_out")
            elif self.kill_at is not None and moment >= self.kill_at:
                self.signal_all(signal.SIGKILL)
                self.kill_at = moment + POLL_SECONDS * 5
            ahead = (deadline, self.bounds.next_at) if self.kill_at is None else (self.kill_at,)
            wait = min((t - moment for t in ahead if t is not None), default=1.0)
            for descriptor, _event in poller.poll(max(0, min(wait, 1.0)) * 1000):
                if descriptor == pidfd:
                    os.close(pidfd)
                    _, status = os.waitpid(self.child, 0)
                    return status
                if descriptor == self.inp:
                    self.feed(poller)
                elif descriptor == self.woken:
                    os.read(self.woken, 64)
                else:
                    self.read(descriptor, poller)

    def end(self, outcome: str) -> None:
        """Ask everything of the job to end; after the grace it is killed."""
        self.outcome = outcome
        self.kill_at = time.monotonic() + self.spec["grace_seconds"]
        self.signal_all(signal.SIGTERM)

    def read(self, descriptor: int, poller: select.poll | None = None) -> bool:
        """Take one block; stop listening at the end of the stream. False when there is nothing more now."""
        try:
            data = os.read(descriptor, BLOCK)
        except BlockingIOError:
            return False
        if not data:
            if poller is not None:
                poller.unregister(descriptor)
            return False
        self.logs[descriptor].write(data)
        return True

    def drain(self) -> None:
        """What the pipes still hold, after every writer is gone."""
        for descriptor in (self.out, self.err):
            while self.read(descriptor):
                pass

    def feed(self, poller: select.poll, *, first: bool = False) -> None:
        """Give stdin the next piece of its files. A job that does not read, or closes stdin, is no error."""
        if first:
            if not self.stdin_files:
                os.close(self.inp)
                return
            poller.register(self.inp, select.POLLOUT)
        try:
            while True:
                if not self.stdin_pending and not self.next_piece():
                    break
                self.stdin_pending = self.stdin_pending[os.write(self.inp, self.stdin_pending) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            pass
        poller.unregister(self.inp)
        os.close(self.inp)

    def next_piece(self) -> bool:
        """Read the next block of the concatenation; False at its end."""
        while True:
            if self.stdin_source is None:
                if not self.stdin_files:
                    return False
                self.stdin_source = os.open(self.stdin_files.pop(0), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            self.stdin_pending = os.read(self.stdin_source, BLOCK)
            if self.stdin_pending:
                return True
            os.close(self.stdin_source)
            self.stdin_source = None

    def signal_all(self, number: int) -> None:
        """Signal every process of the job. The sandbox itself is spared a TERM: its end would be theirs, ungraced."""
        if number == signal.SIGKILL:
            self.bounds.kill()
        # Parents first, which are older: a shell whose child dies before it would go on to its next line.
        for pid in sorted(family(self.spec["marker"])):
            if number == signal.SIGTERM and executable(pid) == self.spec["sandbox"]:
                continue
            send(pid, number)

    def kill_the_rest(self) -> None:
        """Kill whatever the job left behind, until nothing of it lives; reap what became ours."""
        while True:
            self.bounds.kill()
            rest = family(self.spec["marker"])
            for pid in rest:
                send(pid, signal.SIGKILL)
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                if not rest:
                    return
            if rest:
                time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
