"""The wire side of profiles: messages to calls and back."""

from __future__ import annotations

from typing import Any

from peerd.errors import PeerdError, Reason
from peerd.mesh.documents import Document, DocumentTopic
from peerd.mesh.model import check_name
from peerd.profiles.profile import check_profile
from peerd.rpc.caller import current_caller
from peerd.rpc.paging import page_size, page_start
from peerd.store import Store, Tx
from peerd.store.requests import once
from peerd.v1 import profiles_pb2, profiles_pb2_grpc
from peerd.v1.profiles_pb2 import Profile

_PAGE = 100


class ProfileServicer(profiles_pb2_grpc.ProfileServiceServicer):
    """peerd.v1.ProfileService."""

    def __init__(self, store: Store, topic: DocumentTopic[Profile]) -> None:
        self._store = store
        self._topic = topic

    async def GetProfile(
        self, request: profiles_pb2.GetProfileRequest, context: Any
    ) -> profiles_pb2.GetProfileResponse:
        found = self._topic.find(check_name(request.role, "role"))
        if found is None or found.value.deleted:
            raise PeerdError(Reason.NOT_FOUND, f"the role {request.role} has no profile")
        return profiles_pb2.GetProfileResponse(profile=profile_message(found))

    async def ListProfiles(
        self, request: profiles_pb2.ListProfilesRequest, context: Any
    ) -> profiles_pb2.ListProfilesResponse:
        found = [entry for entry in self._topic.current() if not entry.value.deleted]
        profiles, token = _page(found, request.page_size, request.page_token)
        return profiles_pb2.ListProfilesResponse(profiles=profiles, next_page_token=token)

    async def ListProfileHistory(
        self, request: profiles_pb2.ListProfileHistoryRequest, context: Any
    ) -> profiles_pb2.ListProfileHistoryResponse:
        found = self._topic.history(check_name(request.role, "role"))
        profiles, token = _page(found, request.page_size, request.page_token)
        return profiles_pb2.ListProfileHistoryResponse(profiles=profiles, next_page_token=token)

    async def SetProfile(
        self, request: profiles_pb2.SetProfileRequest, context: Any
    ) -> profiles_pb2.SetProfileResponse:
        check_profile(request.role, request.config, request.comment)
        value = Profile(role=request.role, config=request.config, comment=request.comment)

        def effect(tx: Tx) -> profiles_pb2.SetProfileResponse:
            made = self._topic.put(tx, request.role, value)
            if request.HasField("expected_version"):
                current, held = self._topic.find(request.role), self._topic.history(request.role)
                version = current.version if current is not None else 0
                if made.version - 1 > (held[0].version if held else 0):
                    version = made.version - 1  # said in the same moment: stored, and not in memory yet
                if version != request.expected_version:
                    raise PeerdError(
                        Reason.STALE, f"the profile of {request.role} has version {version}, not what was expected"
                    )
            return profiles_pb2.SetProfileResponse(profile=profile_message(made))

        caller = current_caller().peer_id
        return await self._store.write(
            lambda tx: once(
                tx,
                caller=caller,
                request_id=request.request_id,
                request=request,
                answer_type=profiles_pb2.SetProfileResponse,
                effect=lambda: effect(tx),
            )
        )

    async def DeleteProfile(
        self, request: profiles_pb2.DeleteProfileRequest, context: Any
    ) -> profiles_pb2.DeleteProfileResponse:
        value = Profile(role=check_name(request.role, "role"), deleted=True, comment=request.comment)
        check_profile(value.role, value.config, value.comment)

        def effect(tx: Tx) -> profiles_pb2.DeleteProfileResponse:
            found = self._topic.find(request.role)
            if found is None or found.value.deleted:
                raise PeerdError(Reason.NOT_FOUND, f"the role {request.role} has no profile")
            return profiles_pb2.DeleteProfileResponse(profile=profile_message(self._topic.put(tx, request.role, value)))

        caller = current_caller().peer_id
        return await self._store.write(
            lambda tx: once(
                tx,
                caller=caller,
                request_id=request.request_id,
                request=request,
                answer_type=profiles_pb2.DeleteProfileResponse,
                effect=lambda: effect(tx),
            )
        )


def profile_message(document: Document[Profile]) -> Profile:
    """The profile with who signed it."""
    profile = Profile()
    profile.CopyFrom(document.value)
    profile.signer = document.signer
    return profile


def _page(found: list[Document[Profile]], size: int, token: str) -> tuple[list[Profile], str]:
    count, start = page_size(size, default=_PAGE), page_start(token)
    rest = str(start + count) if len(found) > start + count else ""
    return [profile_message(entry) for entry in found[start : start + count]], rest
