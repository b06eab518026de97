"""Makes, checks and ends tokens. A token is ``peerd_<id>_<secret>``; the store has a digest of the secret only."""

from __future__ import annotations

import hmac
import re
import secrets
import sqlite3
from dataclasses import dataclass

import structlog

from peerd.clock import DAY_MS, Clock, Millis
from peerd.digest import digest
from peerd.errors import PeerdError, Reason
from peerd.store import Store, Tx
from peerd.v1.tokens_pb2 import TokenScope

READ, REGISTER = TokenScope.TOKEN_SCOPE_READ, TokenScope.TOKEN_SCOPE_REGISTER
MAX_TOKENS = 1000
_MAX_NAME = 100
_TOKEN = re.compile(r"peerd_([0-9a-f]{12})_([0-9a-f]{48})")
_USED_EVERY_MS = 60_000
"""How exactly the last use is kept."""
_ENDED_KEPT_MS = 90 * DAY_MS
"""How long a token is still listed after it was revoked or has expired."""

_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Token:
    """What is kept of a token."""

    number: int
    token_id: str
    scope: int
    name: str
    created_at: Millis
    expires_at: Millis | None
    revoked_at: Millis | None
    last_used_at: Millis | None


class Tokens:
    """The tokens of this peer."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def create(self, tx: Tx, *, scope: int, name: str, ttl_seconds: int) -> tuple[Token, str]:
        """A new token, and the one text that holds its secret. Raises INVALID_ARGUMENT or QUOTA_EXCEEDED."""
        if scope not in (READ, REGISTER):
            raise PeerdError(Reason.INVALID_ARGUMENT, "a token needs the scope read or register")
        if len(name) > _MAX_NAME or not name.isprintable():
            raise PeerdError(Reason.INVALID_ARGUMENT, f"a token's name has at most {_MAX_NAME} printable characters")
        if not 0 <= ttl_seconds <= 10 * 366 * 86_400:
            raise PeerdError(Reason.INVALID_ARGUMENT, "a token lives for up to ten years; 0 is for ever")
        tx.execute(
            "DELETE FROM http_tokens WHERE coalesce(min(revoked_at, expires_at), revoked_at, expires_at) < ?",
            (tx.now - _ENDED_KEPT_MS,),
        )
        count = tx.one(
            "SELECT count(*) FROM http_tokens WHERE revoked_at IS NULL AND coalesce(expires_at > ?, 1)", (tx.now,)
        )
        if count is not None and count[0] >= MAX_TOKENS:
            raise PeerdError(
                Reason.QUOTA_EXCEEDED,
                f"there are {MAX_TOKENS} tokens that hold",
                next_action="revoke some first: peerctl tokens revoke ID",
            )
        token_id, secret = secrets.token_hex(6), secrets.token_hex(24)
        expires = tx.now + ttl_seconds * 1000 if ttl_seconds else None
        tx.execute(
            "INSERT INTO http_tokens (token_id, scope, name, digest, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?)",
            (token_id, scope, name, _digest(secret), tx.now, expires),
        )
        return self._get(tx, token_id), f"peerd_{token_id}_{secret}"

    def revoke(self, tx: Tx, token_id: str) -> Token:
        """End a token; one that has ended stays what it is. Raises NOT_FOUND."""
        self._get(tx, token_id)
        tx.execute(
            "UPDATE http_tokens SET revoked_at = ? WHERE token_id = ? AND revoked_at IS NULL", (tx.now, token_id)
        )
        return self._get(tx, token_id)

    async def page(self, after: int, count: int) -> list[Token]:
        """Up to so many tokens, oldest first."""
        rows = await self._store.all("SELECT * FROM http_tokens WHERE id > ? ORDER BY id LIMIT ?", (after, count))
        return [_token(row) for row in rows]

    async def check(self, text: str, scope: int) -> Token:
        """The token that this is. Raises NOT_AUTHENTICATED or PERMISSION_DENIED."""
        match = _TOKEN.fullmatch(text)
        row = None
        if match:
            row = await self._store.one("SELECT * FROM http_tokens WHERE token_id = ?", (match[1],))
        known = row["digest"] if row is not None else b"\0" * 32
        if not hmac.compare_digest(known, _digest(match[2] if match else "")) or row is None:
            raise _unknown("this token is not known here")
        token, now = _token(row), self._clock.now()
        if token.revoked_at is not None:
            raise _unknown("this token was revoked")
        if token.expires_at is not None and now >= token.expires_at:
            raise _unknown("this token has expired")
        if token.scope != scope:
            wanted = TokenScope.Name(TokenScope.ValueType(scope)).removeprefix("TOKEN_SCOPE_").lower()
            raise PeerdError(
                Reason.PERMISSION_DENIED,
                f"this needs a token with the scope {wanted}",
                next_action=f"make one: peerctl tokens create --scope {wanted}",
            )
        if token.last_used_at is None or now - token.last_used_at >= _USED_EVERY_MS:
            await self._used(token, now)
        return token

    async def _used(self, token: Token, now: Millis) -> None:
        """Keep when it was used; a disk that is full does not make a token wrong."""
        try:
            await self._store.write(
                lambda tx: tx.execute("UPDATE http_tokens SET last_used_at = ? WHERE id = ?", (now, token.number))
            )
        except PeerdError as error:
            _log.warning("tokens.use_not_kept", token_id=token.token_id, reason=error.reason.text)

    def _get(self, tx: Tx, token_id: str) -> Token:
        row = tx.one("SELECT * FROM http_tokens WHERE token_id = ?", (token_id,))
        if row is None:
            raise PeerdError(Reason.NOT_FOUND, f"there is no token {token_id[:40]!r} on this peer")
        return _token(row)


def _digest(secret: str) -> bytes:
    return digest(b"peerd http token\0" + secret.encode())


def _unknown(message: str) -> PeerdError:
    return PeerdError(
        Reason.NOT_AUTHENTICATED, message, next_action="make one on this peer: peerctl tokens create --scope ..."
    )


def _token(row: sqlite3.Row) -> Token:
    return Token(
        number=row["id"],
        token_id=row["token_id"],
        scope=row["scope"],
        name=row["name"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        last_used_at=row["last_used_at"],
    )
