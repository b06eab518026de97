"""Who may ask over HTTP: anybody on this machine may look; elsewhere, and to register, it takes a token."""

from __future__ import annotations

import ipaddress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from peerd import metrics
from peerd.clock import Clock
from peerd.errors import PeerdError, Reason
from peerd.rpc.rates import Rates
from peerd.v1.tokens_pb2 import TokenScope
from peerd.web.errors import refusal
from peerd.web.surroundings import Tokens

OPEN = ("/livez", "/readyz")
"""What a supervisor asks from anywhere: they tell strangers nothing but yes or no, and which check failed."""

CALLER = "peerd.caller"
"""In the scope of a request: by which token it came, for the audit log."""
SIGNED = ("/v1/mesh/ingest",)
"""Paths where what is posted is signed, and the signature is what admits."""
STRANGER = "peerd.stranger"
"""In the scope of a request: whether it came from anywhere, without a token."""
ASKING = ("/v1/query/graph",)
"""Paths where what is posted is a question: it takes no more than looking does."""
_METHODS = ("GET", "HEAD", "POST")


def is_loopback(host: str) -> bool:
    """Whether that address, or name, is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Gate:
    """Stands before the paths: admits, limits and counts."""

    def __init__(self, app: ASGIApp, *, tokens: Tokens, clock: Clock, rates: Rates, loopback: bool) -> None:
        self._app = app
        self._tokens = tokens
        self._clock = clock
        self._rates = rates
        self._loopback = loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        code = 500

        async def noting(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        try:
            try:
                await self._admit(scope)
            except PeerdError as error:
                await refusal(error)(scope, receive, noting)
            else:
                await self._app(scope, receive, noting)
        finally:
            route = getattr(scope.get("endpoint"), "__name__", "none")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            metrics.http_requests.labels(route, method, str(code)).inc()

    async def _admit(self, scope: Scope) -> None:
        """Raises NOT_AUTHENTICATED, PERMISSION_DENIED or RATE_LIMITED."""
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        # A page of some site that a browser here has open may name this address in its own DNS; not this Host.
        if self._loopback and not is_loopback(_host_of(headers.get("host", ""))):
            raise PeerdError(
                Reason.PERMISSION_DENIED,
                "this address answers to the names of the machine itself only",
                next_action="ask for http://127.0.0.1:PORT, or let [http] listen name another address",
            )
        scheme, _, text = headers.get("authorization", "").partition(" ")
        token = text.strip() if scheme.lower() == "bearer" else ""
        client = scope.get("client")
        address = f"address {client[0] if client else ''}"
        writes = scope["method"] not in ("GET", "HEAD") and scope["path"] not in ASKING
        if scope["path"] in SIGNED and scope["method"] == "POST":
            self._limit(address)
            scope[STRANGER] = True
            return
        if scope["path"] in OPEN or (self._loopback and not writes):
            self._limit(address)
            scope[STRANGER] = not self._loopback
            return
        if not token:
            self._limit(address)
            raise PeerdError(
                Reason.NOT_AUTHENTICATED,
                "this needs a token",
                next_action="send 'Authorization: Bearer TOKEN'; peerctl tokens create makes one on this peer",
            )
        wanted = TokenScope.TOKEN_SCOPE_REGISTER if writes else TokenScope.TOKEN_SCOPE_READ
        try:
            checked = await self._tokens.check(token, wanted)
        except PeerdError:
            # Only a token that holds has a bucket: else guessing would go on under ever new names, or use up another's.
            self._limit(address)
            raise
        self._limit(f"token {checked.token_id}")
        scope[CALLER] = f"token {checked.token_id}"

    def _limit(self, caller: str) -> None:
        self._rates.check(caller, self._clock.monotonic())


def _host_of(header: str) -> str:
    """The host of a Host header, without its port."""
    if header.startswith("["):
        return header.partition("]")[0].strip("[]")
    return header.partition(":")[0].lower()
