"""What the daemon tells its container runner, and others about it."""

from __future__ import annotations

from peerd.config import Config
from peerd.jobs.runner.containers.request import Defaults
from peerd.jobs.runner.containers.runner import ContainerRunner
from peerd.v1.registry_pb2 import Hardware, JobRunner

SWEEP_SECONDS = 15.0
"""How often the engine is looked for, and containers that belong to nobody."""
RUNNER = "container"
"""The runner that an advert names when an engine answers."""


def container_runner(config: Config, owner: str) -> ContainerRunner:
    """As configured; it looks for its engine later."""
    settings = config.containers
    defaults = Defaults(tmp_bytes=settings.tmp_bytes, user=settings.user)
    return ContainerRunner(settings.socket, defaults, owner=owner)


def with_engine(hardware: Hardware, version: str) -> Hardware:
    """What the machine has, with its engine, if one answers."""
    known = Hardware()
    known.CopyFrom(hardware)
    del known.runners[:]
    known.runners.extend(runner for runner in hardware.runners if runner.name != RUNNER)
    if version:
        known.runners.append(JobRunner(name=RUNNER, version=version))
    return known
