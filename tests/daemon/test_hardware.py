"""What a machine has and how it is, from trees like those of the kernel, and from this very machine."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from peerd.clock import FakeClock
from peerd.daemon import hardware as hardware_module
from peerd.daemon.cgroup import Roots
from peerd.daemon.hardware import detect_hardware
from peerd.daemon.load import LoadMeter, Work
from peerd.registry.adverts import check_advert
from peerd.v1.registry_pb2 import Advert

GIB = 1024**3


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    made = Roots(proc=tmp_path / "proc", sys=tmp_path / "sys")
    write(made.proc / "cpuinfo", "processor\t: 0\nmodel name\t: Some\tCPU \x07 @ 2.00GHz\n")
    write(made.proc / "meminfo", "MemTotal:       16777216 kB\nMemFree: 5 kB\nMemAvailable:    8388608 kB\n")
    write(made.proc / "stat", "cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 2 3\n")
    write(
        made.proc / "self" / "mounts", "proc /proc proc rw 0 0\n/dev/sda1 / ext4 rw 0 0\n/dev/sda1 /again ext4 rw 0 0\n"
    )
    return made


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


async def test_the_kernels_files_are_read(roots: Roots) -> None:
    hardware = await detect_hardware(roots)
    assert hardware.cpu_model == "Some CPU @ 2.00GHz"
    assert hardware.memory_bytes == 16 * GIB
    assert [disk.path for disk in hardware.disks] == ["/"], "each device once, and no file systems of the kernel"
    assert hardware.cpu_cores > 0
    assert "process" in [runner.name for runner in hardware.runners]


async def test_the_limit_of_the_control_group_counts(roots: Roots) -> None:
    write(roots.sys / "fs" / "cgroup" / "memory.max", f"{2 * GIB}\n")
    assert (await detect_hardware(roots)).memory_bytes == 2 * GIB
    write(roots.sys / "fs" / "cgroup" / "memory.max", "max\n")
    write(roots.sys / "fs" / "cgroup" / "memory" / "memory.limit_in_bytes", "9223372036854771712\n")
    assert (await detect_hardware(roots)).memory_bytes == 16 * GIB


@pytest.mark.parametrize(
    ("listing", "files", "total", "left"),
    [
        (  # a service of systemd, whose slice has less than the service itself
            "0::/system.slice/peerd.service\n",
            {
                "system.slice/peerd.service/memory.max": 4 * GIB,
                "system.slice/peerd.service/memory.current": GIB,
                "system.slice/memory.max": 3 * GIB,
                "system.slice/memory.current": 2 * GIB,
                "system.slice/memory.stat": f"anon 5\ninactive_file {GIB // 2}",
            },
            3 * GIB,
            3 * GIB // 2,
        ),
        (  # an own name space: its root is the container's group
            "0::/\n",
            {"memory.max": 2 * GIB, "memory.current": 5 * GIB},
            2 * GIB,
            0,
        ),
        (  # version 1, seen from inside of a container under a path of the host
            "4:memory:/docker/abc\n1:cpu:/\n",
            {"memory/memory.limit_in_bytes": GIB, "memory/memory.usage_in_bytes": GIB // 4},
            GIB,
            3 * GIB // 4,
        ),
        ("0::/../outside\n", {}, 16 * GIB, 8 * GIB),
    ],
    ids=["service", "container", "version 1", "outside"],
)
async def test_every_group_above_counts_and_what_is_used_there(
    roots: Roots, tmp_path: Path, listing: str, files: dict[str, object], total: int, left: int
) -> None:
    write(roots.proc / "self" / "cgroup", listing)
    for name, content in files.items():
        write(roots.sys / "fs" / "cgroup" / name, f"{content}\n")
    assert (await detect_hardware(roots)).memory_bytes == total
    sample = meter(FakeClock(), tmp_path, roots).sample()
    assert (sample.memory_total_bytes, sample.memory_available_bytes) == (total, left)


@pytest.mark.parametrize(
    ("name", "text"),
    [("cpu.max", "50000 100000"), ("cpu.max", "100000 100000"), ("cpu,cpuacct/cpu.cfs_quota_us", "20000")],
)
async def test_cores_are_those_that_the_group_is_given_time_for(roots: Roots, name: str, text: str) -> None:
    group = roots.sys / "fs" / "cgroup"
    write(group / "cpu.max", "max 100000\n")
    write(group / "cpu,cpuacct" / "cpu.cfs_period_us", "100000\n")
    write(group / "cpu,cpuacct" / "cpu.cfs_quota_us", "-1\n")
    assert (await detect_hardware(roots)).cpu_cores == len(os.sched_getaffinity(0))
    write(group / name, f"{text}\n")
    assert (await detect_hardware(roots)).cpu_cores == 1


async def test_disks_are_counted_once_whatever_is_mounted_on_them(roots: Roots, tmp_path: Path) -> None:
    spaced = tmp_path / "two words"
    spaced.mkdir()
    lines = [
        "/dev/sda1 / ext4 rw 0 0",
        f"/dev/sdb1 {str(spaced).replace(' ', chr(92) + '040')} xfs rw 0 0",
        f"/dev/sdb1 {tmp_path} xfs rw 0 0",
        f"overlay {tmp_path} overlay rw 0 0",
        f"tank/a {tmp_path} zfs rw 0 0",
        f"tank/b {tmp_path} zfs rw 0 0",
        f"host:/export {tmp_path} nfs4 rw 0 0",
        "/dev/sdc1 /not/there ext4 rw 0 0",
        "broken",
    ]
    write(roots.proc / "self" / "mounts", "\n".join(lines))
    found = (await detect_hardware(roots)).disks
    assert [(disk.path, disk.filesystem) for disk in found] == [
        ("/", "ext4"),
        (str(spaced), "xfs"),
        (str(tmp_path), "zfs"),
    ]
    assert all(disk.total_bytes > 0 for disk in found)
    write(roots.proc / "self" / "mounts", "overlay / overlay rw 0 0\n")
    assert [disk.filesystem for disk in (await detect_hardware(roots)).disks] == ["overlay"], "in a container"


async def test_a_machine_with_a_thousand_disks_still_fits_an_advert(roots: Roots, tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 200)
    folder.mkdir()
    write(roots.proc / "self" / "mounts", "".join(f"/dev/sd{n} {folder} ext4 rw 0 0\n" for n in range(1000)))
    hardware = await detect_hardware(roots)
    assert 10 < len(hardware.disks) < 1000
    assert hardware.ByteSize() <= 16 * 1024
    assert hardware.cpu_model and hardware.runners


def program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


async def test_programs_say_what_they_are_and_broken_ones_are_left_out(
    roots: Roots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bin"
    program(folder, "bwrap", "echo bubblewrap 0.9.1")
    program(folder, "podman", "echo podman version 5.2.0; exit 3")
    program(folder, "nvidia-smi", "echo 'NVIDIA RTX A4000, 16376'; echo 'NVIDIA GB10, [N/A]'")
    program(folder, "docker", "")
    (folder / "docker").write_bytes(b"\x7fELF of another machine")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(hardware_module, "_COMMAND_SECONDS", 60.0)
    hardware = await detect_hardware(roots)
    assert [(runner.name, runner.version) for runner in hardware.runners] == [("process", ""), ("bubblewrap", "0.9.1")]
    assert [(gpu.model, gpu.memory_bytes >> 20) for gpu in hardware.gpus] == [
        ("NVIDIA RTX A4000", 16376),
        ("NVIDIA GB10", 0),
    ]


async def test_a_program_that_hangs_is_killed_with_all_it_started(
    roots: Roots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bin"
    # The child holds the pipe: killing the shell alone would leave the reader waiting.
    program(folder, "nvidia-smi", f"sleep 600 & echo $! > {tmp_path}/child; wait")
    (folder / "sleep").symlink_to("/bin/sleep")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(hardware_module, "_END_SECONDS", 30.0)
    told = tmp_path / "child"
    for seconds in (1.0, 5.0, 30.0):  # on a busy machine it has not come to its child yet when it is killed
        monkeypatch.setattr(hardware_module, "_COMMAND_SECONDS", seconds)
        async with asyncio.timeout(seconds + 40):
            hardware = await detect_hardware(roots)
        assert list(hardware.gpus) == []
        if told.exists() and told.read_text().strip():
            break
    child = Path("/proc") / told.read_text().strip() / "stat"
    async with asyncio.timeout(30):
        while lives(child):
            await asyncio.sleep(0.02)


def lives(stat: Path) -> bool:
    """Whether that process is there, and no zombie."""
    try:
        return stat.read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_gpus_and_serial_ports_are_found_where_the_kernel_lists_them(roots: Roots) -> None:
    card = roots.sys / "class" / "drm" / "card0"
    write(card / "device" / "vendor", "0x1002\n")
    write(card / "device" / "product_name", "Radeon Pro\n")
    write(card / "device" / "mem_info_vram_total", f"{8 * GIB}\n")
    write(roots.sys / "class" / "drm" / "card0-HDMI-A-1" / "device" / "vendor", "0x1002\n")
    usb = roots.sys / "devices" / "usb1" / "1-1"
    write(usb / "idVendor", "10c4\n")
    write(usb / "idProduct", "ea60\n")
    write(usb / "serial", "0001\n")
    interface = usb / "1-1:1.0" / "ttyUSB0"
    interface.mkdir(parents=True)
    port = roots.sys / "class" / "tty" / "ttyUSB0"
    port.mkdir(parents=True)
    (port / "device").symlink_to(interface)
    ghost = roots.sys / "class" / "tty" / "ttyS3"
    write(ghost / "type", "0\n")
    (ghost / "device").symlink_to(roots.sys)
    (roots.sys / "class" / "tty" / "tty1").mkdir()
    hardware = await detect_hardware(roots)
    assert [(gpu.vendor, gpu.model, gpu.memory_bytes) for gpu in hardware.gpus] == [("amd", "Radeon Pro", 8 * GIB)]
    (found,) = hardware.serial_ports
    assert (found.path, found.vendor_id, found.product_id, found.serial_number) == (
        "/dev/ttyUSB0",
        "10c4",
        "ea60",
        "0001",
    )


async def test_a_machine_that_says_nothing_is_no_error(tmp_path: Path) -> None:
    hardware = await detect_hardware(Roots(proc=tmp_path, sys=tmp_path))
    assert (hardware.cpu_model, hardware.memory_bytes, list(hardware.disks)) == ("", 0, [])


async def test_what_is_found_here_fits_an_advert() -> None:
    hardware = await detect_hardware()
    assert hardware.memory_bytes > 0 and hardware.disks
    check_advert(Advert(name="x", version=1, hardware=hardware))


def meter(clock: FakeClock, data_dir: Path, roots: Roots) -> LoadMeter:
    idle = Work(running_jobs=0, queued_jobs=0, active_transfers=0, calls=0)
    return LoadMeter(clock, data_dir, work=lambda: idle, local_health=lambda: 0, roots=roots)


def test_load_is_measured_between_two_looks(roots: Roots, tmp_path: Path) -> None:
    clock = FakeClock()
    work = Work(running_jobs=2, queued_jobs=3, active_transfers=1, calls=0)
    measuring = LoadMeter(clock, tmp_path, work=lambda: work, local_health=lambda: 4, roots=roots)
    write(roots.proc / "stat", "cpu  250 0 100 750 100 0 0 0 0 0\n")
    clock.advance(2)
    work = Work(running_jobs=5, queued_jobs=0, active_transfers=0, calls=100)
    sample = measuring.sample()
    assert sample.cpu_percent == 75.0
    assert sample.requests_per_second == 50.0
    assert (sample.memory_available_bytes, sample.memory_total_bytes) == (8 * GIB, 16 * GIB)
    assert 0 < sample.disk_free_bytes <= sample.disk_total_bytes
    assert (sample.running_jobs, sample.queued_jobs, sample.local_health) == (5, 0, 4)
    work = Work(running_jobs=6, queued_jobs=1, active_transfers=0, calls=1000)
    again = measuring.sample()
    assert (again.running_jobs, again.cpu_percent) == (6, 75.0), (
        "jobs are counted at once, the kernel is not asked again"
    )
