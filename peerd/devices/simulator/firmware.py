"""What NerdMiner v2 prints from boot on, as (pause in seconds, bytes). Pure.

Lines, their order and their spelling are those of the firmware ("Autorize", "Imposible"); the pauses are those of a
board with a good Wi-Fi.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

Step = tuple[float, bytes]


class Fault(Enum):
    """What is wrong with a simulated device."""

    NONE = "none"
    NO_WIFI = "no-wifi"  # it starts to work and never connects
    STALL = "stall"  # its pool does not answer the subscribe
    REFUSE = "refuse"  # its pool does not take its wallet
    PORTAL = "portal"  # it waits to be set up
    SILENT = "silent"  # it prints nothing
    IDLE = "idle"  # it has no work
    CRASH = "crash"  # it boots again every few seconds
    NOISE = "noise"  # what is on a line at the wrong speed
    GPS = "gps"  # it is a receiver and no miner


@dataclass(frozen=True, kw_only=True)
class Board:
    """One simulated device."""

    pool: str = "public-pool.io"
    port: int = 21496
    password: str = "x"  # noqa: S105 - the firmware's default
    wallet: str = "bc1qxy2kgdygjrsqtzq2n0yrf2493p83kkfjhx0wlh.sim"
    version: str = "V1.8.3"
    ip: str = "192.168.4.23"
    hash_rate_khs: float = 55.0
    leds: bool = True
    """Whether it prints single values, too, as boards with a LED or without a display do."""
    trailing_comma: bool = False
    """As clones print their configuration."""
    software_only: bool = False
    fault: Fault = Fault.NONE


def boot(board: Board) -> Iterator[Step]:
    """Everything up to the first work; ends for a board that mines, never for one with a fault."""
    if board.fault is Fault.SILENT:
        yield from _for_ever(60.0, lambda _: b"")
    if board.fault is Fault.GPS:
        yield from _for_ever(0.2, lambda _: _nmea("GPGGA,092750.000,5321.6802,N,00630.3372,W,1,8,1.03,61.7,M,55.2,M,,"))
    if board.fault is Fault.NOISE:
        yield from _for_ever(0.05, lambda number: bytes((number * 37 + index * 101) % 256 for index in range(256)))
    yield from _start()
    if board.fault is Fault.PORTAL:
        yield 0.2, _lines("SPIFS: No config file available!", "*wm:AutoConnect ", "*wm:No Credentials are Saved")
        yield 0.1, _lines("Entered Configuration Mode", "Config SSID: NerdMinerAP", "Config IP Address: 192.168.4.1")
        yield from _for_ever(60.0, lambda _: b"")
    yield from _configuration(board)
    yield 0.2, _lines("Initiating tasks...", "", "[MONITOR] started")
    yield 0.05, _lines("[WORKER] Started. Running (Stratum) on core 1")
    kind = "minerWorkerSw" if board.software_only else "minerWorkerHw"
    yield 0.05, _lines(f"[MINER] 0 Started {kind} Task!")
    if board.fault is Fault.NO_WIFI:
        yield from _for_ever(1.0, lambda _: _idle(board))
    yield from reconnect(board)


def reconnect(board: Board) -> Iterator[Step]:
    """From the Wi-Fi to the pool's answer."""
    yield 0.4, _lines(f"CONNECTED - Current ip: {board.ip}", "Client not connected, trying to connect...")
    yield 0.2, _lines("Resolved DNS and save ip (first time) got: \x7f\x03?")
    agent = f"NerdMinerV2/{board.version}"
    subscribe = f'{{"id": 1, "method": "mining.subscribe", "params": ["{agent}"]}}'
    yield 0.1, _lines("", "[WORKER] ==> Mining subscribe", f"  Sending  : {subscribe}", "")
    if board.fault is Fault.STALL:
        yield from _for_ever(1.0, lambda _: _idle(board))
    answer = '{"id":1,"error":null,"result":[[["mining.notify","66b1f0a1"]],"66b1f0a1",8]}'
    yield 0.2, _lines(f"  Receiving: {answer}", "    sub_details: mining.notify", "    extranonce1: 66b1f0a1")
    yield 0.01, _lines("    extranonce2_size: 8")
    authorize = f'{{"params": ["{board.wallet}", "{board.password}"], "id": 2, "method": "mining.authorize"}}'
    yield 0.1, _lines("[WORKER] ==> Autorize work", f"  Sending  : {authorize}")
    suggest = '{"id": 3, "method": "mining.suggest_difficulty", "params": [0.00015]}'
    yield 0.05, _lines("[WORKER] ==> Suggest difficulty", f"  Sending  : {suggest}")
    if board.fault is Fault.REFUSE:
        yield 0.2, _lines('  Receiving: {"id":2,"result":null,"error":[24,"Unauthorized worker",null]}')
        yield 0.01, _lines("ERROR: 24 | reason: Unauthorized worker")
        yield from _for_ever(5.0, lambda _: _lines(">>> Completed 0 share(s), 0 Khashes, avg. hashrate 0.00 KH/s"))
    yield 0.2, _lines('  Receiving: {"id":2,"error":null,"result":true}')
    yield 0.05, _lines('  Receiving: {"id":null,"method":"mining.set_difficulty","params":[0.00015]}')
    job = '["64f2","00000000000000000001c2ab","0100000001","ffffffff",[],"20000000","1703098e","6560d2f1",true]'
    yield 0.05, _lines(f'  Receiving: {{"id":null,"method":"mining.notify","params":{job}}}')


