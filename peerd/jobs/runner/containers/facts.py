"""What is known of an engine. Apart from what speaks with it, which takes a fifth of a second to import."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EngineFacts:
    """What an engine says of itself."""

    name: str
    """podman or docker."""
    version: str
    rootless: bool
    remapped: bool
    """Its containers have other user ids than the machine."""
    limits_memory: bool
