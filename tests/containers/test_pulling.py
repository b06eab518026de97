"""Images that are fetched from a registry: a real one, as far as fetching goes, in the engine's own network."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from peerd.errors import Reason
from peerd.jobs.runner import Outcome
from peerd.jobs.runner.containers.runner import ContainerRunner
from peerd.jobs.runner.containers.spec import ContainerSpec

from .podman import REGISTRY, Podman
from .test_runner import run, runner, shell, spec

pytestmark = pytest.mark.timeout(300)

__all__ = ["runner", "spec"]

NAME = f"{REGISTRY}/team/tool:1"


@dataclass(frozen=True, kw_only=True)
class Registry:
    """One that serves the images which a test publishes."""

    podman: Podman
    folder: Path

    def publish(self, said: str) -> str:
        """Let NAME be an image whose file /said holds that text; the digest of its manifest."""
        self.podman.load("localhost/published:1", files={"said": said})
        layout = self.folder / "team" / "tool"
        index = layout / "index.json"
        before = json.loads(index.read_text())["manifests"] if index.exists() else []
        self.podman.call("save", "--quiet", "--format", "oci-dir", "--output", str(layout), "localhost/published:1")
        known = {entry["digest"] for entry in before}
        (newest,) = [entry for entry in json.loads(index.read_text())["manifests"] if entry["digest"] not in known]
        index.write_text(json.dumps({"schemaVersion": 2, "manifests": [newest, *before]}))
        self.podman.call("rmi", "--force", "localhost/published:1")
        return str(newest["digest"])

    @property
    def asked(self) -> list[str]:
        """What was asked of it."""
        log = self.folder / "log"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def registry(engine: Podman, tmp_path: Path) -> Iterator[Registry]:
    inside = ["nsenter", f"--net=/proc/{engine.service_pid}/ns/net"]
    subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
    folder = tmp_path / "registry"
    (folder / "team").mkdir(parents=True)
    program = [sys.executable, str(Path(__file__).with_name("registry.py"))]
    port = REGISTRY.rpartition(":")[2]
    command = [*inside, *program, port, str(folder), str(folder / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as serving:
        assert serving.stdout is not None and serving.stdout.readline() == b"listens\n"
        yield Registry(podman=engine, folder=folder)
        serving.kill()
    engine.call("rmi", "--force", "--ignore", NAME)


async def test_an_image_is_fetched_where_the_service_allows_it_and_only_once(
    runner: ContainerRunner, registry: Registry, spec: ContainerSpec, tmp_path: Path
) -> None:
    registry.publish("hello")
    refused = await run(runner, shell(spec, "cat /said", image=NAME), tmp_path / "c1")
    assert (refused.outcome, refused.reason) == (Outcome.REFUSED, Reason.IMAGE_NOT_FOUND.text)
    assert registry.asked == [], "nobody asked a registry unasked"
    ended = await run(runner, shell(spec, "cat /said", image=NAME, pull=True), tmp_path / "c2")
    assert (ended.outcome, ended.exit_code) == (Outcome.EXITED, 0), ended.message
    assert spec.stdout_path.read_text() == "hello"
    fetched = len(registry.asked)
    assert any("/blobs/" in line for line in registry.asked)
    ended = await run(runner, shell(spec, "cat /said", image=NAME, pull=True), tmp_path / "c3")
    assert ended.exit_code == 0 and len(registry.asked) == fetched, "what is there is not fetched again"


async def test_a_digest_is_fetched_although_its_name_means_another_image_by_now(
    runner: ContainerRunner, registry: Registry, spec: ContainerSpec, tmp_path: Path
) -> None:
    wanted = registry.publish("the first")
    registry.publish("the second")
    ended = await run(runner, shell(spec, "cat /said", image=NAME, pull=True), tmp_path / "c1")
    assert (ended.exit_code, spec.stdout_path.read_text()) == (0, "the second"), ended.message
    ended = await run(runner, shell(spec, "cat /said", image=NAME, digest=wanted, pull=True), tmp_path / "c2")
    assert (ended.exit_code, spec.stdout_path.read_text()) == (0, "the secondthe first"), ended.message


async def test_a_digest_that_the_registry_does_not_have_is_refused(
    runner: ContainerRunner, registry: Registry, spec: ContainerSpec, tmp_path: Path
) -> None:
    registry.publish("hello")
    other = shell(spec, "cat /said", image=NAME, digest="sha256:" + "0" * 64, pull=True)
    ended = await run(runner, other, tmp_path / "c")
    assert (ended.outcome, ended.reason) == (Outcome.REFUSED, Reason.IMAGE_NOT_FOUND.text)
    assert "could not be fetched" in ended.message and spec.stdout_path.read_text() == ""
