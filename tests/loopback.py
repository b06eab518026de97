"""Addresses of this machine that no other test process uses, so that a port that was ours is not taken meanwhile."""

from __future__ import annotations

import os

_PID = os.getpid()
OWN = f"127.{64 + (_PID >> 16 & 63)}.{_PID >> 8 & 255}.{_PID & 255}"
"""For servers that stop and come back at their port: that one of 127.0.0.1 somebody else may have got by then."""
