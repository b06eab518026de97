"""Both versions of control groups on a tree of files that looks like the kernel's."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peerd.jobs.runner import bounds
from peerd.jobs.runner.limits import v1, v2
from peerd.jobs.runner.limits.base import Group, make, own_paths, quota_us
from peerd.jobs.runner.spec import Limits

WANTED = Limits(memory_bytes=64 << 20, cpus=0.5, pids=20)
FILES = {
    "v2": ("cgroup.procs", "cgroup.controllers", "cgroup.subtree_control", "memory.max", "memory.swap.max", "cpu.max",
           "memory.oom.group", "memory.events", "pids.max", "pids.events", "cgroup.kill"),
    "memory": ("cgroup.procs", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.oom_control"),
    "pids": ("cgroup.procs", "pids.max", "pids.events"),
    "cpu": ("cgroup.procs", "cpu.cfs_period_us", "cpu.cfs_quota_us"),
}  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Makes groups; a folder that is made below one has its files, and is removed with them, as by the kernel."""
    mount = tmp_path / "cgroup"
    real_mkdir, real_rmdir = Path.mkdir, os.rmdir

    def fill(folder: Path, kind: str) -> Path:
        for name in FILES[kind]:
            (folder / name).touch()
        if kind == "v2":
            (folder / "cgroup.controllers").write_text("cpu io memory pids\n")
        return folder

    def mkdir(self: Path, *args: object, **kwargs: object) -> None:
        real_mkdir(self, *args, **kwargs)  # type: ignore[arg-type]
        if mount in self.parents:
            kind = self.relative_to(mount).parts[0]
            fill(self, kind if kind in FILES else "v2")

    def rmdir(path: str) -> None:
        folder = Path(path)
        if mount in folder.parents and folder.is_dir() and not any(entry.is_dir() for entry in folder.iterdir()):
            for entry in folder.iterdir():
                entry.unlink()
        real_rmdir(path)

    def make(kind: str, path: str) -> Path:
        folder = mount / path
        real_mkdir(folder, parents=True, exist_ok=True)
        return fill(folder, kind)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    monkeypatch.setattr(os, "rmdir", rmdir)
    return make


def read(path: Path) -> str:
    return path.read_text().strip()


def removed(group: Group) -> bool:
    return bounds.remove({name: getattr(group, name) for name in Group.__dataclass_fields__})


def test_version_two_below_a_delegated_group(tree: Callable[[str, str], Path]) -> None:
    mount = tree("v2", ".")
    unit = tree("v2", "system.slice/peerd.service")
    tree("v2", "system.slice/peerd.service/peerd-main")
    found = v2.VersionTwo.find("0::/system.slice/peerd.service/peerd-main\n", mount)
    assert found is not None and found.limits_cpus
    group = found.create("owner/7-x", WANTED)
    place = unit / "peerd" / "owner" / "7-x"
    assert read(place / "memory.max") == str(64 << 20)
    assert read(place / "memory.swap.max") == "0"
    assert read(place / "memory.oom.group") == "1"
    assert read(place / "pids.max") == "20"
    assert read(place / "cpu.max") == "50000 100000"
    for folder in (unit, unit / "peerd", unit / "peerd" / "owner"):
        assert read(folder / "cgroup.subtree_control").startswith("+cpu"), folder
    assert read(mount / "cgroup.subtree_control") == "", "nothing outside our own is touched"
    assert group.leave == (str(unit / "peerd-main" / "cgroup.procs"),)
    assert found.names("owner") == ["owner/7-x"] and found.names("other") == []
    assert removed(group)
    assert not (unit / "peerd").exists() and (unit / "peerd-main").exists()


def test_version_two_at_the_root_and_not_without_its_controllers(tree: Callable[[str, str], Path]) -> None:
    mount = tree("v2", ".")
    found = v2.VersionTwo.find("0::/user.slice/shell\n", mount)
    assert found is not None
    assert found.describe("o/1").folders == (str(mount / "peerd" / "o" / "1"),)
    (mount / "cgroup.controllers").write_text("cpu hugetlb\n")
    assert v2.VersionTwo.find("0::/\n", mount) is None
    assert v2.VersionTwo.find("4:memory:/\n", mount) is None, "no version 2 at all"


