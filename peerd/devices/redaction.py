"""Redactor: takes passwords out of the lines of a console before anything else sees them. Pure.

The firmware prints the pool password (and, on some boards, that of the Wi-Fi) in its configuration dump, in the
``poolPassword:`` lines after it, and in what it sends to the pool. A secret that runs over the end of its line, because
tasks of the firmware print at once, is followed into the next line.
"""

from __future__ import annotations

import re

HIDDEN = "***"

_STRING = r'"(?:[^"\\]|\\.)*"'
_KEY = r"[A-Za-z_]{0,20}(?:passw(?:or)?d|wifipw|psk|passphrase)[A-Za-z_]{0,20}"
_HINT = re.compile("passw|wifipw|psk|passphrase", re.IGNORECASE)
"""Most lines have none: the others are looked at closely."""
_JSON_SECRET = re.compile(rf'(?P<head>"{_KEY}"\s*:\s*)(?P<value>.*)', re.IGNORECASE)
_JSON_VALUE = re.compile(rf"(?:{_STRING}|[^\s,{{}}\"]+)(?=\s*(?:,|\}}|$))")
_PLAIN_SECRET = re.compile(rf"(?P<head>(?<![\w\"]){_KEY}\s*[:=]\s*)(?P<value>\S.*)", re.IGNORECASE)
_PAIR = re.compile(r'(?P<head>\[\s*"(?:[^"\\]|\\.)*"\s*,\s*")(?P<rest>.*)')
"""A list of two texts: the parameters of mining.authorize are wallet and password."""
_PAIR_END = re.compile(r'"\s*\]\s*(?:,\s*"id"|\}|,|$)')
_MORE_FOLLOWS = re.compile(r'(?:[^"\\]|\\.)*"\s*,\s*')
_RAW_FLASH = re.compile(r"(?P<head>Raw flash data:\s*')(?P<rest>.*)")
_OWN_LINE = re.compile(r"\s*(?:\[(?:WORKER|MINER|MONITOR)\]|>>> |\*wm:|CONNECTED - |Resolved DNS|SPIFS:|AllDone)")
"""Lines of the firmware that are certainly no rest of a secret."""
_WHOLE = re.compile(
    r"\[(?:WORKER|MINER|MONITOR)\] |>>> |\*wm:|CONNECTED - |Resolved DNS|SPIFS: |AllDone|NerdMiner v2|DEBUG: "
    r"|\W{0,8}(?:ESP-ROM:|ets [A-Z]|rst:0x)|PoolString: |portNumber: |poolPassword: |btcString: |\$G[A-Z]{4},"
)
"""Beginnings of lines. What begins otherwise may be the rest of one, and that of a password tells nobody so."""
_FOLLOWED = 3
"""Lines after which an open secret is given up."""


class Redactor:
    """Goes through the lines of one console in their order."""

    def __init__(self, *, torn: bool = False) -> None:
        self._torn = torn
        self._until: re.Pattern[str] | None = None
        self._patience = 0

    def line(self, text: str) -> str:
        """The line as it may be shown."""
        torn, self._torn = self._torn, False
        if torn and not _WHOLE.match(text):
            return HIDDEN
        if self._until is not None:
            text = self._rest(text, self._until)
        if "Raw flash" in text:
            text = self._raw_flash(text)
        if "[" in text:
            text = self._pair(text)
        if not _HINT.search(text):
            return text
        text = self._json(text)
        plain = _PLAIN_SECRET.search(text)
        if plain is not None and not plain["value"].startswith(HIDDEN):
            text = text[: plain.start("value")] + HIDDEN
        return text

    def _rest(self, text: str, until: re.Pattern[str]) -> str:
        """What of a secret that began on an earlier line stands on this one."""
        if _OWN_LINE.match(text):
            self._patience -= 1
            if self._patience <= 0:
                self._until = None
            return text
        end = until.search(text)
        self._patience -= 1
        if end is not None or self._patience <= 0:
            self._until = None
        return HIDDEN if end is None else HIDDEN + text[end.start() :]

    def _open(self, until: re.Pattern[str]) -> None:
        self._until, self._patience = until, _FOLLOWED

    def _raw_flash(self, text: str) -> str:
        found = _RAW_FLASH.search(text)
        if found is None:
            return text
        end = found["rest"].rfind("'")
        if end < 0:
            self._open(_QUOTE_ENDS)
        return found.string[: found.start("rest")] + HIDDEN + (found["rest"][end:] if end >= 0 else "")

    def _json(self, text: str) -> str:
        done = ""
        while (found := _JSON_SECRET.search(text)) is not None:
            done += text[: found.start("value")]
            value = found["value"]
            whole = _JSON_VALUE.match(value)
            if whole is not None:
                done, text = done + f'"{HIDDEN}"', value[whole.end() :]
                continue
            if not value.strip() or value.count('"') == 1:  # the value, or the rest of it, is on the next line
                self._open(_STRING_ENDS)
            return f'{done}"{HIDDEN}"' if value.strip() else done
        return done + text

    def _pair(self, text: str) -> str:
        found = _PAIR.search(text)
        if found is None or (_MORE_FOLLOWS.match(found["rest"]) and "mining.authorize" not in text):
            return text
        rest = found["rest"]
        end = _PAIR_END.search(rest)
        if end is None:
            self._open(_PAIR_END)
            return text[: found.start("rest")] + HIDDEN
        return text[: found.start("rest")] + HIDDEN + rest[end.start() :]


_STRING_ENDS = re.compile(r'"?\s*(?:,\s*$|\}|$)')
_QUOTE_ENDS = re.compile(r"'\s*$")
