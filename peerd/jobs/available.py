"""What this machine gives to jobs: what it has, or less if its owner says so; and the limits that follow from it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from peerd.config import JobsConfig
from peerd.disk import Disk
from peerd.jobs.model import Job, Resources
from peerd.v1 import registry_pb2


def this_machine() -> Resources:
    """Its processors and memory, without knowing better."""
    return Resources(cpus=os.cpu_count() or 1, memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


@dataclass(frozen=True)
class Available:
    """The rule of one executor."""

    config: JobsConfig
    machine: Callable[[], Resources]
    disk: Callable[[], Disk]
    container_memory_bytes: int = 0
    """The most a container may use that asks for nothing; half of what there is when 0."""

    def ever(self) -> Resources:
        """What a job may ask for at all."""
        disk = self.disk()
        return self._with_disk(disk.total_bytes - disk.reserve_bytes)

    def now(self) -> Resources:
        """What all that run may reserve together. What they have written is counted twice: rather too little."""
        disk = self.disk()
        return self._with_disk(disk.free_bytes - disk.reserve_bytes)

    def limits_of(self, job: Job, *, level: int, limits_cpus: bool) -> Mapping[str, float]:
        """What is in force for an attempt of a job that starts now.

        A job that says nothing of the disk may fill it up to the reserve.
        """
        wanted = job.resources
        if job.work.container is not None:
            return self._container_limits(job, job.work.container.pids)
        disk = wanted.disk_bytes or self.config.default_disk_bytes or max(1, self.now().disk_bytes)
        return {
            "level": level,
            "memory_bytes": wanted.memory_bytes or self.config.default_memory_bytes,
            "cpus": wanted.cpus if limits_cpus else 0.0,
            "pids": self.config.max_pids,
            "disk_bytes": disk,
        }

    def _container_limits(self, job: Job, pids: int) -> Mapping[str, float]:
        """The engine keeps these, whatever processes can be kept to; one that asks for nothing is limited, too."""
        wanted, now = job.resources, self.now()
        return {
            "level": registry_pb2.LIMITS_LEVEL_CGROUP,
            "memory_bytes": wanted.memory_bytes or self.container_memory_bytes or now.memory_bytes // 2,
            "cpus": wanted.cpus or now.cpus,
            "pids": pids or self.config.max_pids,
            "disk_bytes": wanted.disk_bytes or self.config.default_disk_bytes or max(1, now.disk_bytes),
        }

    def _with_disk(self, disk_bytes: int) -> Resources:
        has = self.machine()
        return Resources(
            cpus=self.config.cpus or has.cpus,
            memory_bytes=self.config.memory_bytes or has.memory_bytes,
            disk_bytes=max(0, disk_bytes),
            gpus=has.gpus if self.config.gpus < 0 else self.config.gpus,
        )