def test_version_one_in_three_trees(tree: Callable[[str, str], Path]) -> None:
    mount = tree("memory", "memory").parent
    tree("pids", "pids")
    tree("cpu", "cpu")
    own = tree("memory", "memory/system.slice/x")
    found = v1.VersionOne.find("8:pids:/system.slice/x\n4:memory:/system.slice/x\n1:cpu,cpuacct:/../x\n", mount)
    assert found is not None and not found.limits_cpus, "a path that leads out is not believed"
    found = v1.VersionOne.find("8:pids:/system.slice/x\n4:memory:/system.slice/x\n1:cpu,cpuacct:/\n", mount)
    assert found is not None and found.limits_cpus
    group = found.create("owner/7-x", WANTED)
    assert read(own / "peerd/owner/7-x/memory.limit_in_bytes") == str(64 << 20)
    assert read(own / "peerd/owner/7-x/memory.memsw.limit_in_bytes") == str(64 << 20)
    assert read(mount / "pids/peerd/owner/7-x/pids.max") == "20", "its own group is not there: the root is it"
    assert read(mount / "cpu/peerd/owner/7-x/cpu.cfs_quota_us") == "50000"
    assert found.names("owner") == ["owner/7-x"]
    assert removed(group) and not (own / "peerd").exists() and not (mount / "cpu" / "peerd").exists()
    assert v1.VersionOne.find("4:memory:/\n", mount) is None


def test_a_limit_that_cannot_be_set_leaves_no_group(
    tree: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = tree("v2", ".")
    found = v2.VersionTwo.find("0::/\n", mount)
    assert found is not None
    real = bounds.write

    def write(path: str, text: str) -> None:
        if path.endswith("pids.max"):
            raise OSError(22, "Invalid argument")
        real(path, text)

    monkeypatch.setattr(bounds, "write", write)
    with pytest.raises(OSError, match="Invalid"):
        found.create("owner/7-x", WANTED)
    assert found.names("owner") == []


def test_parts() -> None:
    assert quota_us(1.5) == 150_000 and quota_us(0.001) == 1000
    assert set(own_paths("0::/\n5:cpu,cpuacct:/x\nnonsense\n")) == {"", "cpu", "cpuacct"}
    assert bounds.size(64 << 20) == "64M" and bounds.size(1000) == "1000 bytes" and bounds.size(3 << 30) == "3G"


def test_counters(tmp_path: Path) -> None:
    file = tmp_path / "memory.events"
    file.write_text("low 0\noom 3\noom_kill 2\noom_group_kill 1\n")
    assert bounds.counter((str(file), "oom_kill")) == 2
    assert bounds.counter((str(file), "max")) == bounds.counter((str(tmp_path / "none"), "max")) == 0


def test_a_limit_above_the_hard_one_of_this_machine_is_that_one(tmp_path: Path) -> None:
    program = """
        import resource
        from peerd.jobs.runner.bounds import Bounds
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 5 << 20))
        held = Bounds({"rlimits": {"RLIMIT_FSIZE": 10 << 20}}, set)
        held.enter()
        print(resource.getrlimit(resource.RLIMIT_FSIZE))
        held.leave(0)
        print(resource.getrlimit(resource.RLIMIT_FSIZE))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.split("\n")[:2] == [f"({5 << 20}, {5 << 20})", f"({1 << 20}, {5 << 20})"]


def test_a_group_above_that_goes_away_while_it_is_looked_at_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    above = tmp_path / "peerd" / "owner"
    above.mkdir(parents=True)
    real, seen = Path.mkdir, list[Path]()

    def removed_meanwhile(self: Path, *args: Any, **options: Any) -> None:
        if not seen:
            seen.append(self)
            above.rmdir()
            raise FileExistsError(17, "File exists", str(above))  # as mkdir says it of a parent that was there
        real(self, *args, **options)

    monkeypatch.setattr(Path, "mkdir", removed_meanwhile)
    make(above / "7")
    assert (above / "7").is_dir()
    with pytest.raises(FileExistsError):
        make(above / "7")
