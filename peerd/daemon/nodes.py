"""Organizations and their nodes: what asks, what applies, and what answers."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from peerd.clock import Clock
from peerd.config import Config
from peerd.identity.peer_id import PeerId
from peerd.nodes.applying import Applying
from peerd.nodes.asking import Asking
from peerd.nodes.calls import Surroundings
from peerd.nodes.ending import Ending, ScanIntake
from peerd.nodes.organizations import Organizations
from peerd.nodes.protocols import load_protocols
from peerd.nodes.servicer import NodeServicer, OrganizationServicer
from peerd.nodes.starting import Starter
from peerd.nodes.withdrawing import Withdrawing
from peerd.store import Store
from peerd.workflows.lifecycle import Lifecycle


class Roles(Protocol):
    """Who has which role; see peerd.mesh.mesh."""

    def roles(self, peer_id: PeerId) -> frozenset[str]:
        """Of a member."""
        ...


class Names(Protocol):
    """What peers are called; see peerd.registry.registry."""

    def name_of(self, peer_id: str) -> str:
        """As people know it."""
        ...


class _Around(Surroundings):
    def __init__(self, names: Names, mesh: Roles) -> None:
        self._names = names
        self._mesh = mesh

    def name_of(self, peer_id: str) -> str:
        return self._names.name_of(peer_id)

    def roles(self, peer_id: PeerId) -> frozenset[str]:
        return self._mesh.roles(peer_id)


class NodeWork:
    """Built once. Raises INVALID_CONFIG for protocols that an operator added."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        self_id: PeerId,
        store: Store,
        executions: Lifecycle,
        *,
        names: Names,
        mesh: Roles,
        intake: ScanIntake | None = None,
    ) -> None:
        added = config.nodes.protocols_dir
        protocols = load_protocols(Path(added) if added else None)
        known = frozenset(protocols.names())
        ending = Ending(self_id, intake)
        around = _Around(names, mesh)
        organizations = Organizations(known, Withdrawing(ending, executions))
        asking = Asking(organizations, Starter(executions), known)
        self.organizations = OrganizationServicer(store, around, self_id, organizations)
        self.nodes = NodeServicer(store, around, self_id, asking, protocols)
        self.applying = Applying(
            store,
            clock,
            data_dir=config.data_dir,
            own_peer_id=self_id,
            known=known,
            executions=executions,
            ending=ending,
        )
