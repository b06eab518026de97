"""Bubblewrap around a job: an allow-list of what it sees, so that what is not named does not exist for it.

A job sees system directories read-only, a few harmless files of /etc, this interpreter, what its service names, and
its own directory at /job. It sees no key, store or socket of peerd, no process but its own, and no network unless its
service asks. https://github.com/containers/bubblewrap
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from peerd.errors import PeerdError, Reason
from peerd.jobs.runner.spec import ProcessSpec

INSIDE = Path("/job")
"""Where a job's own directory appears."""
FIRST_SECRET_DESCRIPTOR = 100
"""The wrapper opens the secrets that appear as files there and above."""

SANDBOX_PIDS = 2
"""Processes of bubblewrap itself: the one outside, and the first of the pid namespace."""
_SCRATCH_BYTES = 1 << 30
"""What a job without a memory limit may put into its /tmp, which is memory; the same again for /dev/shm and /job."""

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC = (
    "alternatives", "ca-certificates", "group", "hosts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime",
    "mime.types", "nsswitch.conf", "passwd", "ssl/certs",
)  # fmt: skip
_ETC_NETWORK = ("resolv.conf",)
_HARDENING = (
    ("--unshare-user", "--disable-userns", "--cap-drop", "ALL"),
    ("--cap-drop", "ALL"),
    (),
)
"""The strictest that works here is used."""


class Bubblewrap:
    """Builds command lines; knows which paths must never be shown."""

    def __init__(self, program: str, hardening: tuple[str, ...], hidden: Iterable[Path]) -> None:
        self.program = os.path.realpath(program)
        self._hardening = hardening
        self._hidden = tuple(path.resolve() for path in hidden)

    @classmethod
    async def probe(cls, hidden: Iterable[Path]) -> Bubblewrap | None:
        """The strictest form that really runs on this machine, or None."""
        program = shutil.which("bwrap")
        if program is None:
            return None
        for hardening in _HARDENING:
            candidate = cls(program, hardening, hidden)
            process = await asyncio.create_subprocess_exec(
                *candidate._base(network=False), "--", "/bin/true",
                env={},  # as jobs have it
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
            if await process.wait() == 0:
                return candidate
        return None

    def command(self, spec: ProcessSpec) -> list[str]:
        """The whole argv for an attempt. Raises INVALID_ARGUMENT for a path that would show what is hidden."""
        scratch = min(spec.limits.memory_bytes or _SCRATCH_BYTES, spec.limits.disk_bytes or _SCRATCH_BYTES)
        argv = self._base(network=spec.network, scratch=scratch)
        for path in (Path(sys.base_prefix), Path(sys.prefix)):
            argv += self._bind("--ro-bind", path)
        program = Path(spec.argv[0])
        if program.is_absolute() and program.exists() and not _within(program, (*map(Path, _SYSTEM), Path(sys.prefix))):
            argv += self._bind("--ro-bind", program)
        for path in spec.read_only_paths:
            argv += self._bind("--ro-bind", path)
        for path in spec.writable_paths:
            argv += self._bind("--bind", path)
        argv += ["--size", str(scratch), "--tmpfs", str(INSIDE)]
        for name, mode in (
            ("input", "--ro-bind"),
            ("package", "--ro-bind"),
            ("output", "--bind"),
            ("mounts", "--bind"),
        ):
            argv += [mode, str(spec.job_directory / name), str(INSIDE / name)]
        for number, name in enumerate(spec.secrets.files):
            descriptor = str(FIRST_SECRET_DESCRIPTOR + number)
            argv += ["--perms", "0400", "--ro-bind-data", descriptor, str(INSIDE / "secrets" / name)]
        # What bubblewrap made to hang all this in is memory, too, and has no end.
        argv += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", str(INSIDE)]
        # No --clearenv: bubblewrap itself is started with the job's variables and no others, and a secret among them
        # must not stand on a command line, which everybody can read.
        for name, value in spec.env.items():
            argv += ["--setenv", name, value]
        return [*argv, "--", *spec.argv]

    def _base(self, *, network: bool, scratch: int = _SCRATCH_BYTES) -> list[str]:
        argv = [self.program, "--unshare-all", "--die-with-parent", "--new-session", "--hostname", "peerd-job"]
        argv += [*(["--share-net"] if network else []), *self._hardening]
        for path in _SYSTEM:
            if os.path.islink(path):
                argv += ["--symlink", os.readlink(path), path]
            elif os.path.isdir(path):
                argv += ["--ro-bind", path, path]
        for name in (*_ETC, *(_ETC_NETWORK if network else ())):
            argv += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
        argv += ["--proc", "/proc", "--dev", "/dev"]
        for place in ("/tmp", "/dev/shm"):  # noqa: S108 - the job's own
            argv += ["--size", str(scratch), "--tmpfs", place]
        return argv

    def _bind(self, mode: str, path: Path) -> list[str]:
        real = Path(os.path.realpath(path))  # unlike resolve(), which fails where links lead in a circle: bwrap says so
        for hidden in self._hidden:
            if hidden == real or hidden in real.parents or real in hidden.parents:
                raise PeerdError(
                    Reason.INVALID_ARGUMENT,
                    f"a job cannot be shown {path}: peerd keeps its own data in {hidden}",
                    next_action="move what the job needs out of there",
                )
        return [mode, str(real), str(path)] if real == path else [mode, str(real), str(real), *_link(path, real)]


def _link(path: Path, real: Path) -> Iterator[str]:
    """Make the name the service used lead to the real place."""
    if not any(_within(path, (Path(system),)) for system in _SYSTEM):
        yield from ("--symlink", str(real), str(path))


def _within(path: Path, folders: Iterable[Path]) -> bool:
    return any(folder == path or folder in path.parents for folder in folders)
