"""What comes out of reading a scan besides records, and what bounds the reading."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from peerd.clock import Millis
from peerd.inventory.model import Record


class Format(StrEnum):
    """What a scanner wrote."""

    NAABU = "naabu"  # JSON Lines of all generations, an array of the same objects, or one object
    NMAP_XML = "nmap_xml"
    MASSCAN_JSON = "masscan_json"
    MASSCAN_NDJSON = "masscan_ndjson"
    MASSCAN_XML = "masscan_xml"
    HOST_PORT = "host_port"  # lines such as 10.0.0.1:80, [2001:db8::1]:53/udp


class SkipReason(StrEnum):
    """Why a record was passed over. The spellings are stable."""

    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    DUPLICATE_KEY = "duplicate_key"
    TOO_DEEP = "too_deep"
    NUMBER_TOO_LONG = "number_too_long"
    MISSING_FIELD = "missing_field"  # no port, or nothing that names a host
    NO_ADDRESS = "no_address"  # a name only: names are not resolved
    INVALID_ADDRESS = "invalid_address"
    INVALID_PORT = "invalid_port"
    INVALID_PROTOCOL = "invalid_protocol"
    INVALID_STATE = "invalid_state"  # neither open nor closed nor filtered, or unknown
    NOT_HOST_PORT = "not_host_port"
    NOT_XML = "not_xml"  # not well-formed from here on: nothing after it is read
    TRUNCATED = "truncated"  # the file ends in the middle; what was whole before it counts


@dataclass(frozen=True, kw_only=True, slots=True)
class Skipped:
    """Something that was not read, and why. The other records of the scan count."""

    line: int
    """From 1; of the line where the record begins, for XML where it was given up."""
    reason: SkipReason
    excerpt: str
    """How it begins, in printable characters, at most 160 and those that escaping adds."""


Item = Record | Skipped


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What no scan may exceed: past any of them the rest of the file is refused. Text nested too deep in a line of its
    own and numbers too long are skipped like other nonsense."""

    total_bytes: int = 2 << 30
    records: int = 20_000_000
    """Records and skipped ones together."""
    depth: int = 64
    """Of JSON and XML; nmap's tables of scripts nest some ten deep."""
    item_bytes: int = 1 << 20
    """One line, one JSON object, one piece of XML between two tags, or blanks in a row."""
    digits: int = 24
    """Of one number in JSON."""
    seconds: float = 3600.0
    """Spent reading, without what the caller does between items. Counts only with a clock."""


@dataclass(kw_only=True, slots=True)
class Notes:
    """What the file says of the whole scan. Complete once it was read to its end."""

    tool: str = ""
    tool_version: str = ""
    started_at: Millis | None = None
    finished_at: Millis | None = None
    whole: bool = True
    """False where the file ends in the middle, as a tool leaves it that was killed."""
    hosts_down: int = 0
    other_ports: dict[str, int] = field(default_factory=dict)
    """State -> how many ports nmap counted without listing them (``extraports``)."""
    covered: list[tuple[str, str]] = field(default_factory=list)
    """(transport, ranges such as ``1-1024,8080``): the ports that nmap says it tried, on each host."""
