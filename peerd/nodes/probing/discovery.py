"""What a host is: the protocols that may be looked for, on the ports where they are known to be."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from peerd.nodes.messages import Recognition
from peerd.nodes.probing.dialer import Dialer
from peerd.nodes.probing.guard import Address
from peerd.nodes.probing.recognition import recognise
from peerd.nodes.probing.survey import Survey, queries_by_port
from peerd.nodes.protocols import Protocol


class Discovery:
    """One discovery of one host. What it found until a deadline is kept."""

    def __init__(self, protocols: Sequence[Protocol], dialer: Dialer, host: str, port: int | None) -> None:
        self._protocols = protocols
        self._port = port
        self.survey = Survey(dialer, host)
        self.complete = False
        """Whether everything was asked."""

    async def run(self, addresses: Sequence[Address], seconds: float) -> None:
        """Ask the first of the addresses at which any port is open."""
        queries = queries_by_port(
            (probe for protocol in self._protocols for probe in protocol.discovery_probes), self._port
        )
        try:
            async with asyncio.timeout(seconds):
                for address in addresses:
                    await self.survey.ask(address, queries)
                    if self.survey.open_ports:
                        break
                self.complete = True
        except TimeoutError:
            self.survey.note(f"not everything was asked: the deadline of {seconds:g} s came first")

    @property
    def tried(self) -> int:
        """How many ports were looked at, or would have been."""
        probes = (probe for protocol in self._protocols for probe in protocol.discovery_probes)
        return len(queries_by_port(probes, self._port))

    def recognitions(self) -> tuple[Recognition, ...]:
        """What it is, the surest first."""
        return recognise(self._protocols, self.survey.answers)
