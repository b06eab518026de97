"""The public Python client of a daemon; see :mod:`peerd.client.client`."""

from peerd.client.calls import CALL_SECONDS, default_socket
from peerd.client.client import Client
from peerd.client.executions import is_final, merge_execution
from peerd.client.registry import PeerList
from peerd.client.run import Run
from peerd.client.sync import SyncClient, SyncRun
from peerd.client.workflow import Job, Output, Workflow

__all__ = [
    "CALL_SECONDS",
    "Client",
    "Job",
    "Output",
    "PeerList",
    "Run",
    "SyncClient",
    "SyncRun",
    "Workflow",
    "default_socket",
    "is_final",
    "merge_execution",
]
