"""A podman of the tests' own: storage, socket and image in one temporary directory, no registry but its own."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

IMAGE = "localhost/peerd-test:1"
REGISTRY = "127.0.0.1:5000"
"""In the network of the engine, which nobody else is in; a test may serve there."""
_REGISTRIES = f"""
unqualified-search-registries = []
[[registry]]
location = "{REGISTRY}"
insecure = true
"""
_APPLETS = ["cat", "dd", "echo", "false", "head", "id", "ip", "ls", "mkdir", "nc", "sh", "sleep", "sort", "tr", "true"]
_APPLETS += ["wc", "yes", "touch", "ln", "mount", "ps", "kill", "seq", "env", "md5sum", "rm", "tail", "nslookup", "awk"]
_CONFIGURATION = """
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
"""What a machine without the right to raise limits, and without a systemd, needs."""


def missing() -> list[str]:
    """Programs that are not there."""
    return [name for name in ("podman", "runc", "busybox") if shutil.which(name) is None]


class Podman:
    """An engine that the test starts, stops and asks behind peerd's back."""

    def __init__(self) -> None:
        # A short path: socket names have 108 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="pc-", dir="/tmp"))
        self.socket = self.folder / "engine.sock"
        (self.folder / "containers.conf").write_text(_CONFIGURATION)
        (self.folder / "registries.conf").write_text(_REGISTRIES)
        self._service: subprocess.Popen[bytes] | None = None

    def call(self, *args: str, data: bytes | None = None) -> str:
        """Run a podman command on this storage."""
        command = [*self._command(), *args]
        done = subprocess.run(
            command, input=data, capture_output=True, env=self._environ(), cwd="/", timeout=120, check=False
        )
        assert done.returncode == 0, f"{args}: {done.stderr.decode()}"
        return done.stdout.decode()

    def load(self, name: str = IMAGE, *, files: dict[str, str] | None = None) -> None:
        """Make an image of busybox alone, from a tar file."""
        self.call("import", "-", name, data=root_file_system(files or {}))

    def digest(self, name: str = IMAGE) -> str:
        """The id of an image, as a digest."""
        return "sha256:" + self.call("image", "inspect", "--format", "{{.Id}}", name).strip().removeprefix("sha256:")

    def containers(self) -> list[dict[str, Any]]:
        """Every container that the engine itself knows, running or not."""
        return list(json.loads(self.call("ps", "--all", "--external", "--format", "json")))

    def start(self) -> None:
        """Answer at the socket."""
        self.socket.unlink(missing_ok=True)
        with (self.folder / "service.log").open("ab") as log:
            self._service = subprocess.Popen(
                # A network of its own: what a bridge changes in the machine's rules stays there.
                ["unshare", "--net", *self._command(), "system", "service", "--time=0", f"unix://{self.socket}"],
                stdout=log, stderr=log, env=self._environ(), cwd="/",
            )  # fmt: skip
        until = time.monotonic() + 60
        while not self.socket.exists():
            assert time.monotonic() < until and self._service.poll() is None, self._log()
            time.sleep(0.02)

    @property
    def service_pid(self) -> int:
        """The process that answers at the socket."""
        assert self._service is not None
        return self._service.pid

    def stop(self) -> None:
        """Answer no more; containers go on."""
        assert self._service is not None
        self._service.kill()
        self._service.wait()
        self._service = None
        self.socket.unlink(missing_ok=True)

    def close(self) -> None:
        """Leave nothing."""
        for container in self.containers():
            self.call("rm", "--force", "--time", "0", str(container["Id"]))
        if self._service is not None:
            self.stop()
        subprocess.run(
            [*self._command(), "system", "reset", "--force"],
            env=self._environ(), cwd="/", capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        shutil.rmtree(self.folder, ignore_errors=True)

    def _command(self) -> list[str]:
        folder = self.folder
        return ["podman", "--root", f"{folder}/root", "--runroot", f"{folder}/run", "--tmpdir", f"{folder}/tmp"]

    def _environ(self) -> dict[str, str]:
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.folder),
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(self.folder / "registries.conf"),
        }

    def _log(self) -> str:
        return (self.folder / "service.log").read_text(errors="replace")


def root_file_system(files: dict[str, str]) -> bytes:
    """A tar of busybox and the directories that a container needs."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name in ("bin", "etc", "tmp", "proc", "sys", "dev"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(entry)
        program = shutil.which("busybox")
        assert program is not None
        tar.add(Path(program).resolve(), "bin/busybox")
        for applet in _APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
        for name, text in {"etc/passwd": "root:x:0:0:root:/:/bin/sh\n", **files}.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text), 0o755
            tar.addfile(entry, io.BytesIO(text.encode()))
    return made.getvalue()
