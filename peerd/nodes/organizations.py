"""Organizations: made, changed and found by those who may act for them."""

from __future__ import annotations

import re
import sqlite3
import uuid
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

from peerd.errors import PeerdError, Reason
from peerd.nodes import repository
from peerd.nodes.model import Organization
from peerd.nodes.next_action import OrgProblem
from peerd.nodes.policy import complete_policy
from peerd.store import Store, Tx
from peerd.v1 import nodes_pb2

_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_MOST = 10_000
_LENGTHS = {"name": 200, "description": 2000, "contact_email": 320}


def is_uuid(text: str) -> bool:
    """With hyphens, in any case."""
    return _UUID.fullmatch(text) is not None


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who asks."""

    peer_id: str
    name: str
    """As people know it."""
    roles: frozenset[str]
    own: bool
    """Whether it is this peer itself, which can read the whole store anyway."""

    def may_act_for(self, organization: Organization) -> bool:
        """Whether the organization is visible to it at all."""
        return self.own or organization.admits(self.peer_id, self.roles)


class Review(Protocol):
    """What follows when an organization is changed; see peerd.nodes.withdrawing."""

    def review(self, tx: Tx, before: Organization, after: Organization) -> None:
        """Stop what is not allowed any more."""
        ...


class Organizations:
    """Inside the caller's transaction."""

    def __init__(
        self, known: Collection[str], withdrawing: Review, new_id: Callable[[], str] = lambda: str(uuid.uuid4())
    ) -> None:
        self._known = known
        self._withdrawing = withdrawing
        self._new_id = new_id

    def add(self, tx: Tx, request: nodes_pb2.AddOrganizationRequest, actor: Actor) -> sqlite3.Row:
        """A new one. Raises INVALID_ARGUMENT, INVALID_NAME, ALREADY_EXISTS, OVERLOADED."""
        slug = request.slug
        if not _SLUG.fullmatch(slug) or is_uuid(slug):
            raise PeerdError(
                Reason.INVALID_NAME,
                f"{slug[:80]!r} cannot be the slug of an organization",
                next_action="use lower-case letters, digits and inner '-', at most 63, and no UUID",
            )
        if repository.find_organization(tx, slug) is not None:
            raise PeerdError(Reason.ALREADY_EXISTS, f"there is an organization {slug!r} already")
        count = tx.one("SELECT count(*) AS count FROM organizations")
        if count is not None and count["count"] >= _MOST:
            raise PeerdError(Reason.OVERLOADED, f"there are {_MOST} organizations already")
        texts = {
            "name": request.name or slug,
            "description": request.description,
            "contact_email": request.contact_email,
        }
        org_id = self._new_id()
        repository.insert_organization(
            tx,
            {
                "org_id": org_id,
                "slug": slug,
                **_checked(texts),
                "policy": self._policy(request.policy),
                "created_at": tx.now,
                "updated_at": tx.now,
                "created_by": actor.name,
            },
        )
        return self._stored(tx, org_id)

    def update(self, tx: Tx, request: nodes_pb2.UpdateOrganizationRequest, actor: Actor) -> sqlite3.Row:
        """Change what is given. Raises INVALID_ARGUMENT, NOT_FOUND, STALE."""
        row = self.get(tx, request.org, actor)
        if request.HasField("policy_before") and request.policy_before != repository.stored_policy(row):
            raise PeerdError(
                Reason.STALE,
                f"the policy of {row['slug']} was changed by somebody else meanwhile",
                next_action="look at it and change it again",
            )
        columns: dict[str, object] = dict(
            _checked({name: getattr(request, name) for name in _LENGTHS if request.HasField(name)})  # type: ignore[arg-type]
        )
        if columns.get("name") == "":
            raise PeerdError(Reason.INVALID_ARGUMENT, "name: an organization needs one")
        if request.HasField("policy"):
            columns["policy"] = self._policy(request.policy)
        return self._changed(tx, row, columns)

    def set_active(self, tx: Tx, org: str, active: bool, actor: Actor) -> sqlite3.Row:
        """Let it start something or not; what is under way is stopped with it. Raises NOT_FOUND."""
        row = self.get(tx, org, actor)
        return self._changed(tx, row, {"active": int(active)})

    def get(self, tx: Tx, org: str, actor: Actor) -> sqlite3.Row:
        """The row of one that the actor may act for. Raises NOT_FOUND or INVALID_ARGUMENT, in the source's words."""
        return _visible(repository.find_organization(tx, org), org, actor)

    def acting(self, tx: Tx, org: str, actor: Actor) -> Organization | OrgProblem:
        """The same for decisions: a problem is an answer."""
        if not org:
            return OrgProblem.MISSING
        row = repository.find_organization(tx, org)
        found = repository.to_organization(row) if row is not None else None
        if found is not None and actor.may_act_for(found):
            return found
        return OrgProblem.UNKNOWN if is_uuid(org) else OrgProblem.NO_UUID

    def _changed(self, tx: Tx, row: sqlite3.Row, columns: dict[str, object]) -> sqlite3.Row:
        repository.update_organization(tx, row["org_id"], columns)
        changed = self._stored(tx, row["org_id"])
        self._withdrawing.review(tx, repository.to_organization(row), repository.to_organization(changed))
        return changed

    def _policy(self, given: nodes_pb2.OrganizationPolicy) -> bytes:
        return complete_policy(given, self._known).SerializeToString(deterministic=True)

    def _stored(self, tx: Tx, org_id: str) -> sqlite3.Row:
        row = tx.one(*repository.organization_query(org_id, repository.COUNTED))
        assert row is not None  # noqa: S101 - written in this very transaction
        return row


