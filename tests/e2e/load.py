"""How much this machine has to do besides a test: what that makes slower may take longer, and nothing else may."""

from __future__ import annotations

import os
from pathlib import Path


def busier() -> float:
    """By how much more processes want a core than there are cores, at least 1: so many times as long may a promise take
    that is made for a machine with nothing else to do."""
    now = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0])
    return max(1.0, max(now, os.getloadavg()[0]) / (os.cpu_count() or 1))
