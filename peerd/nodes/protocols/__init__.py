"""The protocols that discovery and scans know: those that peerd brings along, and those that an operator adds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path

from peerd.errors import PeerdError, Reason
from peerd.nodes.protocols.model import GENERIC, Probe, Protocol, Query, QueryKind
from peerd.nodes.protocols.reading import read_protocol
from peerd.nodes.protocols.table import NEXT_ACTION

__all__ = ["GENERIC", "Probe", "Protocol", "Protocols", "Query", "QueryKind", "load_protocols"]

BUILT_IN = "built-in"


class Protocols:
    """All protocols by name."""

    def __init__(self, protocols: Mapping[str, Protocol], texts: Mapping[str, str]) -> None:
        self._protocols = dict(sorted(protocols.items()))
        self.added = dict(sorted(texts.items()))
        """The files that were added to the built-in ones, by protocol: what another peer needs to know them, too."""

    def find(self, name: str) -> Protocol | None:
        """The protocol of that name, in any case."""
        return self._protocols.get(name.lower())

    def __iter__(self) -> Iterator[Protocol]:
        return iter(self._protocols.values())

    def __len__(self) -> int:
        return len(self._protocols)

    def names(self) -> tuple[str, ...]:
        """In alphabetical order."""
        return tuple(self._protocols)

    def with_texts(self, texts: Mapping[str, str]) -> Protocols:
        """These and those of more files, each with a name of its own. Raises PeerdError."""
        protocols, added = dict(self._protocols), dict(self.added)
        for source, text in texts.items():
            protocol = read_protocol(text, source)
            known = protocols.get(protocol.name)
            if known is not None and (known.source != source):
                raise PeerdError(
                    Reason.INVALID_CONFIG,
                    f"protocol file {source}: name: {protocol.name!r} is taken ({known.source})",
                    next_action=NEXT_ACTION,
                )
            protocols[protocol.name] = protocol
            added[source] = text
        return Protocols(protocols, added)


def load_protocols(directory: Path | None = None) -> Protocols:
    """The built-in protocols and those of ``*.toml`` in a directory. Raises PeerdError(INVALID_CONFIG)."""
    protocols = _built_in()
    return protocols if directory is None else protocols.with_texts(_texts(directory))


@cache
def _built_in() -> Protocols:
    """Read once: it takes as long as a discovery on a near host."""
    read = [
        read_protocol(file.read_text(encoding="utf-8"), f"{BUILT_IN} {file.name}")
        for file in resources.files(__name__).iterdir()
        if file.name.endswith(".toml")
    ]
    return Protocols({protocol.name: protocol for protocol in read}, {})


def _texts(directory: Path) -> dict[str, str]:
    texts = {}
    try:
        if not directory.is_dir():
            raise PeerdError(Reason.INVALID_CONFIG, f"{directory}: not a directory", next_action="make it, or unset it")
        for path in sorted(directory.glob("*.toml")):
            texts[str(path)] = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PeerdError(
            Reason.INVALID_CONFIG, f"protocol files in {directory}: {error}", next_action=NEXT_ACTION
        ) from error
    return texts
