"""Real daemons for tests: processes of ``peerd run`` with their own data directories, trusted to each other."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from peerd.cli.output import to_json
from peerd.client import Client
from tests.e2e import forks

T = TypeVar("T")

# A third of what a start costs is compiling, unless the daemon before could keep what it compiled.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

PROGRAMS = Path(__file__).parent / "programs"
ALL_GRANTS = "observe,execute,operate"


PATIENCE_SECONDS = 60.0
"""How long a test waits for what must come, where how soon is not what it tests: other tests use the same cores."""


class TimedOutError(AssertionError):
    """Something that had to become true did not."""


def free_port() -> int:
    """A loopback port below the ephemeral range that nobody uses now, and no other test process was given."""
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        # Held until this process ends. Test processes that run side by side would otherwise find the same ones free.
        claim = os.open(Path(tempfile.gettempdir()) / f"peerd-test-port-{port}", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            os.close(claim)
            continue
        return port
    raise RuntimeError("no free port")


def tool(name: str) -> str:
    """The console script beside this interpreter."""
    return str(Path(sys.executable).parent / name)


class Daemon:
    """One machine."""

    def __init__(self, name: str, folder: Path, port: int, log: Path) -> None:
        self.name = name
        self.data = folder
        self.port = port
        self.log = log
        self.process: subprocess.Popen[bytes] | forks.Fork | None = None
        self.peer_id = ""
        self.host = "127.0.0.1"
        self.http_listen = "127.0.0.1:0"
        self.environ: dict[str, str] = {}
        """What the daemon gets besides."""
        self.namespace: str | None = None
        """A network namespace that the daemon runs in."""
        self.forked = True
        """Whether its processes may be forks of one that has imported everything; see :mod:`tests.e2e.forks`."""

    @property
    def socket(self) -> Path:
        return self.data / "run" / "peerd.sock"

    def peerd(self, *args: str, check: bool = True, failpoint: str = "") -> subprocess.CompletedProcess[str]:
        """Run an offline ``peerd`` command on this data directory."""
        arguments = ["--data-dir", str(self.data), *args]
        environ = {**os.environ, "PEERD_FAILPOINT": failpoint}
        if self._needs_an_image:
            command = [*self._inside, tool("peerd"), *arguments]
            return subprocess.run(command, capture_output=True, text=True, check=check, timeout=120, env=environ)
        done = forks.run("peerd", arguments, environ, stdin=None, timeout=120)
        if check:
            done.check_returncode()
        return done

    @property
    def _inside(self) -> list[str]:
        return ["nsenter", f"--net=/var/run/netns/{self.namespace}"] if self.namespace else []

    @property
    def _needs_an_image(self) -> bool:
        return not self.forked or self.namespace is not None or "LD_PRELOAD" in self.environ

    def configure(self, text: str) -> None:
        """Append to peerd.toml."""
        with (self.data / "peerd.toml").open("a") as file:
            file.write(text)

    def start(self, *, failpoint: str = "", wait: bool = True) -> None:
        """Start the process; return when its socket answers."""
        assert self.process is None, f"{self.name} runs already"
        (self.data / "run" / "listen").unlink(missing_ok=True)
        environ = {
            **os.environ,
            "PEERD_FAILPOINT": failpoint,
            "PEERD_LOG_FORMAT": "text",
            "PEERD_HTTP_LISTEN": self.http_listen,
            "PYTHONFAULTHANDLER": "1",
            **self.environ,
        }
        with self.log.open("ab") as log:
            log.write(f"--- start {self.name} failpoint={failpoint!r}\n".encode())
            arguments = ["--data-dir", str(self.data), "run"]
            if self._needs_an_image:
                command = [*self._inside, tool("peerd"), *arguments]
                self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environ)
            else:
                with open(os.devnull, "rb") as nothing:
                    self.process = forks.start(
                        "peerd", arguments, environ, stdin=nothing.fileno(), stdout=log.fileno(), stderr=log.fileno()
                    )
        if wait:
            self.wait_until_listening()

    def wait_until_listening(self, seconds: float = PATIENCE_SECONDS) -> None:
        assert self.process is not None
        until = time.monotonic() + seconds
        while not (self.data / "run" / "listen").exists():
            if self.process.poll() is not None:
                raise AssertionError(f"{self.name} ended with {self.process.returncode}:\n{self.tail()}")
            if time.monotonic() > until:
                raise TimedOutError(f"{self.name} does not listen:\n{self._where_it_hangs()}")
            time.sleep(0.02)

    def _where_it_hangs(self) -> str:
        """The end of its log, which it ends with what each of its threads does."""
        self.signal(signal.SIGABRT)
        assert self.process is not None
        self.process.wait(PATIENCE_SECONDS)
        return self.tail(120)

    def kill(self) -> None:
        """SIGKILL, as a power cut does it to a process."""
        self.signal(signal.SIGKILL)
        self.wait()

    def stop(self) -> int:
        """SIGTERM, and wait for the end."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait for the process to end, whoever ended it."""
        assert self.process is not None
        code = self.process.wait(seconds)
        self.process = None
        return code

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def peerctl(self, *args: str, code: int | None = 0, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run ``peerctl`` as an operator on this machine does."""
        arguments = ["--socket", str(self.socket), *args]
        if self.forked:
            done = forks.run("peerctl", arguments, os.environ, stdin=stdin, timeout=120)
        else:
            command = [tool("peerctl"), *arguments]
            done = subprocess.run(command, capture_output=True, text=True, input=stdin, timeout=120, check=False)
        if code is not None:
            assert done.returncode == code, (
                f"peerctl {args}: {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.tail()}"
            )
        return done

    def json(self, *args: str) -> Any:
        """The answer of a command with ``-o json``.

        What tests poll is asked in this process and made into the same JSON: an interpreter for each look would take
        all of a small machine.
        """
        match () if _in_a_loop() else args:
            case ("peers", "list"):
                return {"peers": to_json(run_async(self._ask(lambda peerd: peerd.peers())))}
            case ("devices", "list"):
                return {"devices": to_json(run_async(self._ask(lambda peerd: peerd.devices())))}
            case ("executions", "show", execution_id):
                return to_json(run_async(self._ask(lambda peerd: peerd.execution(int(execution_id)))))
            case _:
                return json.loads(self.peerctl(*args, "-o", "json").stdout)

    async def _ask(self, call: Callable[[Client], Awaitable[T]]) -> T:
        async with Client(socket=self.socket) as peerd:
            return await call(peerd)


class Fleet:
    """Some daemons in one mesh; the first is the founder."""

    def __init__(self, names: Sequence[str] = ("c", "a", "b"), *, forked: bool = True) -> None:
        self.forked = forked
        """See :attr:`Daemon.forked`; where memory or the time to start is measured, they must not be."""
        # A short path: socket names have 108 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="pf-", dir="/tmp"))
        self.effects = self.folder / "effects"
        self.effects.mkdir()
        self.effect_log = self.effects / "log"
        self.daemons: dict[str, Daemon] = {}
        for name in names:
            self.add(name)

    def __getitem__(self, name: str) -> Daemon:
        return self.daemons[name]

    def add(self, name: str) -> Daemon:
        folder = self.folder / name
        daemon = Daemon(name, folder, free_port(), self.folder / f"{name}.log")
        daemon.forked = self.forked
        self.daemons[name] = daemon
        return daemon

    @property
    def founder(self) -> Daemon:
        return next(iter(self.daemons.values()))

    def found(self, *, grants: str = ALL_GRANTS, configure: Mapping[str, str] | None = None) -> None:
        """Found the mesh, join everybody by invite, start everybody, publish the step service everywhere."""
        first, *rest = self.daemons.values()
        first.peerd("init", "--name", first.name, "--listen", f"{first.host}:{first.port}")
        first.configure(self.service_toml() + (configure or {}).get(first.name, ""))
        first.start()
        for daemon in rest:
            self.join(daemon, grants=grants, configure=(configure or {}).get(daemon.name, ""))
        for daemon in self.daemons.values():
            daemon.peer_id = daemon.json("status")["peer_id"]
        self.wait_until_all_see_all()

    def join(self, daemon: Daemon, *, grants: str = ALL_GRANTS, role: str = "worker", configure: str = "") -> None:
        token = self.founder.json("invite", "--role", role, "--grants", grants)["token"]
        daemon.peerd("join", token, "--name", daemon.name, "--listen", f"{daemon.host}:{daemon.port}")
        daemon.configure(self.service_toml() + configure)
        daemon.start()

    def service_toml(self) -> str:
        """The test step as a service that every daemon declares."""
        options = ["seconds", "fail_first", "ignore_term", "hide", "write_mb", "then_seconds", "into", "until"]
        defaults = ["0", "0", "no", "no", "0", "0", "output", ""]
        argv = [sys.executable, str(PROGRAMS / "step.py"), str(self.effect_log), "${name}"]
        params = '[[services.params]]\nname = "name"\n'
        for option, default in zip(options, defaults, strict=True):
            argv += [f"--{option.replace('_', '-')}", f"${{{option}}}"]
            params += f'[[services.params]]\nname = "{option}"\ndefault_value = "{default}"\n'
        return (
            f'\n[[services]]\nname = "step"\nkind = "SERVICE_KIND_PROCESS"\nargv = {json.dumps(argv)}\n'
            f'read_only_paths = ["{PROGRAMS}"]\nwritable_paths = ["{self.effects}"]\n{params}'
        )

    def wait_until_all_see_all(self, seconds: float = PATIENCE_SECONDS) -> None:
        """Everybody holds everybody for online, and has heard from everybody what it is."""

        def seen(daemon: Daemon) -> int:
            peers = daemon.json("peers", "list")["peers"]
            return sum(peer["status"].endswith("ONLINE") and bool(peer.get("peerd_version")) for peer in peers)

        wait_for(
            lambda: all(seen(daemon) == len(self.daemons) for daemon in self.daemons.values()),
            seconds,
            "everybody sees everybody online",
        )

    def effects_seen(self) -> Counter[str]:
        """How often each line was written to the effect log."""
        return Counter(self.effect_log.read_text().splitlines()) if self.effect_log.exists() else Counter()

    def kill(self) -> None:
        """End all daemons at once and leave their data for a look."""
        for daemon in self.daemons.values():
            if daemon.process is not None:
                daemon.process.kill()
                daemon.process.wait()
                daemon.process = None

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def wait_for(condition: Any, seconds: float, what: str | Callable[[], str], pause: float = 0.05) -> Any:
    """Poll until the condition holds; returns what it said then. Only here, polling from outside, a test sleeps.

    ``what`` may be a function: then it tells how things are when the time is over.
    """
    until = time.monotonic() + seconds
    while True:
        last = time.monotonic() > until  # before the look: the machine may have stood still since the one before
        if found := condition():
            return found
        if last:
            raise TimedOutError(f"not within {seconds} s: {what if isinstance(what, str) else what()}")
        time.sleep(pause)


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def run_async(coroutine: Any) -> Any:
    return asyncio.run(coroutine)
