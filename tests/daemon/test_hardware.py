"""What a machine has and how it is, from trees like those of the kernel, and from this very machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from peerd.clock import FakeClock
from peerd.daemon.hardware import Roots, detect_hardware
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


def test_load_is_measured_between_two_looks(roots: Roots, tmp_path: Path) -> None:
    clock = FakeClock()
    work = Work(running_jobs=2, queued_jobs=3, active_transfers=1, calls=0)
    meter = LoadMeter(clock, tmp_path, work=lambda: work, local_health=lambda: 4, roots=roots)
    write(roots.proc / "stat", "cpu  250 0 100 750 100 0 0 0 0 0\n")
    clock.advance(2)
    work = Work(running_jobs=5, queued_jobs=0, active_transfers=0, calls=100)
    sample = meter.sample()
    assert sample.cpu_percent == 75.0
    assert sample.requests_per_second == 50.0
    assert (sample.memory_available_bytes, sample.memory_total_bytes) == (8 * GIB, 16 * GIB)
    assert 0 < sample.disk_free_bytes <= sample.disk_total_bytes
    assert (sample.running_jobs, sample.queued_jobs, sample.local_health) == (5, 0, 4)
    work = Work(running_jobs=6, queued_jobs=1, active_transfers=0, calls=1000)
    again = meter.sample()
    assert (again.running_jobs, again.cpu_percent) == (6, 75.0), (
        "jobs are counted at once, the kernel is not asked again"
    )
