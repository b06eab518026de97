"""From an attempt to what the engine is asked for. Pure.

What every container gets, whatever its service says: no capability, no new privileges, a root that is read-only, a
small /tmp, no network unless granted, a limit of memory and of processes, and another user than root.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from peerd.errors import PeerdError, Reason
from peerd.jobs.runner.containers.facts import EngineFacts
from peerd.jobs.runner.containers.spec import ContainerSpec

INSIDE = Path("/job")
PEER_LABEL = "peerd.peer"
MARKER_LABEL = "peerd.marker"
CONTROL_LABEL = "peerd.control"
_NOBODY = "65534:65534"
_FILES = 4096
"""Open files, and processes of its user: engines ask for a million, which a daemon without the right may not grant."""


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """For what a service does not say."""

    tmp_bytes: int
    user: str = ""


@dataclass(frozen=True, kw_only=True)
class User:
    """Whom a container runs as."""

    text: str
    namespace: str = ""
    """The engine's word for how user ids are mapped."""
    owner: tuple[int, int] | None = None
    """To whom the job's directories must be given first."""


def user_of(facts: EngineFacts, daemon: tuple[int, int], wanted: str) -> User:
    """The user that is not the host's root and whose files the daemon can read and remove. Raises ENGINE_REFUSED."""
    mine = f"{daemon[0]}:{daemon[1]}"
    if daemon[0] == 0 and not facts.rootless:
        text = wanted or _NOBODY
        uid, _, gid = text.partition(":")
        return User(text=text, namespace="host" if facts.remapped else "", owner=(int(uid), int(gid)))
    if wanted and wanted != mine:
        raise PeerdError(
            Reason.ENGINE_REFUSED,
            f"a container cannot run as {wanted} here: this daemon is {mine} and could not remove its files",
        )
    if not facts.rootless:
        return User(text=mine, namespace="host" if facts.remapped else "")
    if facts.name == "podman":
        return User(text=mine, namespace="keep-id")
    return User(text="0:0")  # a rootless docker's root is the user that it runs as


def body(spec: ContainerSpec, user: User, *, tmp_bytes: int, control: Path, files: int) -> dict[str, object]:
    """What POST /containers/create takes, but for the image, which the holder looks up."""
    cap, limits = min(_FILES, files), spec.limits
    ulimits = [{"Name": name, "Soft": min(1024, cap), "Hard": cap} for name in ("nofile",)]
    ulimits.append({"Name": "nproc", "Soft": cap, "Hard": cap})
    host: dict[str, object] = {
        "NetworkMode": "bridge" if spec.network else "none",
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "Memory": limits.memory_bytes,
        "MemorySwap": limits.memory_bytes,
        "NanoCpus": round(limits.cpus * 1e9),
        "PidsLimit": limits.pids,
        "Tmpfs": {"/tmp": f"rw,nosuid,nodev,mode=1777,size={spec.image.tmp_bytes or tmp_bytes}"},  # noqa: S108
        "Mounts": list(_mounts(spec)),
        "Ulimits": ulimits,
        # Not kept twice: the holder keeps stdout and stderr, up to their cap.
        "LogConfig": {"Type": "none", "Config": {}},
        "RestartPolicy": {"Name": "no"},
    }
    if user.namespace:
        host["UsernsMode"] = user.namespace
    content: dict[str, object] = {
        "User": user.text,
        "Env": [f"{name}={value}" for name, value in _environment(spec).items()],
        "Labels": {PEER_LABEL: peer_of(spec.marker), MARKER_LABEL: spec.marker, CONTROL_LABEL: str(control)},
        "OpenStdin": bool(spec.stdin_files),
        "StdinOnce": bool(spec.stdin_files),
        "AttachStdin": bool(spec.stdin_files),
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": False,
        "HostConfig": host,
    }
    if spec.argv:
        content["Cmd"] = list(spec.argv)
    if spec.image.entrypoint:
        content["Entrypoint"] = list(spec.image.entrypoint)
    if spec.image.working_directory:
        content["WorkingDir"] = spec.image.working_directory
    return content


def peer_of(marker: str) -> str:
    """Whose job it is: the first part of a marker names the peer."""
    return marker.partition("/")[0]


def name_of(marker: str) -> str:
    """A name for people, the same for the same attempt, so that no attempt has two containers."""
    return f"peerd-{marker.rpartition('/')[2]}-{hashlib.sha256(marker.encode()).hexdigest()[:12]}"


def _mounts(spec: ContainerSpec) -> Iterator[Mapping[str, object]]:
    job = spec.job_directory
    for name, writable in (("input", False), ("package", False), ("output", True)):
        yield _bind(job / name, INSIDE / name, writable=writable)
    for path, writable in spec.mounts:
        yield _bind(job / "mounts" / path, Path("/") / path, writable=writable)
    for host in spec.read_only_paths:
        yield _bind(host, host, writable=False)
    for host in spec.writable_paths:
        yield _bind(host, host, writable=True)


def _bind(source: Path, target: Path, *, writable: bool) -> Mapping[str, object]:
    return {"Type": "bind", "Source": str(source), "Target": str(target), "ReadOnly": not writable}


def _environment(spec: ContainerSpec) -> dict[str, str]:
    return {
        "HOME": "/tmp",  # noqa: S108 - the container's own
        "TMPDIR": "/tmp",  # noqa: S108
        **{f"PEERD_{name.upper()}": str(INSIDE / name) for name in ("input", "output", "package")},
        "PEERD_MOUNTS": "/",
        **spec.env,
        "PEERD_JOB": spec.marker,
    }
