"""Peers: who there is, what they are, and what an operator does about them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import SupportsIndex

from google.protobuf.message import DecodeError

from peerd.client.calls import CALL_SECONDS, PAGE_SIZE, Calls, new_request_id
from peerd.clock import SystemClock
from peerd.errors import PeerdError, Reason
from peerd.v1 import mesh_pb2, mesh_pb2_grpc, profiles_pb2, profiles_pb2_grpc, registry_pb2, registry_pb2_grpc

ONLINE = registry_pb2.PEER_STATUS_ONLINE
ANY = registry_pb2.PEER_STATUS_UNSPECIFIED


class PeerList(list[registry_pb2.Peer]):
    """Peers as the daemon last knew them."""

    def __init__(self, peers: Iterable[registry_pb2.Peer], *, as_of: float, stale: bool = False) -> None:
        super().__init__(peers)
        self.as_of = as_of
        """When the daemon said so, in seconds since 1970."""
        self.stale = stale
        """The daemon cannot be reached; this is what it said before."""

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[object, ...]:
        raise TypeError("a list of messages is not pickled; use their own serialisation")


class RegistryCalls(Calls):
    """The calls about peers. Lists are answered from the last known state when the daemon cannot be reached."""

    def __init__(
        self,
        *,
        socket: str | Path | None = None,
        peer: str | None = None,
        timeout: float = CALL_SECONDS,
        cache: Path | None = None,
    ) -> None:
        """``cache`` is a file in which the last known peers survive this process."""
        super().__init__(socket=socket, peer=peer, timeout=timeout)
        self._registry = registry_pb2_grpc.RegistryServiceStub(self._channel)
        self._mesh = mesh_pb2_grpc.MeshServiceStub(self._channel)
        self._profiles = profiles_pb2_grpc.ProfileServiceStub(self._channel)
        self._clock = SystemClock()
        self._cache = cache
        self._known: dict[bytes, PeerList] = {}

    async def peers(
        self,
        *,
        role: str = "",
        label: str = "",
        status: registry_pb2.PeerStatus.ValueType = ANY,
        group: str = "",
        region: str = "",
        where: str = "",
        text: str = "",
        include_forgotten: bool = False,
    ) -> PeerList:
        """The peers of the mesh that match, this one included; ``where`` is a capability expression.

        When the daemon cannot be reached: what it last said, marked stale, if it ever said anything.
        """
        request = registry_pb2.ListPeersRequest(
            role=role,
            label=label,
            status=status,
            group=group,
            region=region,
            where=where,
            text=text,
            include_forgotten=include_forgotten,
            page_size=PAGE_SIZE,
        )
        key = request.SerializeToString(deterministic=True)
        try:
            found = await self._all(self._registry.ListPeers, request, lambda page: page.peers)
        except PeerdError as error:
            known = self._last_known(key, request) if error.reason is Reason.DAEMON_NOT_REACHABLE else None
            if known is None:
                raise
            return known
        answer = PeerList(found, as_of=self._clock.now() / 1000)
        self._remember(key, answer)
        return answer

    async def peer(self, peer: str) -> registry_pb2.Peer:
        """One peer by id, unique prefix or name."""
        return (await self._call(self._registry.GetPeer, registry_pb2.GetPeerRequest(peer=peer))).peer

    async def peers_by_role(self, role: str) -> PeerList:
        """The peers of a role, whatever their status."""
        return await self.peers(role=role)

    async def available_peers(
        self, role: str = "", label: str = "", status: registry_pb2.PeerStatus.ValueType = ONLINE
    ) -> PeerList:
        """The peers that may be given work: online ones unless said otherwise, never external ones."""
        found = await self.peers(role=role, label=label, status=status)
        return PeerList((peer for peer in found if not peer.external), as_of=found.as_of, stale=found.stale)

    async def heartbeats(self, peer: str, *, limit: int | None = None) -> list[registry_pb2.Heartbeat]:
        """What this daemon measured of a peer with each probe, newest first."""
        request = registry_pb2.ListHeartbeatsRequest(peer=peer, page_size=min(limit or PAGE_SIZE, PAGE_SIZE))
        return await self._all(self._registry.ListHeartbeats, request, lambda page: page.heartbeats, limit)

    # What an operator does

    async def drain(self, peer: str, *, reason: str = "") -> registry_pb2.Peer:
        """Let a peer finish its jobs and take no new ones."""
        request = registry_pb2.DrainPeerRequest(request_id=new_request_id(), peer=peer, reason=reason)
        return (await self._call(self._registry.DrainPeer, request)).peer

    async def resume(self, peer: str) -> registry_pb2.Peer:
        """End its maintenance."""
        request = registry_pb2.ResumePeerRequest(request_id=new_request_id(), peer=peer)
        return (await self._call(self._registry.ResumePeer, request)).peer

    async def rename(self, peer: str, name: str) -> registry_pb2.Peer:
        """Call it so, everywhere."""
        request = registry_pb2.RenamePeerRequest(request_id=new_request_id(), peer=peer, name=name)
        return (await self._call(self._registry.RenamePeer, request)).peer

    async def forget(self, peer: str) -> registry_pb2.Peer:
        """Leave a peer that is gone out of lists."""
        request = registry_pb2.ForgetPeerRequest(request_id=new_request_id(), peer=peer)
        return (await self._call(self._registry.ForgetPeer, request)).peer

    async def admit(
        self,
        peer_id: str,
        *,
        grants: Iterable[int] = (),
        roles: Iterable[str] = (),
        addresses: Iterable[str] = (),
    ) -> mesh_pb2.MemberRecord:
        """Make a peer a member without an invite, or change a member's grants and roles."""
        request = mesh_pb2.AdmitPeerRequest(request_id=new_request_id(), peer_id=peer_id)
        request.grants.extend(grants)  # type: ignore[arg-type]  # an open enum: plain numbers are fine
        request.roles.extend(roles)
        request.addresses.extend(addresses)
        return (await self._call(self._mesh.AdmitPeer, request)).record

    async def revoke(self, peer: str, *, reason: str = "") -> mesh_pb2.MemberRecord:
        """End a membership for good."""
        request = mesh_pb2.RevokePeerRequest(request_id=new_request_id(), peer=peer, reason=reason)
        return (await self._call(self._mesh.RevokePeer, request)).record

    async def replace_peer(self, old: str, new: str) -> mesh_pb2.ReplacePeerResponse:
        """Admit the new key of a reinstalled machine with what the old one had, and revoke the old one."""
        request = mesh_pb2.ReplacePeerRequest(request_id=new_request_id(), old=old, new=new)
        return await self._call(self._mesh.ReplacePeer, request)

    # Invites

    async def invite(
        self, *, grants: Iterable[int], roles: Iterable[str] = (), ttl_seconds: int = 0
    ) -> mesh_pb2.CreateInviteResponse:
        """Make an invite; its token is in this answer and nowhere else."""
        request = mesh_pb2.CreateInviteRequest(request_id=new_request_id(), ttl_seconds=ttl_seconds)
        request.grants.extend(grants)  # type: ignore[arg-type]
        request.roles.extend(roles)
        return await self._call(self._mesh.CreateInvite, request)

    async def invites(self) -> list[mesh_pb2.Invite]:
        """All invites this peer made."""
        request = mesh_pb2.ListInvitesRequest(page_size=PAGE_SIZE)
        return await self._all(self._mesh.ListInvites, request, lambda page: page.invites)

    async def revoke_invite(self, invite_id: str) -> mesh_pb2.Invite:
        """Withdraw a pending invite."""
        request = mesh_pb2.RevokeInviteRequest(request_id=new_request_id(), invite_id=invite_id)
        return (await self._call(self._mesh.RevokeInvite, request)).invite

    # Profiles

    async def profiles(self) -> list[profiles_pb2.Profile]:
        """The profile of every role that has one."""
        request = profiles_pb2.ListProfilesRequest(page_size=PAGE_SIZE)
        return await self._all(self._profiles.ListProfiles, request, lambda page: page.profiles)

    async def profile(self, role: str) -> profiles_pb2.Profile:
        """The profile of a role."""
        return (await self._call(self._profiles.GetProfile, profiles_pb2.GetProfileRequest(role=role))).profile

    async def profile_history(self, role: str) -> list[profiles_pb2.Profile]:
        """Its versions, newest first."""
        request = profiles_pb2.ListProfileHistoryRequest(role=role, page_size=PAGE_SIZE)
        return await self._all(self._profiles.ListProfileHistory, request, lambda page: page.profiles)

    async def set_profile(
        self, role: str, config: profiles_pb2.ProfileConfig, *, comment: str = "", expected_version: int | None = None
    ) -> profiles_pb2.Profile:
        """Give a role a profile, or a new version of it."""
        request = profiles_pb2.SetProfileRequest(
            request_id=new_request_id(), role=role, config=config, comment=comment, expected_version=expected_version
        )
        return (await self._call(self._profiles.SetProfile, request)).profile

    async def delete_profile(self, role: str, *, comment: str = "") -> profiles_pb2.Profile:
        """Take a role's profile away; its history stays."""
        request = profiles_pb2.DeleteProfileRequest(request_id=new_request_id(), role=role, comment=comment)
        return (await self._call(self._profiles.DeleteProfile, request)).profile

    # The last known state

    def _remember(self, key: bytes, answer: PeerList) -> None:
        self._known[key] = answer
        if self._cache is None or key != _EVERYBODY:
            return
        page = registry_pb2.ListPeersResponse(peers=answer, next_page_token=str(answer.as_of))
        temporary = self._cache.with_suffix(".tmp")
        temporary.write_bytes(page.SerializeToString())
        os.replace(temporary, self._cache)

    def _last_known(self, key: bytes, request: registry_pb2.ListPeersRequest) -> PeerList | None:
        known = self._known.get(key)
        if known is not None:
            return PeerList(known, as_of=known.as_of, stale=True)
        if request.where or request.text or request.group or request.region:
            return None  # what the daemon alone can answer
        everybody = self._known.get(_EVERYBODY) or self._cached()
        if everybody is None:
            return None
        found = [
            peer
            for peer in everybody
            if (not request.role or request.role in peer.roles)
            and (not request.label or request.label in peer.labels)
            and (not request.status or request.status == peer.status)
        ]
        return PeerList(found, as_of=everybody.as_of, stale=True)

    def _cached(self) -> PeerList | None:
        if self._cache is None:
            return None
        try:
            page = registry_pb2.ListPeersResponse.FromString(self._cache.read_bytes())
            return PeerList(page.peers, as_of=float(page.next_page_token), stale=True)
        except (OSError, DecodeError, ValueError):
            return None  # no cache is as good as a damaged one


_EVERYBODY = registry_pb2.ListPeersRequest(page_size=PAGE_SIZE).SerializeToString(deterministic=True)
