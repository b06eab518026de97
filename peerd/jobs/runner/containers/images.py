"""Which image a container is made of: by name, in the engine's storage, fetched only where the service allows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peerd.errors import PeerdError, Reason
from peerd.jobs.runner.containers.engine import Engine, EngineRefusalError


async def find_image(engine: Engine, name: str, digest: str, *, pull: bool) -> str:
    """The id of the image. Raises IMAGE_NOT_FOUND, IMAGE_MISMATCH.

    Containers are made from the id: the name may mean another image a moment later.
    """
    found = await _present(engine, name)
    if pull and (found is None or (digest and digest not in digests(found))):
        wanted = f"{name.partition('@')[0]}@{digest}" if digest else name
        try:
            await engine.pull(wanted)
        except EngineRefusalError as error:
            raise PeerdError(Reason.IMAGE_NOT_FOUND, f"image {wanted} could not be fetched: {error.message}") from error
        found = await _present(engine, wanted)
    if found is None:
        raise PeerdError(
            Reason.IMAGE_NOT_FOUND, f"image {name} is not in the container engine's storage on this machine"
        )
    if digest and digest not in digests(found):
        raise PeerdError(
            Reason.IMAGE_MISMATCH, f"image {name} is {found['Id']} on this machine, and the service demands {digest}"
        )
    return str(found["Id"])


def digests(image: Mapping[str, Any]) -> frozenset[str]:
    """All that an image may be called: its id, and the digests under which registries have it."""
    own = str(image["Id"])
    own = own if own.startswith("sha256:") else f"sha256:{own}"
    return frozenset({own, *(str(entry).rpartition("@")[2] for entry in image.get("RepoDigests") or ())})


async def _present(engine: Engine, name: str) -> Mapping[str, Any] | None:
    try:
        return await engine.image(name)
    except EngineRefusalError as error:
        if error.not_found:
            return None
        raise
