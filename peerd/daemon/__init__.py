"""The composition root: builds every object once, starts and ends them. Nothing imports this but the entry point."""

from peerd.daemon.offline import ensure_identity, found, join_admitted, join_invited, refound_mesh, restore_offline
from peerd.daemon.process import run_until_signalled

__all__ = [
    "ensure_identity",
    "found",
    "join_admitted",
    "join_invited",
    "refound_mesh",
    "restore_offline",
    "run_until_signalled",
]
