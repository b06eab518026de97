"""Who may admit, change and revoke whom, and what record that makes. Pure.

Each act has an *actor* (who asked) and a *signer* (the peer whose key signs, the one the request came to). Both must be
entitled: otherwise an admin could ask the founder's daemon to do what only the founder may.
"""

from __future__ import annotations

from collections.abc import Iterable

from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.mesh.membership import Membership
from peerd.mesh.model import ADMIN, ALL_GRANTS, MemberState, Record, RecordDigest, format_grants
from peerd.mesh.records import MAX_REASON_LENGTH, Draft


def founding(founder: PeerId, roles: frozenset[str]) -> Draft:
    """The record that begins a mesh."""
    return Draft(subject=founder, state=MemberState.ACTIVE, grants=ALL_GRANTS, roles=roles, reason="founded the mesh")


def admission(
    membership: Membership,
    *,
    acting: Iterable[PeerId],
    subject: PeerId,
    grants: frozenset[int],
    roles: frozenset[str],
    reason: str,
) -> Draft | None:
    """Make the subject a member, or change the member it is; None when it is exactly that already.

    Raises PERMISSION_DENIED or REVOKED.
    """
    current = membership.current.get(subject)
    if current is not None and current.revoked:
        raise PeerdError(Reason.REVOKED, f"{subject} was revoked: {current.reason or 'no reason was given'}")
    about_admin = ADMIN in grants or (current is not None and current.admin)
    for peer_id in acting:
        held = _check_power(membership, peer_id, about_admin=about_admin)
        if grants - held:
            raise PeerdError(
                Reason.PERMISSION_DENIED,
                f"{peer_id[:8]} cannot grant {format_grants(grants - held)}, which it does not hold itself",
            )
    if subject == membership.mesh_id and ADMIN not in grants:
        raise PeerdError(Reason.PERMISSION_DENIED, "the founder's admin grant cannot be taken away")
    if current is not None and current.grants == grants and current.roles == roles:
        return None
    ends_admin = current is not None and current.admin and ADMIN not in grants
    standing = _standing(membership, subject, None) if ends_admin else ()
    return Draft(
        subject=subject,
        state=MemberState.ACTIVE,
        grants=grants,
        roles=roles,
        reason=reason,
        last_standing_sequence=max((record.signer_sequence for record in standing), default=0),
        standing_digests=_digests(standing),
    )


def revocation(
    membership: Membership, *, acting: Iterable[PeerId], subject: PeerId, reason: str, last_standing: int | None = None
) -> Draft | None:
    """End a membership for good; None when it has ended already.

    Of what a revoked admin signed, the records up to sequence ``last_standing`` stand (all that we know if None).
    Raises PERMISSION_DENIED, NOT_FOUND or INVALID_ARGUMENT.
    """
    current = membership.current.get(subject)
    if current is None:
        raise PeerdError(Reason.NOT_FOUND, f"{subject} is not a member of this mesh")
    if current.revoked:
        return None
    if len(reason) > MAX_REASON_LENGTH:
        raise PeerdError(Reason.INVALID_ARGUMENT, f"a reason has at most {MAX_REASON_LENGTH} characters")
    if subject == membership.mesh_id:
        raise PeerdError(
            Reason.PERMISSION_DENIED,
            "nobody can revoke the founder of the mesh",
            next_action="found a new mesh and invite the others there",
        )
    for peer_id in acting:
        _check_power(membership, peer_id, about_admin=current.admin)
    standing = _standing(membership, subject, last_standing)
    return Draft(
        subject=subject,
        state=MemberState.REVOKED,
        reason=reason,
        last_standing_sequence=max((record.signer_sequence for record in standing), default=0),
        standing_digests=_digests(standing),
    )


def check_admin(membership: Membership, peer_id: PeerId) -> frozenset[int]:
    """The grants of an active admin. Raises PERMISSION_DENIED."""
    record = membership.active(peer_id)
    if record is None or not record.admin:
        raise PeerdError(
            Reason.PERMISSION_DENIED,
            f"{peer_id[:8]} is not an admin of this mesh, so what it signs would not stand",
            next_action="ask the founder or an admin: run the command there, or with --peer",
        )
    return record.grants


def _check_power(membership: Membership, peer_id: PeerId, *, about_admin: bool) -> frozenset[int]:
    held = check_admin(membership, peer_id)
    if about_admin and peer_id != membership.mesh_id:
        raise PeerdError(
            Reason.PERMISSION_DENIED,
            f"only the founder grants, changes or revokes admins; {peer_id[:8]} is not the founder",
            next_action=f"run it on the founder, {membership.mesh_id[:8]}",
        )
    return held


def _standing(membership: Membership, signer: PeerId, last: int | None) -> tuple[Record, ...]:
    records = (membership.records[entry] for entry in membership.signed_by(signer))
    return tuple(record for record in records if last is None or record.signer_sequence <= last)


def _digests(records: Iterable[Record]) -> frozenset[RecordDigest]:
    return frozenset(record.digest for record in records)
