"""An attempt that runs in a container."""

from __future__ import annotations

from dataclasses import dataclass

from peerd.catalog.model import ContainerImage
from peerd.jobs.runner.spec import ProcessSpec


@dataclass(frozen=True, kw_only=True)
class ContainerSpec(ProcessSpec):
    """``argv`` replaces the image's command, if there is any."""

    image: ContainerImage
    mounts: tuple[tuple[str, bool], ...] = ()
    """(path, writable): ``mounts/path`` of the job's directory appears at ``/path``."""
