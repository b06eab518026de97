"""The public Python client: what ``peerctl`` does, as async methods over the daemon's unix socket.

::

    async with Client() as peerd:
        started = await peerd.run(workflow="word-count")
        done = await peerd.wait(started.workflow_execution_id)

Answers are the messages of ``peerd.v1``, lists are complete (pages are fetched as needed), and whatever goes wrong
is a :class:`~peerd.errors.PeerdError` with the daemon's own reason and next action.

Every call has a deadline. A call that changes something carries a request id of its own, made once and sent again
with each retry, so a call whose answer was lost has its effect once. Only a lost connection is retried, and only a
few times: a daemon that answered has decided.

It speaks to one daemon and never to the network; with ``peer`` that daemon passes the calls on as itself. Reading
definition files is not its business: it takes the text.
"""

from __future__ import annotations

from peerd.client.devices import DeviceCalls
from peerd.client.executions import ExecutionCalls
from peerd.client.inventory import InventoryCalls
from peerd.client.machine import MachineCalls
from peerd.client.nodes import NodeCalls
from peerd.client.registry import RegistryCalls
from peerd.client.scans import ScanCalls
from peerd.client.schedules import ScheduleCalls
from peerd.client.services import ServiceCalls


class Client(
    RegistryCalls,
    ServiceCalls,
    ExecutionCalls,
    ScheduleCalls,
    ScanCalls,
    InventoryCalls,
    NodeCalls,
    DeviceCalls,
    MachineCalls,
):
    """One daemon, spoken to over its unix socket. Use it as an async context manager."""
