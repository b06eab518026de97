"""``peerctl devices``: USB-serial miners."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from peerd.cli.app import Noun
from peerd.cli.output import age, enum_word, local_time, print_fields, print_json, print_json_line, print_table
from peerd.cli.settings import Settings, call, pass_settings

if TYPE_CHECKING:
    from peerd.client import Client
    from peerd.v1 import devices_pb2

_TOP_SECONDS = 2.0


@click.group(cls=Noun, default="list")
def devices() -> None:
    """USB-serial miners; 'peerctl devices' alone lists them."""


@devices.command("list")
@click.option("--miners", "only", is_flag=True, help="Only those with a name.")
@pass_settings
def list_devices(settings: Settings, only: bool) -> None:
    """The miners of all peers, and the other devices of this one."""
    found = [item for item in call(settings, lambda peerd: peerd.devices()) if item.name or not only]
    if settings.as_json:
        print_json({"devices": found})
        return
    rows = [
        (
            item.name or str(item.device_id or "-"),
            item.peer_name,
            item.dev_path or "-",
            _status(item),
            item.state,
            _rate(item),
            item.health_reason,
            _why(item),
        )
        for item in found
    ]
    print_table(("DEVICE", "PEER", "PATH", "STATUS", "STATE", "KH/S", "HEALTH", "WHY"), rows, empty="no devices")


@devices.command("show")
@click.argument("device")
@click.option(
    "--events", "count", type=click.IntRange(min=0), default=10, help="How many of the newest; 10 by default."
)
@pass_settings
def show_device(settings: Settings, device: str, count: int) -> None:
    """One device or miner, wherever it is; DEVICE is an id, a path or a name."""

    async def fetch(peerd: Client) -> tuple[devices_pb2.Device, Sequence[devices_pb2.DeviceEvent]]:
        found = await peerd.device(device)
        wanted = count and not _elsewhere(found)
        return found, await peerd.device_history(device, limit=count) if wanted else ()

    found, events = call(settings, fetch)
    if settings.as_json:
        print_json({"device": found, "events": list(events)})
        return
    reading = found.reading
    fields = {
        "device": found.name or f"device {found.device_id}, not onboarded",
        "peer": found.peer_name,
        "plugged in": f"{found.dev_path} at {found.port_path}" if found.dev_path else "",
        "usb": f"{found.vendor_id}:{found.product_id} {found.product} {found.serial_number}".strip(),
        "mac": found.mac_address,
        "status": _status(found),
        "state": found.state,
        "since": local_time(found.since) if found.HasField("since") else "",
        "health": found.health_reason,
        "why": found.reason,
        "to do": found.next_action,
        "hash rate": f"{reading.hash_rate_khs:.2f} KH/s" if reading.HasField("hash_rate_khs") else "",
        "shares": str(reading.shares) if reading.HasField("shares") else "",
        "best difficulty": f"{reading.best_difficulty:g}" if reading.HasField("best_difficulty") else "",
        "temperature": f"{reading.temperature_celsius:g} C" if reading.HasField("temperature_celsius") else "",
        "currency": found.currency,
        "pool": found.pool_url,
        "wallet": found.wallet_address,
        "firmware": found.firmware_version,
        "chipset": found.chipset,
        "notes": found.location_notes,
    }
    print_fields({name: value for name, value in fields.items() if value})
    if events:
        click.echo()
        print_table(
            ("AT", "EVENT", "DETAIL"), [(local_time(each.at), each.event, each.detail) for each in events], empty=""
        )


@devices.command("onboard")
@click.argument("device")
@click.option("--name", default="", help="Unique in the mesh, such as MINER_010.")
@click.option("--currency", default="", help="What it mines, such as BTC.")
@click.option("--chipset", default="", help="Such as ESP32-S3.")
@click.option("--notes", default="", help="Where it stands.")
@click.option("--known", default="", metavar="NAME", help="Instead: it is this miner, which could not be recognised.")
@pass_settings
def onboard(settings: Settings, device: str, name: str, currency: str, chipset: str, notes: str, known: str) -> None:
    """Give a device a name; if it mines, it is Active within seconds. DEVICE is its id or path."""
    if known and (name or currency):
        raise click.UsageError("give either --known, or --name and --currency")
    if not known and not (name and currency):
        raise click.UsageError("--name and --currency are required, or --known for a miner that has a name")
    found = call(
        settings,
        lambda peerd: peerd.onboard_device(
            device, name=name, currency=currency, chipset=chipset, location_notes=notes, known=known
        ),
    )
    _say(settings, found, f"device {device} is {found.name}")


@devices.command("ignore")
@click.argument("device")
@click.option("--undo", is_flag=True, help="Look at it again.")
@pass_settings
def ignore(settings: Settings, device: str, undo: bool) -> None:
    """Never open it, also after a replug or a restart."""
    found = call(settings, lambda peerd: peerd.ignore_device(device, undo=undo))
    _say(settings, found, f"device {device} is {'looked at again' if undo else 'ignored'}")


@devices.command("forget")
@click.argument("device")
@pass_settings
def forget(settings: Settings, device: str) -> None:
    """Take its name from a miner, with its history; or forget a device. What is plugged in is found anew."""
    call(settings, lambda peerd: peerd.forget_device(device))
    if settings.as_json:
        print_json({})
    else:
        click.echo(f"{device} is forgotten")


@devices.command("rename")
@click.argument("miner")
@click.argument("name")
@pass_settings
def rename(settings: Settings, miner: str, name: str) -> None:
    """Another name; its history stays."""
    found = call(settings, lambda peerd: peerd.update_miner(miner, name=name))
    _say(settings, found, f"{miner} is {found.name} now")


@devices.command("set")
@click.argument("miner")
@click.option("--currency", help="What it mines.")
@click.option("--chipset", help="Such as ESP32-S3.")
@click.option("--notes", help="Where it stands.")
@click.option("--accept-pool", is_flag=True, help="The pool and wallet that it has now are the right ones.")
@pass_settings
def set_miner(
    settings: Settings, miner: str, currency: str | None, chipset: str | None, notes: str | None, accept_pool: bool
) -> None:
    """Change what you said of a miner."""
    found = call(
        settings,
        lambda peerd: peerd.update_miner(
            miner, currency=currency, chipset=chipset, location_notes=notes, accept_pool=accept_pool
        ),
    )
    _say(settings, found, f"{found.name} is changed")


@devices.command("reset")
@click.argument("device")
@pass_settings
def reset(settings: Settings, device: str) -> None:
    """Let it boot anew, where its board can be told so, and look at it from the start."""
    found = call(settings, lambda peerd: peerd.reset_device(device))
    _say(settings, found, f"{device} is reset")


@devices.command("tail")
@click.argument("device")
@click.option("-f", "--follow", is_flag=True, help="Go on until it is unplugged.")
@pass_settings
def tail(settings: Settings, device: str, follow: bool) -> None:
    """The last lines of its console, from whichever peer holds it; passwords are left out."""

    async def read(peerd: Client) -> list[str]:
        lines: list[str] = []
        async for line in peerd.tail_device(device, follow=follow):
            if not settings.as_json:
                click.echo(line)
            elif follow:
                print_json_line({"line": line})
            else:
                lines.append(line)
        return lines

    lines = call(settings, read)
    if settings.as_json and not follow:
        print_json({"lines": lines})


@devices.command("readings")
@click.argument("miner")
@click.option("--hours", is_flag=True, help="By the hour, which are kept longer; by the minute by default.")
@click.option("--limit", type=click.IntRange(min=1), default=60, help="At most so many; 60 by default.")
@pass_settings
def readings(settings: Settings, miner: str, hours: bool, limit: int) -> None:
    """How a miner mined, newest first."""
    found = call(settings, lambda peerd: peerd.device_readings(miner, resolution=3600 if hours else 60, limit=limit))
    if settings.as_json:
        print_json({"readings": found})
        return
    rows = [
        (
            local_time(each.at),
            f"{each.hash_rate_khs:.2f}",
            f"{each.hash_rate_min_khs:.2f}",
            f"{each.hash_rate_max_khs:.2f}",
            str(each.shares),
            f"{each.temperature_celsius:g}" if each.HasField("temperature_celsius") else "",
        )
        for each in found
    ]
    print_table(("AT", "KH/S", "LEAST", "MOST", "SHARES", "CELSIUS"), rows, empty="no readings")


@devices.command("top")
@click.option("--once", is_flag=True, help="Print it once, and end.")
@pass_settings
def top(settings: Settings, once: bool) -> None:
    """What all miners do now, peer by peer; every two seconds until it is interrupted."""

    async def show(peerd: Client) -> None:
        while True:
            totals, found = await peerd.flock(), await peerd.devices()
            miners = [item for item in found if item.name]
            if settings.as_json:
                print_json({"flock": totals, "miners": miners})
            else:
                if not once:
                    click.clear()
                _print_top(totals, miners)
            if once or settings.as_json:
                return
            await asyncio.sleep(_TOP_SECONDS)

    call(settings, show)


def _print_top(totals: devices_pb2.GetFlockResponse, miners: Sequence[devices_pb2.Device]) -> None:
    everything = totals.totals
    click.echo(
        f"{everything.miners} miners, {everything.active} active, {everything.healthy} well, "
        f"{everything.hash_rate_khs:.1f} KH/s, {everything.shares} shares, best {everything.best_difficulty:g}"
    )
    by_peer = [
        (each.peer_name, str(each.miners), str(each.active), str(each.healthy), f"{each.hash_rate_khs:.1f}")
        for each in totals.peers
    ]
    print_table(("PEER", "MINERS", "ACTIVE", "WELL", "KH/S"), by_peer, empty="no miners")
    click.echo()
    rows = [
        (
            item.name,
            item.peer_name,
            _status(item),
            item.state,
            _rate(item),
            str(item.reading.shares) if item.HasField("reading") else "",
            item.health_reason,
            age(item.since) if item.HasField("since") else "",
        )
        for item in sorted(miners, key=lambda item: -item.reading.hash_rate_khs)
    ]
    print_table(("MINER", "PEER", "STATUS", "STATE", "KH/S", "SHARES", "HEALTH", "SINCE"), rows, empty="no miners")


def _say(settings: Settings, device: devices_pb2.Device, line: str) -> None:
    if settings.as_json:
        print_json(device)
    else:
        click.echo(line)


def _status(device: devices_pb2.Device) -> str:
    from peerd.v1 import devices_pb2

    return "ignored" if device.ignored else enum_word(devices_pb2.DeviceStatus, device.status)


def _elsewhere(device: devices_pb2.Device) -> bool:
    """What another peer says of a miner has no wallet and no time of discovery."""
    return not device.HasField("discovered_at")


def _rate(device: devices_pb2.Device) -> str:
    return f"{device.reading.hash_rate_khs:.2f}" if device.reading.HasField("hash_rate_khs") else ""


def _why(device: devices_pb2.Device) -> str:
    return "; ".join(text for text in (device.reason, device.next_action) if text)
