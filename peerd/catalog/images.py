"""What may be said of a container: names of images, whom it runs as, where mounts appear. Pure.

Nobody is root in a container here: with an engine that runs as root, its root would be the host's. Mounts appear at
the root of the container, never over what the engine puts there itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from peerd.catalog.model import ContainerImage
from peerd.sizes import parse_size
from peerd.v1 import catalog_pb2

_IMAGE = re.compile(r"[a-z0-9][a-z0-9._/:-]{0,254}(?<![/:])", re.IGNORECASE)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_USER = re.compile(r"([1-9][0-9]{0,9}):([1-9][0-9]{0,9})")
_MAX_ID = 2**31
_ENGINES = ("dev", "job", "proc", "sys")
_TAKEN = (*_ENGINES, "run", "tmp")
"""First parts of paths in a container that are not for mounts: the engine's own, and the job's directories."""


def to_image(proto: catalog_pb2.ContainerImage) -> ContainerImage:
    """The message as a value."""
    return ContainerImage(
        image=proto.image,
        digest=proto.digest,
        pull=proto.pull == catalog_pb2.PULL_POLICY_MISSING,
        entrypoint=tuple(proto.entrypoint),
        working_directory=proto.working_directory,
        user=proto.user,
        pids=proto.pids,
        tmp_bytes=parse_size(proto.tmp) if proto.tmp else 0,
    )


def image_problems(proto: catalog_pb2.ContainerImage) -> Iterator[tuple[str, str]]:
    """(field, what is wrong with it)."""
    if _IMAGE.fullmatch(proto.image) is None:
        yield "image", "the name of an image, such as localhost/counter:3; a digest has its own field"
    if proto.digest and _DIGEST.fullmatch(proto.digest) is None:
        yield "digest", "'sha256:' and 64 hexadecimal digits"
    if proto.entrypoint and (not proto.entrypoint[0] or "${" in proto.entrypoint[0]):
        yield "entrypoint[0]", "a program, without parameters in it"
    where = PurePosixPath(proto.working_directory or "/")
    if not where.is_absolute() or ".." in where.parts or "\0" in proto.working_directory:
        yield "working_directory", "an absolute path without '..'"
    if proto.user and not is_user(proto.user):
        yield "user", "numeric 'uid:gid', neither of them 0"
    try:
        parse_size(proto.tmp or "1")
    except ValueError as error:
        yield "tmp", str(error)


def is_user(text: str) -> bool:
    """Whether a container may run as that ``uid:gid``."""
    match = _USER.fullmatch(text)
    return match is not None and all(int(number) < _MAX_ID for number in match.groups())


def host_path_problem(path: str) -> str:
    """Why a path of the machine cannot appear under its own name in a container; empty when it can."""
    parts = PurePosixPath(path).parts[1:]
    if parts[:1] and (parts[0] in _ENGINES or (len(parts) == 1 and parts[0] in _TAKEN)):
        return f"/{parts[0]} is not free in a container"
    return ""


def mount_problem(path: str) -> str:
    """Why a container cannot have something bound at ``/path``; empty when it can."""
    if not path:
        return "a container's mounts have a path each: a job must not choose what it replaces"
    if path.split("/")[0] in _TAKEN:
        return f"not below /{path.split('/')[0]}, which is not free in a container"
    return ""
