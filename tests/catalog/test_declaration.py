"""What an owner may declare, and how mistakes are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from peerd.catalog.declaration import check_declaration, from_config
from peerd.catalog.model import ContainerImage, HandIn, InterfaceKind, Service
from peerd.errors import PeerdError, Reason
from peerd.identity.key import identity_from_seed

DATA_DIR = Path("/var/lib/peerd")
PEER = identity_from_seed(bytes(32)).peer_id
PROCESS: dict[str, Any] = {"name": "count", "kind": "SERVICE_KIND_PROCESS", "argv": ["/usr/bin/wc", "-l"]}
CONTAINER: dict[str, Any] = {
    "name": "count",
    "kind": "SERVICE_KIND_CONTAINER",
    "container": {"image": "localhost/count:1"},
}
DATA: dict[str, Any] = {"name": "books", "kind": "SERVICE_KIND_DATA", "path": "/srv/books"}


def declare(entry: dict[str, Any]) -> Service:
    declaration = check_declaration(from_config(entry), data_dir=DATA_DIR)
    return Service(service_id=1, active=True, origin="config", declaration=declaration)


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        ({**PROCESS, "hand_in": {"to": "collector"}}, "hand_in.to"),
        ({**PROCESS, "hand_in": {"to": PEER, "format": "pdf"}}, "hand_in.format"),
        ({**PROCESS, "hand_in": {"to": PEER, "files": ["../*.xml"]}}, "hand_in.files[0]"),
        ({**PROCESS, "hand_in": {"to": PEER, "files": ["*.xml", "/x"]}}, "hand_in.files[1]"),
        ({**PROCESS, "hand_in": {"to": PEER, "files": ["a**b"]}}, "hand_in.files[0]"),
        ({**PROCESS, "hand_in": {"to": PEER, "files": ["*.xml"] * 101}}, "hand_in.files"),
        ({**PROCESS, "hand_in": {"to": PEER, "vantage": "a\nb"}}, "hand_in.vantage"),
        ({**PROCESS, "hand_in": {"to": PEER}, "interfaces": [{"kind": "INTERFACE_KIND_STDIN"}]}, "hand_in"),
        ({**DATA, "hand_in": {"to": PEER}}, "hand_in"),
        ({**PROCESS, "name": ""}, "name"),
        ({**PROCESS, "name": "a/b"}, "name"),
        ({**PROCESS, "name": "12"}, "name"),
        ({**PROCESS, "name": "x" * 64}, "name"),
        ({"name": "count"}, "kind"),
        ({**PROCESS, "argv": []}, "argv[0]"),
        ({**PROCESS, "argv": ["wc"]}, "argv[0]"),
        ({**PROCESS, "argv": ["/bin/${name}"], "params": [{"name": "name"}]}, "argv[0]"),
        ({**PROCESS, "argv": ["/bin/echo", "${what}"]}, "argv[1]"),
        ({**PROCESS, "argv": ["/bin/echo", "a\0b"]}, "argv[1]"),
        ({**PROCESS, "path": "/srv"}, "path"),
        ({**PROCESS, "params": [{"name": "a"}, {"name": "a"}]}, "params[1].name"),
        ({**PROCESS, "params": [{"name": "a", "pattern": "("}]}, "params[0].pattern"),
        ({**PROCESS, "params": [{"name": "a", "pattern": "x" * 201}]}, "params[0].pattern"),
        ({**PROCESS, "params": [{"name": "a", "pattern": "[0-9]+", "defaultValue": "x"}]}, "params[0].default_value"),
        ({**PROCESS, "env": {"LD_PRELOAD": "/x.so"}}, "env['LD_PRELOAD']"),
        ({**PROCESS, "job_env": ["LD_LIBRARY_PATH"]}, "job_env[0]"),
        ({**PROCESS, "read_only_paths": ["srv"]}, "read_only_paths[0]"),
        ({**PROCESS, "read_only_paths": ["/srv/../etc"]}, "read_only_paths[0]"),
        ({**PROCESS, "read_only_paths": ["/"]}, "read_only_paths[0]"),
        ({**PROCESS, "read_only_paths": ["/var/lib/peerd/identity.key"]}, "read_only_paths[0]"),
        ({**PROCESS, "writable_paths": ["/var/lib"]}, "writable_paths[0]"),
        ({**PROCESS, "interfaces": [{"kind": "INTERFACE_KIND_MOUNT", "path": "../x"}]}, "interfaces[0].path"),
        ({**PROCESS, "interfaces": [{"kind": "INTERFACE_KIND_MOUNT", "path": "/x"}]}, "interfaces[0].path"),
        ({**PROCESS, "interfaces": [{"kind": "INTERFACE_KIND_STDIN", "path": "x"}]}, "interfaces[0].path"),
        ({**PROCESS, "interfaces": [{}]}, "interfaces[0].kind"),
        (
            {**PROCESS, "interfaces": [{"kind": "INTERFACE_KIND_STDIN", "mount_function": "MOUNT_FUNCTION_OUTPUT"}]},
            "interfaces[0].mount_function",
        ),
        ({**PROCESS, "allowed_peers": ["alpha"]}, "allowed_peers[0]"),
        ({**PROCESS, "allowed_roles": ["a b"]}, "allowed_roles[0]"),
        ({**DATA, "path": "books"}, "path"),
        ({"name": "c", "kind": "SERVICE_KIND_CONTAINER"}, "container.image"),
        ({**CONTAINER, "path": "/srv"}, "path"),
        ({**CONTAINER, "argv": ["${what}"]}, "argv[0]"),
        ({**CONTAINER, "interfaces": [{"kind": "INTERFACE_KIND_MOUNT"}]}, "interfaces[0].path"),
        ({**CONTAINER, "interfaces": [{"kind": "INTERFACE_KIND_MOUNT", "path": "proc/1"}]}, "interfaces[0].path"),
        ({**CONTAINER, "read_only_paths": ["/proc"]}, "read_only_paths[0]"),
        ({**CONTAINER, "writable_paths": ["/tmp"]}, "writable_paths[0]"),
        ({**CONTAINER, "container": {"image": "x@sha256:1"}}, "container.image"),
        ({**CONTAINER, "container": {"image": "--privileged"}}, "container.image"),
        ({**CONTAINER, "container": {"image": "x", "digest": "sha256:1"}}, "container.digest"),
        ({**CONTAINER, "container": {"image": "x", "user": "0:0"}}, "container.user"),
        ({**CONTAINER, "container": {"image": "x", "user": "1000:0"}}, "container.user"),
        ({**CONTAINER, "container": {"image": "x", "user": "nobody"}}, "container.user"),
        ({**CONTAINER, "container": {"image": "x", "entrypoint": [""]}}, "container.entrypoint[0]"),
        ({**CONTAINER, "container": {"image": "x", "entrypoint": ["a", "${b}"]}}, "container.entrypoint[1]"),
        ({**CONTAINER, "container": {"image": "x", "working_directory": "a"}}, "container.working_directory"),
        ({**CONTAINER, "container": {"image": "x", "tmp": "much"}}, "container.tmp"),
        ({**PROCESS, "container": {"image": "x"}}, "container"),
        ({**DATA, "path": ""}, "path"),
        ({**DATA, "path": "/var/lib/peerd/workflows"}, "path"),
        ({**DATA, "argv": ["/bin/true"]}, "argv"),
        ({**DATA, "interfaces": [{"kind": "INTERFACE_KIND_STDIN"}]}, "interfaces[0].kind"),
    ],
)
def test_a_mistake_is_named_with_its_field(entry: dict[str, Any], field: str) -> None:
    with pytest.raises(PeerdError) as refused:
        declare(entry)
    assert refused.value.reason is Reason.INVALID_ARGUMENT
    assert [violation.field for violation in refused.value.violations] == [field]


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(PeerdError) as refused:
        declare({**PROCESS, "name": "a b", "argv": ["wc"], "read_only_paths": ["x"]})
    assert {violation.field for violation in refused.value.violations} == {"name", "argv[0]", "read_only_paths[0]"}


def test_a_link_into_the_data_directory_is_seen_through(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (tmp_path / "innocent").symlink_to(data_dir)
    proto = from_config({**PROCESS, "read_only_paths": [str(tmp_path / "innocent")]})
    with pytest.raises(PeerdError) as refused:
        check_declaration(proto, data_dir=data_dir)
    assert refused.value.violations[0].field == "read_only_paths[0]"


def test_links_that_lead_in_a_circle_keep_no_daemon_from_starting(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    check_declaration(from_config({**PROCESS, "read_only_paths": [str(tmp_path / "circle")]}), data_dir=tmp_path / "d")


def test_a_container_without_interfaces_takes_all_but_mounts() -> None:
    service = declare({**CONTAINER, "argv": ["--top", "${top}"], "params": [{"name": "top"}]})
    assert service.declaration.container == ContainerImage(image="localhost/count:1")
    assert service.takes(InterfaceKind.STDIN)
    assert not service.takes(InterfaceKind.MOUNT, "bin"), "a job must not replace what the image brings"


def test_a_typing_mistake_in_the_configuration_names_the_service() -> None:
    with pytest.raises(PeerdError) as refused:
        declare({**PROCESS, "argvv": []})
    assert refused.value.reason is Reason.INVALID_CONFIG
    assert "count" in refused.value.message


def test_without_interfaces_a_service_does_all_its_kind_can() -> None:
    process, data = declare(PROCESS), declare(DATA)
    taken = [InterfaceKind.STDIN, InterfaceKind.INPUT, InterfaceKind.MOUNT, InterfaceKind.PACKAGE]
    given = [InterfaceKind.OUTPUT, InterfaceKind.STDOUT, InterfaceKind.STDERR, InterfaceKind.MOUNT]
    assert [kind for kind in InterfaceKind if process.takes(kind, "any/where")] == taken
    assert {kind for kind in InterfaceKind if process.gives(kind, "any/where")} == set(given)
    assert [kind for kind in InterfaceKind if data.takes(kind)] == []
    assert [kind for kind in InterfaceKind if data.gives(kind)] == [InterfaceKind.OUTPUT]
    container = declare(CONTAINER)
    assert [kind for kind in InterfaceKind if container.takes(kind)] == [
        kind for kind in taken if kind is not InterfaceKind.MOUNT
    ]


def test_declared_interfaces_are_all_there_is() -> None:
    mount = {"kind": "INTERFACE_KIND_MOUNT", "path": "app", "mount_function": "MOUNT_FUNCTION_INPUT"}
    service = declare({**PROCESS, "interfaces": [mount, {"kind": "INTERFACE_KIND_STDOUT"}]})
    assert service.takes(InterfaceKind.MOUNT, "app")
    assert not service.takes(InterfaceKind.MOUNT, "other")
    assert not service.gives(InterfaceKind.MOUNT, "app")
    assert service.gives(InterfaceKind.STDOUT)
    assert not service.takes(InterfaceKind.STDIN)


def test_what_becomes_of_the_scans_that_jobs_leave_is_its_owners_word() -> None:
    wish = {"to": PEER, "format": "nmap_xml", "files": ["*.xml", "**/more.xml"], "vantage": "office"}
    assert declare({**PROCESS, "hand_in": wish}).declaration.hand_in == HandIn(
        to=PEER, format="nmap_xml", files=("*.xml", "**/more.xml"), vantage="office"
    )
    assert declare(PROCESS).declaration.hand_in is None
