"""Files that commands read: workflow definitions and service declarations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from peerd.client.definition_file import looks_like_file, read_definition, read_text
from peerd.errors import PeerdError, Reason

if TYPE_CHECKING:
    from peerd.v1 import catalog_pb2

__all__ = ["looks_like_file", "read_declaration", "read_definition"]


def read_declaration(path: Path) -> catalog_pb2.ServiceDeclaration:
    """A service declaration in JSON or YAML."""
    import yaml
    from google.protobuf.json_format import ParseDict, ParseError

    from peerd.v1 import catalog_pb2

    try:
        content = yaml.safe_load(read_text(path))
        if not isinstance(content, dict):
            raise ParseError("it must be a mapping with a name and a kind")
        return ParseDict(content, catalog_pb2.ServiceDeclaration())
    except (yaml.YAMLError, ParseError) as exc:
        raise PeerdError(
            Reason.INVALID_ARGUMENT,
            f"{path} is not a service declaration: {' '.join(str(exc).split())}",
            next_action="write it as docs/cli.md shows",
        ) from exc
