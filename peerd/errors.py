"""Every error a user can meet, in one table.

``PeerdError``            something was refused or failed, with a stable :class:`Reason`
  raised by our own code  the caller's mistake, or a state that forbids the call
  raised from the wire    what another peer answered, rebuilt by :mod:`peerd.rpc.status`

A reason is the same text in the CLI, in logs and on the wire (``google.rpc.ErrorInfo.reason``). It maps to one
gRPC code, says whether trying again may help, and has a next action for whoever reads it. Anything that is not a
``PeerdError`` is our own bug: the caller sees ``internal`` and the details go to the log only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, kw_only=True)
class Violation:
    """One field that is wrong, as in ``google.rpc.BadRequest``."""

    field: str
    message: str


@dataclass(frozen=True, eq=False)  # by identity: two reasons with one rule must stay two reasons
class _Rule:
    code: str
    retryable: bool
    next_action: str


class Reason(Enum):
    """Stable reason -> gRPC code name, retryable, what to do next."""

    # What was asked for
    INVALID_ARGUMENT = _Rule("INVALID_ARGUMENT", False, "correct the field that the message names")
    INVALID_PEER_ID = _Rule("INVALID_ARGUMENT", False, "copy the 52-character id from 'peerctl status' on that machine")
    INVALID_NAME = _Rule("INVALID_ARGUMENT", False, "use letters, digits, '-', '_' and '.', at most 63 characters")
    INVALID_PATH = _Rule("INVALID_ARGUMENT", False, "use a relative path without '..', links or control characters")
    INVALID_DEFINITION = _Rule(
        "INVALID_ARGUMENT", False, "run 'peerctl workflows validate FILE' and mend what it lists"
    )
    INVALID_EXPRESSION = _Rule(
        "INVALID_ARGUMENT", False, "write it like 'gpus>=1 AND memory_gb>=16'; docs/peers.md has all names"
    )
    INVALID_PROFILE = _Rule("INVALID_ARGUMENT", False, "mend what the message names; docs/peers.md shows a profile")
    INVALID_BACKUP = _Rule(
        "FAILED_PRECONDITION", False, "use a whole backup ('peerctl backup list'), and a place to write to"
    )
    OTHER_IDENTITY = _Rule("FAILED_PRECONDITION", False, "restore it on the machine whose store it is")
    INVALID_PAGE_TOKEN = _Rule("INVALID_ARGUMENT", False, "start again without a page token")
    REQUEST_ID_REUSED = _Rule("ALREADY_EXISTS", False, "use a new request id for a different request")
    ALREADY_EXISTS = _Rule("ALREADY_EXISTS", False, "choose another name, or replace the existing one explicitly")
    NOT_FOUND = _Rule("NOT_FOUND", False, "list what there is and check the name")
    AMBIGUOUS_NAME = _Rule("FAILED_PRECONDITION", False, "use the peer id instead of the name")
    UNIMPLEMENTED = _Rule("UNIMPLEMENTED", False, "use a peerd version that offers this")
    DEADLINE_EXCEEDED = _Rule("DEADLINE_EXCEEDED", True, "try again, with a longer time-out if the machine is slow")
    CANCELLED = _Rule("CANCELLED", False, "nothing to do")
    INTERNAL = _Rule("INTERNAL", False, "read the daemon's log and report it as a bug")
    TOO_LARGE = _Rule("RESOURCE_EXHAUSTED", False, "send less in one message")
    FILES_REMOVED = _Rule("NOT_FOUND", False, "run it again; 'peerctl executions keep' saves files from retention")

    # Trust
    NOT_TRUSTED_OR_UNREACHABLE = _Rule(
        "UNAVAILABLE",
        True,
        "check that the peer runs, that its address is right, and that both sides are members of one mesh "
        "('peerctl peers' on both)",
    )
    CONNECTION_LOST = _Rule("UNAVAILABLE", True, "try again: the other side went away in the middle of the call")
    NOT_AUTHENTICATED = _Rule("UNAUTHENTICATED", False, "connect with a certificate made from a member's identity")
    REVOKED = _Rule("PERMISSION_DENIED", False, "this key is out for good: make a new identity and ask for an invite")
    NOT_A_MEMBER = _Rule("PERMISSION_DENIED", False, "ask an admin for an invite ('peerctl invite')")
    PERMISSION_DENIED = _Rule("PERMISSION_DENIED", False, "ask an admin to grant what the message names")
    LOCAL_ONLY = _Rule("PERMISSION_DENIED", False, "call it over the unix socket of that machine")
    INVALID_SIGNATURE = _Rule("PERMISSION_DENIED", False, "sign the exact bytes with the key that the statement names")
    INVALID_RECORD = _Rule("INVALID_ARGUMENT", False, "ask the sender for its whole chain of records")
    STALE = _Rule("FAILED_PRECONDITION", False, "fetch the newest version and try again")
    INVITE_INVALID = _Rule("PERMISSION_DENIED", False, "ask for a new invite ('peerctl invite')")
    INVITE_USED = _Rule("PERMISSION_DENIED", False, "ask for a new invite: each admits one machine")
    INVITE_EXPIRED = _Rule("PERMISSION_DENIED", False, "ask for a new invite, with a longer --ttl if need be")
    INVITE_REVOKED = _Rule("PERMISSION_DENIED", False, "ask an admin why, or for a new invite")
    ALREADY_A_MEMBER = _Rule("FAILED_PRECONDITION", False, "leave the mesh it belongs to, or start with a new data dir")
    KEY_EXPOSED = _Rule("FAILED_PRECONDITION", False, "chmod 600 the key file and 700 its directory, then start again")
    CLOCK_SKEW = _Rule("FAILED_PRECONDITION", False, "set the clock of the machine that is wrong")
    REPLAYED = _Rule("ALREADY_EXISTS", False, "make a new statement with a new nonce")

    # This machine
    NOT_INITIALIZED = _Rule("FAILED_PRECONDITION", False, "run 'peerd init' or 'peerd join TOKEN' first")
    ALREADY_INITIALIZED = _Rule(
        "FAILED_PRECONDITION", False, "use another --data-dir, or keep the identity that is there"
    )
    DAEMON_RUNNING = _Rule("FAILED_PRECONDITION", False, "stop the daemon on this data directory first")
    DAEMON_NOT_REACHABLE = _Rule("UNAVAILABLE", True, "start it with 'peerd run', or name its socket with --socket")
    INVALID_CONFIG = _Rule(
        "INVALID_ARGUMENT", False, "mend the configuration; 'peerd config show' tells where a value is from"
    )
    STORE_CORRUPT = _Rule(
        "DATA_LOSS",
        False,
        "stop the daemon there and restore the newest backup: 'peerd restore FILE'; 'peerctl backup list' names them, "
        "they lie in the data directory's backups/",
    )
    STORE_TOO_NEW = _Rule(
        "FAILED_PRECONDITION", False, "install the peerd version that wrote this store, or a later one"
    )
    DISK_LOW = _Rule(
        "RESOURCE_EXHAUSTED",
        True,
        "free disk space on that machine: 'peerctl du' shows what takes it, 'peerctl gc' removes what is over",
    )
    STORAGE_QUOTA = _Rule(
        "RESOURCE_EXHAUSTED",
        True,
        "remove old files there ('peerctl gc'), or raise [jobs] quota_bytes_per_orchestrator",
    )
    DISK_FAILED = _Rule(
        "UNAVAILABLE", True, "look after that machine's disk ('dmesg') and who owns the files; then start peerd again"
    )
    MAINTENANCE = _Rule(
        "FAILED_PRECONDITION",
        True,
        "place the job on another peer, or end the maintenance: 'peerctl peers resume NAME'",
    )
    SHUTTING_DOWN = _Rule("UNAVAILABLE", True, "try again when the daemon is back")
    RATE_LIMITED = _Rule("RESOURCE_EXHAUSTED", True, "wait as long as the answer says, and call less often")
    OVERLOADED = _Rule("RESOURCE_EXHAUSTED", True, "try again a little later")

    # Services and jobs
    SERVICE_NOT_FOUND = _Rule("NOT_FOUND", False, "see what that peer offers: 'peerctl services search'")
    SERVICE_INACTIVE = _Rule("FAILED_PRECONDITION", False, "activate it on its peer: 'peerctl services activate NAME'")
    SERVICE_NOT_ALLOWED = _Rule(
        "PERMISSION_DENIED", False, "ask the owner of the service to allow this peer or its role"
    )
    SERVICE_KIND_UNSUPPORTED = _Rule(
        "FAILED_PRECONDITION",
        False,
        "use another peer, or let a container engine run there: 'peerd doctor' on that machine says what is missing",
    )
    ENGINE_UNAVAILABLE = _Rule(
        "UNAVAILABLE",
        True,
        "start podman or docker on that machine ('systemctl start podman.socket'); the job waits for it",
    )
    ENGINE_REFUSED = _Rule("FAILED_PRECONDITION", False, "mend what the container engine complains of")
    IMAGE_NOT_FOUND = _Rule(
        "FAILED_PRECONDITION",
        False,
        "load the image on that machine ('podman load' or 'docker load'), or let its service pull it",
    )
    IMAGE_MISMATCH = _Rule(
        "FAILED_PRECONDITION", False, "load the image that the service names, or change the service's digest"
    )
    ADHOC_NOT_ALLOWED = _Rule(
        "PERMISSION_DENIED", False, "declare a service for it, or allow the caller under [jobs] allow_commands_from"
    )
    ISOLATION_INSUFFICIENT = _Rule(
        "FAILED_PRECONDITION", False, "install bubblewrap on that machine, or run the job elsewhere"
    )
    SECRET_NOT_FOUND = _Rule(
        "NOT_FOUND", False, "have the owner of that machine name it: [secrets.NAME] in its configuration"
    )
    SECRET_NOT_ALLOWED = _Rule(
        "PERMISSION_DENIED", False, "ask the owner of that machine; docs/secrets.md says who may use a secret"
    )
    SECRET_UNAVAILABLE = _Rule(
        "FAILED_PRECONDITION",
        False,
        "see on that machine that the file or variable of the secret is there and readable",
    )
    RESOURCES_INSUFFICIENT = _Rule("FAILED_PRECONDITION", False, "ask for less, or place the job on a larger machine")
    ILLEGAL_INTERFACE = _Rule(
        "FAILED_PRECONDITION", False, "connect only what the service declares: 'peerctl services show'"
    )
    EXECUTION_FAILED = _Rule("FAILED_PRECONDITION", False, "'peerctl executions show' tells which jobs failed, and why")
    JOB_CANCELLED = _Rule("FAILED_PRECONDITION", False, "nothing to do: the job was cancelled before it came")
    NOT_THE_ORCHESTRATOR = _Rule("PERMISSION_DENIED", False, "ask the peer that ordered the job")
    ILLEGAL_TRANSITION = _Rule("FAILED_PRECONDITION", False, "look at the present state first")
    GROUP_BUSY = _Rule(
        "FAILED_PRECONDITION", True, "run it again when that execution has ended, or let it wait: on_conflict: queue"
    )
    NO_PEER_FITS = _Rule("FAILED_PRECONDITION", True, "see 'peerctl workflows plan FILE' for what each peer lacks")

    # Devices
    DEVICE_BUSY = _Rule(
        "FAILED_PRECONDITION", True, "end the program that has the port open ('fuser PORT'); it is tried again"
    )
    DEVICE_GONE = _Rule("FAILED_PRECONDITION", True, "plug it in again, and see that the daemon may open its port")

    # Transfers
    NOT_YET_EXPECTED = _Rule("FAILED_PRECONDITION", True, "wait: the receiver's job has no interfaces yet")
    OFFER_FIRST = _Rule("FAILED_PRECONDITION", True, "nothing to do: the sender offers again")
    UNEXPECTED_TRANSFER = _Rule("PERMISSION_DENIED", False, "nothing to do: no job there expects this from this peer")
    DIGEST_MISMATCH = _Rule("DATA_LOSS", True, "nothing to do: the piece is sent again")
    SOURCE_CHANGED = _Rule("FAILED_PRECONDITION", False, "run the workflow again and leave the files alone meanwhile")
    QUOTA_EXCEEDED = _Rule("RESOURCE_EXHAUSTED", False, "raise [transfers] max_bytes on the receiver, or send less")
    NOT_A_REGULAR_FILE = _Rule("FAILED_PRECONDITION", False, "leave only regular files and directories in what is sent")
    NO_FILES_MATCH = _Rule(
        "FAILED_PRECONDITION",
        False,
        "correct 'files' or 'from' of the edge, or write 'optional: true' if none may come",
    )
    COLLIDING_NAMES = _Rule("FAILED_PRECONDITION", False, "rename so that every file keeps a name of its own")

    # Scans
    INVALID_STATEMENT = _Rule(
        "INVALID_ARGUMENT", False, "correct the field that the message names and sign the statement anew; docs/scans.md"
    )
    WRONG_AUDIENCE = _Rule(
        "PERMISSION_DENIED", False, "sign a statement whose audience is this peer's id or that of its mesh"
    )
    UNKNOWN_SCANNER = _Rule(
        "PERMISSION_DENIED", False, "have an admin register the key there: 'peerctl scanners add NAME KEY'"
    )
    SCANNER_REVOKED = _Rule("PERMISSION_DENIED", False, "sign with another key, and have an admin register that")
    STATEMENT_EXPIRED = _Rule("FAILED_PRECONDITION", False, "sign the statement anew, if the scan still counts")
    SCAN_CONFLICT = _Rule("ALREADY_EXISTS", False, "give a scan with other content an id of its own")
    SCAN_DATA_MISMATCH = _Rule("INVALID_ARGUMENT", False, "state the size and SHA-256 of the bytes that you send")
    NO_VALID_HOSTS = _Rule(
        "INVALID_ARGUMENT", False, "see why its records were skipped: 'peerctl scans show ID --skipped'"
    )
    SCAN_DATA_REMOVED = _Rule("FAILED_PRECONDITION", False, "hand the scan in again, under a new id")
    INGEST_STUCK = _Rule(
        "FAILED_PRECONDITION", False, "read the daemon's log; 'peerctl scans retry ID' processes it once more"
    )
    UNKNOWN_SCAN_FORMAT = _Rule(
        "INVALID_ARGUMENT", False, "name the format if it is one of those that docs/scan-formats.md lists"
    )
    INVALID_SCAN = _Rule("INVALID_ARGUMENT", False, "hand in the file as the scanner wrote it")
    SCAN_LIMIT = _Rule("RESOURCE_EXHAUSTED", False, "hand in the scan in smaller files")
    TARGET_NOT_ALLOWED = _Rule(
        "PERMISSION_DENIED", False, "ask the owner of that machine to allow the network: [scans] allowed_networks"
    )

    def __init__(self, rule: _Rule) -> None:
        self.code = rule.code
        self.retryable = rule.retryable
        self.next_action = rule.next_action

    @property
    def text(self) -> str:
        """The stable spelling, lower case."""
        return self.name.lower()

    @classmethod
    def from_text(cls, text: str) -> Reason:
        """The reason of that spelling; INTERNAL for one this version does not know."""
        return cls.__members__.get(text.upper(), cls.INTERNAL)


class PeerdError(Exception):
    """A refusal or failure that may be shown to whoever asked.

    ``message`` says what is wrong in one sentence and is safe to show; ``next_action`` replaces the reason's own
    where the place knows better; ``violations`` name fields.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        next_action: str | None = None,
        violations: Sequence[Violation] = (),
        metadata: Mapping[str, str] | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.next_action = next_action or reason.next_action
        self.violations = tuple(violations)
        self.metadata = dict(metadata or {})
        self.retry_after_seconds = retry_after_seconds

    @property
    def retryable(self) -> bool:
        """Whether the same call may succeed later."""
        return self.reason.retryable

    def __str__(self) -> str:
        return f"{self.reason.text}: {self.message}"
