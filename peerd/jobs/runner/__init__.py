"""Running one attempt of a job: in bubblewrap or in a container, surviving the daemon, ended completely when asked."""

from peerd.jobs.runner.runner import ProcessRunner
from peerd.jobs.runner.spec import Exit, Limits, Outcome, ProcessSpec, Recovered, Recovery, Secrets

__all__ = ["Exit", "Limits", "Outcome", "ProcessRunner", "ProcessSpec", "Recovered", "Recovery", "Secrets"]
