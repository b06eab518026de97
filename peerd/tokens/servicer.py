"""The wire side of tokens."""

from __future__ import annotations

from typing import Any

from peerd.moments import moment
from peerd.rpc.caller import current_caller
from peerd.rpc.paging import page_size, page_start
from peerd.store import Store, Tx
from peerd.store.requests import once
from peerd.tokens.tokens import Token, Tokens
from peerd.v1 import tokens_pb2, tokens_pb2_grpc

_PAGE = 100


class TokenServicer(tokens_pb2_grpc.TokenServiceServicer):
    """peerd.v1.TokenService."""

    def __init__(self, store: Store, tokens: Tokens) -> None:
        self._store = store
        self._tokens = tokens

    async def CreateToken(self, request: tokens_pb2.CreateTokenRequest, context: Any) -> tokens_pb2.CreateTokenResponse:
        shown: list[str] = []

        def effect(tx: Tx) -> tokens_pb2.CreateTokenResponse:
            token, text = self._tokens.create(
                tx, scope=request.scope, name=request.name, ttl_seconds=request.ttl_seconds
            )
            shown[:] = [text]
            return tokens_pb2.CreateTokenResponse(details=_message(token))  # the secret is not stored with the answer

        caller = current_caller().peer_id
        answer = await self._store.write(
            lambda tx: once(
                tx,
                caller=caller,
                request_id=request.request_id,
                request=request,
                answer_type=tokens_pb2.CreateTokenResponse,
                effect=lambda: effect(tx),
            )
        )
        answer.token = shown[0] if shown and shown[0].split("_")[1] == answer.details.token_id else ""
        return answer

    async def ListTokens(self, request: tokens_pb2.ListTokensRequest, context: Any) -> tokens_pb2.ListTokensResponse:
        size = page_size(request.page_size, default=_PAGE)
        found = await self._tokens.page(page_start(request.page_token), size + 1)
        token = str(found[size - 1].number) if len(found) > size else ""
        return tokens_pb2.ListTokensResponse(tokens=[_message(entry) for entry in found[:size]], next_page_token=token)

    async def RevokeToken(self, request: tokens_pb2.RevokeTokenRequest, context: Any) -> tokens_pb2.RevokeTokenResponse:
        def effect(tx: Tx) -> tokens_pb2.RevokeTokenResponse:
            return tokens_pb2.RevokeTokenResponse(details=_message(self._tokens.revoke(tx, request.token_id)))

        caller = current_caller().peer_id
        return await self._store.write(
            lambda tx: once(
                tx,
                caller=caller,
                request_id=request.request_id,
                request=request,
                answer_type=tokens_pb2.RevokeTokenResponse,
                effect=lambda: effect(tx),
            )
        )


def _message(token: Token) -> tokens_pb2.Token:
    return tokens_pb2.Token(
        token_id=token.token_id,
        scope=tokens_pb2.TokenScope.ValueType(token.scope),
        name=token.name,
        created_at=moment(token.created_at),
        expires_at=moment(token.expires_at),
        revoked_at=moment(token.revoked_at),
        last_used_at=moment(token.last_used_at),
    )
