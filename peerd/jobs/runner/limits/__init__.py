"""What holds jobs to their limits on this machine: control groups of version 1 or 2, or looking now and then."""

from peerd.jobs.runner.limits.base import Backend, Group
from peerd.jobs.runner.limits.probe import probe

__all__ = ["Backend", "Group", "probe"]
