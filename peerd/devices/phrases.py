"""What NerdMiner v2 prints, and what other devices do: the words by which lines are told apart. Pure.

They are spelled as the firmware spells them ("Autorize", "Imposible").
"""

from __future__ import annotations

import re

from peerd.devices.dump import Configuration, to_port
from peerd.devices.model import Stage

BOOT = re.compile(r"\bESP-ROM:|\bets [A-Z][a-z]{2} +\d+ 20\d\d|\brst:0x[0-9a-f]+")
BANNER = re.compile(r"NerdMiner v2 starting")
SIGNS = re.compile(
    r"NerdMiner v2 starting|Attempting to read custom AP name|SPIFS: |\*wm:|\[WORKER\] |\[MINER\] \d"
    r"|\[MONITOR\] started|Entered Configuration Mode|Config SSID: |No display driver initialized"
    r"|CONNECTED - Current ip: |NerdMinerV2/V|>>> \[i\] Miner: "
)
STAGES = (
    (re.compile(r"\[WORKER\] Started"), Stage.WORKER_STARTED),
    (re.compile(r"\[MINER\] \d+ Started minerWorker"), Stage.MINER_STARTED),
    (re.compile(r"CONNECTED - Current ip: "), Stage.CONNECTED),
    (re.compile(r"Resolved DNS and save ip \(first time\)"), Stage.DNS_RESOLVED),
    (re.compile(r'\[WORKER\] ==> Mining subscribe|"method"\s*:\s*"mining\.subscribe"'), Stage.SUBSCRIBE),
    (re.compile(r'\[WORKER\] ==> Autorize work|"method"\s*:\s*"mining\.authorize"'), Stage.AUTHORIZE),
)
AUTHORIZE_ID = re.compile(r'"id"\s*:\s*(\d{1,9})\b')
_AGENT = re.compile(r"NerdMinerV2/(V[\w.+-]{1,40})")
UNREACHABLE = re.compile(r"Imposible to connect to ?: ?(?P<pool>\S{1,200})?")
PORTAL = re.compile(r"Entered Configuration Mode|Config SSID: (?P<ssid>\S{1,64})")
ERROR = re.compile(r"ERROR: (?P<code>\d{1,6}) \| reason: (?P<reason>.{0,200})")
_POOL = re.compile(r"PoolString:\s*(\S{1,200})")
_PORT = re.compile(r"portNumber:\s*(\d{1,5})\b")
_WALLET = re.compile(r"btcString:\s*(\S{1,200})")
MAC = re.compile(r"\bMAC(?: address)?\s*[:=]\s*((?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2})\b", re.IGNORECASE)
NMEA = re.compile(r"\$[A-Z]{2}[A-Z]{3},[^*]{0,100}\*[0-9A-F]{2}\s*$")
OTHER = re.compile(r"^\s*(?:AT[+&]|\+C[A-Z]{3}:|ok T:\d|Marlin \d|Grbl \d|U-Boot |login: )")
"""Modems, printers, mills, consoles of other machines."""
_HINTS = (
    *("nerdminer", "esp-rom", "ets ", "rst:0x", "custom ap name", "spifs", "*wm:", "[worker]", "[miner]", "[monitor]"),
    *("connected - ", "resolved dns", "mining.", "receiving:", "imposible", "config", "no display", "error: "),
    *("string:", "portnumber:", "mac", ">>> "),
)
UNAUTHORIZED = 24
"""Stratum's code for a worker that the pool does not take."""


def may_say_something(line: str) -> bool:
    """Whether it is worth a closer look: every line that says anything has one of these words, or begins an object.

    Words are looked for one by one: a pattern of all of them takes twenty times as long, on noise as on status lines.
    """
    small = line.lower()
    return any(word in small for word in _HINTS) or line.lstrip().startswith("{")


def settings_in(line: str) -> Configuration | None:
    """What a line says of settings that are in use, outside of a dump; None if nothing."""
    pool, port, wallet = (first_in(pattern, line) for pattern in (_POOL, _PORT, _WALLET))
    agent = first_in(_AGENT, line)
    if not (pool or port or wallet or agent):
        return None
    return Configuration(pool=pool, port=to_port(port), wallet=wallet, firmware=agent)


def first_in(pattern: re.Pattern[str], text: str) -> str:
    """The first group of a pattern where it occurs first; empty where it does not."""
    found = pattern.search(text)
    return found[1] if found is not None else ""