async def read_organization(store: Store, org: str, actor: Actor) -> sqlite3.Row:
    """As :meth:`Organizations.get`, outside of a transaction, and with the number of its nodes."""
    return _visible(await store.one(*repository.organization_query(org, repository.COUNTED)), org, actor)


async def visible_rows(store: Store, rows: Iterable[sqlite3.Row], org: str, actor: Actor) -> list[sqlite3.Row]:
    """Those of them whose organization is that one; one that the actor may act for when none is named. Raises NOT_FOUND
    for an organization that is none to the actor."""
    named = _visible(await store.one(*repository.organization_query(org)), org, actor)["org_id"] if org else ""
    found = []
    for row in rows:
        owner = await store.one(*repository.organization_query(row["org_id"]))
        if owner is not None and (not named or owner["org_id"] == named):
            found += [row] if actor.may_act_for(repository.to_organization(owner)) else []
    return found


async def visible_organizations(store: Store, org: str, actor: Actor) -> list[str]:
    """The UUID of that organization; of all that the actor may act for when none is named. Raises NOT_FOUND."""
    if org:
        return [(await read_organization(store, org, actor))["org_id"]]
    rows = await store.all("SELECT * FROM organizations ORDER BY id")
    return [row["org_id"] for row in rows if actor.may_act_for(repository.to_organization(row))]


def _visible(row: sqlite3.Row | None, org: str, actor: Actor) -> sqlite3.Row:
    if row is not None and actor.may_act_for(repository.to_organization(row)):
        return row
    if not org:
        raise PeerdError(Reason.INVALID_ARGUMENT, OrgProblem.MISSING, next_action="name one with --org")
    next_action = "see 'peerctl orgs list'"
    if is_uuid(org):
        raise PeerdError(Reason.NOT_FOUND, OrgProblem.UNKNOWN, next_action=next_action)
    raise PeerdError(Reason.INVALID_ARGUMENT, OrgProblem.NO_UUID, next_action=f"or a slug that is known: {next_action}")


def _checked(texts: dict[str, str]) -> dict[str, str]:
    for name, text in texts.items():
        if len(text) > _LENGTHS[name]:
            raise PeerdError(Reason.INVALID_ARGUMENT, f"{name}: longer than {_LENGTHS[name]} characters")
        if not all(character.isprintable() or (character == "\n" and name == "description") for character in text):
            raise PeerdError(Reason.INVALID_ARGUMENT, f"{name}: has control characters")
    return texts