def mine(board: Board, seconds: float = 5.0) -> Iterator[Step]:
    """For ever, one status every so many seconds."""
    for number in range(1, 1 << 40):
        if board.fault is Fault.CRASH and number > 2:
            return
        if board.fault is Fault.IDLE:
            yield 1.0, _idle(board, connected=True)
            continue
        elapsed = round(number * seconds)
        khashes = round(board.hash_rate_khs * seconds * number)
        yield seconds, _status(board, shares=number // 4, khashes=khashes, elapsed=elapsed)


def run(board: Board, seconds: float = 5.0) -> Iterator[Step]:
    """One that is switched on, and after a crash boots again."""
    while True:
        yield from boot(board)
        yield from mine(board, seconds)


def _start() -> Iterator[Step]:
    yield 0.05, b"\x00\xff\xf0ESP-ROM:esp32s3-20210327\r\nBuild:Mar 27 2021\r\n"
    yield 0.02, _lines("rst:0x1 (POWERON),boot:0x8 (SPI_FAST_FLASH_BOOT)", "SPIWP:0xee", "mode:DIO, clock div:1")
    yield 0.1, _lines("NerdMiner v2 starting......", "No display driver initialized", "Initializing...")
    yield 0.1, _lines("DEBUG: Attempting to read custom AP name..", "DEBUG: Raw flash data: '\xff\xff\xff\xff'")
    yield 0.1, _lines("SPIFS: Mounting File System...")


def _configuration(board: Board) -> Iterator[Step]:
    end = "," if board.trailing_comma else ""
    rows = [
        f'  "poolString": "{board.pool}",',
        f'  "portNumber": {board.port},',
        f'  "poolPassword": "{board.password}",',
        f'  "btcString": "{board.wallet}",',
        '  "gmtZone": 2,',
        '  "saveStatsToNVS": false,',
        '  "invertColors": false,',
        f'  "Brightness": 250{end}',
    ]
    dump = "{\r\n" + "\r\n".join(rows) + "\r\n}\n"
    yield 0.1, _lines("SPIFS: Mounted", "SPIFS: Loading config file") + dump.encode()
    yield 0.1, _lines("AllDone: ", "*wm:AutoConnect ", "*wm:Connecting to SAVED AP: home")
    if board.fault is Fault.NO_WIFI:
        return
    yield 0.3, _lines("WiFi connected", "IP address: ", board.ip)
    settings = _lines(
        f"PoolString: {board.pool}",
        f"portNumber: {board.port}",
        f"poolPassword: {board.password}",
        f"btcString: {board.wallet}",
        "TimeZone fromUTC: 2",
    )
    yield 0.1, settings + settings


def _status(board: Board, *, shares: int, khashes: int, elapsed: int) -> bytes:
    rate = f"avg. hashrate {board.hash_rate_khs:.2f} KH/s"
    rows = [f">>> Completed {shares} share(s), {khashes} Khashes, {rate}"]
    if board.leds:
        time = f"{elapsed // 86400}  {elapsed // 3600 % 24:02}:{elapsed // 60 % 60:02}:{elapsed % 60:02}"
        rows += [
            ">>> Valid blocks: 0",
            f">>> Block templates: {1 + elapsed // 60}",
            f">>> Best difficulty: {0.0012 * (1 + shares):.4f}",
            f">>> 32Bit shares: {shares}",
            ">>> Temperature: 47",
            f">>> Total MHashes: {khashes // 1000}",
            f">>> Time mining: {time}",
        ]
    return _lines(*rows)


def _idle(board: Board, *, connected: bool = False) -> bytes:
    words = ["true" if connected else "false", "false", "false" if board.fault is Fault.NO_WIFI else "true"]
    client = f"connected>{words[0]} / subscribed>{words[1]} / wificonnected>{words[2]}"
    return _lines(f">>> [i] Miner: newJob>false / inRun>false) - Client: {client}")


def _nmea(body: str) -> bytes:
    total = 0
    for byte in body.encode():
        total ^= byte
    return f"${body}*{total:02X}\r\n".encode()


def _lines(*lines: str) -> bytes:
    return "".join(line + "\r\n" for line in lines).encode("latin-1")


def _for_ever(pause: float, make: Callable[[int], bytes]) -> Iterator[Step]:
    number = 0
    while True:
        number += 1
        yield pause, make(number)
