"""Founding a mesh anew when the founder's key is lost: the other members become members of the new one.

Only the founder changes admins, so a mesh whose founder is gone for good can never again. Nobody can be made to trust a
new founder from afar: each other machine joins the new mesh by a command of its own operator.
"""

from __future__ import annotations

from peerd.clock import Clock
from peerd.errors import PeerdError, Reason
from peerd.identity.key import Identity
from peerd.identity.peer_id import PeerId
from peerd.mesh import repository
from peerd.mesh.admission import admission, founding
from peerd.mesh.membership import Membership, membership_of
from peerd.mesh.mesh import Mesh
from peerd.mesh.records import Draft, sign_record
from peerd.store import Store, Tx


async def refound(store: Store, identity: Identity, clock: Clock) -> tuple[Mesh, PeerId]:
    """Make this peer the founder of a mesh with all active members but the old founder, whose id is returned, too.

    Raises NOT_INITIALIZED or ALREADY_INITIALIZED.
    """

    def write(tx: Tx) -> PeerId:
        old_id = repository.find_mesh_id(tx)
        if old_id is None:
            raise PeerdError(Reason.NOT_INITIALIZED, "this peer belongs to no mesh yet")
        if old_id == identity.peer_id:
            raise PeerdError(Reason.ALREADY_INITIALIZED, "this peer is the founder of its mesh")
        old, hints = repository.load_membership(tx, old_id), repository.load_hints(tx)
        own = old.active(identity.peer_id)
        repository.set_mesh_id(tx, identity.peer_id)
        before = Membership(mesh_id=identity.peer_id)
        after = _signed(tx, identity, before, founding(identity.peer_id, own.roles if own else frozenset()))
        for subject, record in old.current.items():
            if record.revoked or subject in (old_id, identity.peer_id):
                continue
            draft = admission(
                after,
                acting=(identity.peer_id,),
                subject=subject,
                grants=record.grants,
                roles=record.roles,
                reason=f"was a member of {old_id[:8]}",
            )
            assert draft is not None  # noqa: S101 - whoever has no record gets one
            after = _signed(tx, identity, after, draft)
        repository.save_membership(tx, before, after)
        for peer_id, addresses in hints.items():
            repository.set_hints(tx, peer_id, addresses)
        return old_id

    old_id = await store.write(write)
    return await Mesh.load(store, identity, clock), old_id


def _signed(tx: Tx, identity: Identity, membership: Membership, draft: Draft) -> Membership:
    record = sign_record(
        identity,
        draft,
        mesh_id=membership.mesh_id,
        previous=membership.current.get(draft.subject),
        sequence=repository.next_sequence(tx),
        now=tx.now,
    )
    return membership_of(membership.mesh_id, (*membership.records.values(), record))
