"""The public Python client of a daemon; see :mod:`peerd.client.client`."""

from peerd.client.calls import CALL_SECONDS, default_socket
from peerd.client.client import Client, is_final, merge_execution
from peerd.client.registry import PeerList

__all__ = ["CALL_SECONDS", "Client", "PeerList", "default_socket", "is_final", "merge_execution"]
