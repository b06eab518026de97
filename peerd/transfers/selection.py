"""Which files of an output an edge takes, and what they are called at the other end. Pure.

``path`` narrows an output to one directory or file of it; ``files`` are patterns below that, as pathlib has them:
``*``, ``?`` and ``[...]`` stay within one component, ``**`` stands for any number of directories. Case counts, and
names that start with a dot are names like others. ``rename`` applies to what was chosen: the first rule that fits.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache

from peerd.errors import PeerdError, Reason
from peerd.transfers.paths import parse_relative_path

MAX_PATTERNS = 100
"""Of one edge; and so many renames."""
MAX_PATTERN = 1024
_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Rename:
    """What is called ``origin`` becomes ``to``; each may hold one ``*``. Without an origin: the only file."""

    origin: str = ""
    to: str

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        return re.compile("([^/]*)".join(re.escape(part) for part in self.origin.split("*")), re.DOTALL)

    def apply(self, path: str) -> str | None:
        """The new path, or None when the rule is not about this one."""
        if not self.origin:
            return self.to
        found = self._regex.fullmatch(path)
        if found is None:
            return None
        return self.to.replace("*", found[1]) if found.groups() else self.to


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What an edge takes of an output; the default is all of it, also when that is nothing."""

    path: str = ""
    files: tuple[str, ...] = ()
    rename: tuple[Rename, ...] = ()
    optional: bool = False

    @property
    def everything(self) -> bool:
        """Whether nothing was said, so that files go as they are."""
        return not (self.path or self.files or self.rename)

    def relative(self, path: str) -> str | None:
        """A path of the output as patterns and renames see it; None when it is not below ``self.path``."""
        if not self.path:
            return path
        if path == self.path:
            return path.rpartition("/")[2]
        return path[len(self.path) + 1 :] if path.startswith(f"{self.path}/") else None

    def takes(self, path: str) -> bool:
        """Whether the file at that path of the output is chosen."""
        relative = self.relative(path)
        if relative is None:
            return False
        return not self.files or any(matches(pattern, relative) for pattern in self.files)

    def enters(self, components: Sequence[str]) -> bool:
        """Whether a file below that directory of the output may be chosen."""
        own = self.path.split("/") if self.path else []
        shared = min(len(own), len(components))
        if list(components[:shared]) != own[:shared]:
            return False
        inner = tuple(components[len(own) :])
        return not self.files or any(_leads_on(pattern, inner) for pattern in self.files)

    def named(self, paths: Iterable[str]) -> list[tuple[str, str]]:
        """(path here, path at the other end) of chosen files, sorted by the latter. Raises COLLIDING_NAMES."""
        found: dict[str, tuple[str, str]] = {}
        for path in sorted(paths):
            name = self._renamed(self.relative(path) or path)
            other = found.setdefault(name.casefold(), (path, name))
            if other[0] != path:
                raise _collision(other, (path, name))
        for path, name in list(found.values()):
            folder = name.casefold().rpartition("/")[0]
            while folder:
                if folder in found:
                    raise _collision(found[folder], (path, name))
                folder = folder.rpartition("/")[0]
        return sorted(found.values(), key=lambda pair: pair[1].encode("utf-8", "surrogateescape"))

    def nothing_found(self, there: Sequence[str], *, more: bool) -> PeerdError:
        """The refusal for a selection that takes none of what is there."""
        what = f"no file matches {', '.join(map(repr, self.files))}" if self.files else "there is no file"
        what += f" below {self.path!r}" if self.path else ""
        listed = ", ".join(repr(path[:100]) for path in there[:_NAMED])
        if not there:
            seen = "the output is empty"
        elif more or len(there) > _NAMED:
            seen = f"there are {'more than ' if more else ''}{len(there)} files: {listed}, ..."
        else:
            seen = f"there is {listed}" if len(there) == 1 else f"there are {listed}"
        return PeerdError(Reason.NO_FILES_MATCH, f"{what}; {seen}")

    def encode(self) -> str:
        """As the store keeps it; "" for everything."""
        return "" if self == EVERYTHING else json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def decode(cls, text: str) -> Selection:
        """What :meth:`encode` wrote."""
        if not text:
            return EVERYTHING
        body = json.loads(text)
        rename = tuple(Rename(**rule) for rule in body["rename"])
        return cls(path=body["path"], files=tuple(body["files"]), rename=rename, optional=body["optional"])

    def _renamed(self, path: str) -> str:
        return next((to for rule in self.rename if (to := rule.apply(path)) is not None), path)


EVERYTHING = Selection()


def matches(pattern: str, path: str) -> bool:
    """Whether a relative path fits a sound pattern, both with "/" between components."""
    parts = _parts(pattern)
    return len(parts) in _reached(parts, path.split("/"))


def pattern_flaw(pattern: str) -> str | None:
    """What is wrong with a pattern of ``files``, or None."""
    if flaw := _path_flaw(pattern):
        return flaw
    if any("**" in part and part != "**" for part in pattern.split("/")):
        return f"{pattern!r}: ** stands alone between slashes"
    return None


def rename_flaw(rule: Rename) -> str | None:
    """What is wrong with one rule, or None."""
    if not rule.to:
        return "'to' is missing: what is it called then?"
    for text in filter(None, (rule.origin, rule.to)):
        if flaw := _path_flaw(text):
            return flaw
        if text.count("*") > 1:
            return f"{text!r} has more than one *"
    if "*" in rule.to and "*" not in rule.origin:
        return f"{rule.to!r} has a * for which {rule.origin or 'the only file'!r} has none"
    return None


def _path_flaw(text: str) -> str | None:
    if len(text) > MAX_PATTERN:
        return f"it is longer than {MAX_PATTERN} characters"
    try:
        parse_relative_path(text)
    except PeerdError as error:
        return error.message
    return None


@lru_cache(maxsize=1024)
def _parts(pattern: str) -> tuple[re.Pattern[str] | None, ...]:
    """One matcher for each component, None for ``**``; at the end that means every file below."""
    parts = pattern.split("/")
    if parts[-1] == "**":
        parts.append("*")
    return tuple(None if part == "**" else re.compile(fnmatch.translate(part)) for part in parts)


def _reached(parts: Sequence[re.Pattern[str] | None], components: Sequence[str]) -> set[int]:
    """How many parts of the pattern the components may have used up."""
    states = _skipping(parts, {0})
    for component in components:
        following = {
            state if part is None else state + 1
            for state in states
            if state < len(parts) and ((part := parts[state]) is None or part.match(component))
        }
        states = _skipping(parts, following)
    return states


def _skipping(parts: Sequence[re.Pattern[str] | None], states: set[int]) -> set[int]:
    found = set(states)
    for state in sorted(states):
        while state < len(parts) and parts[state] is None:
            state += 1
            found.add(state)
    return found


def _leads_on(pattern: str, components: Sequence[str]) -> bool:
    parts = _parts(pattern)
    return any(state < len(parts) for state in _reached(parts, components))


def _collision(first: tuple[str, str], second: tuple[str, str]) -> PeerdError:
    if first[1] == second[1]:
        what = f"{first[0]!r} and {second[0]!r} would both become {first[1]!r}"
    else:
        what = f"{first[0]!r} would become {first[1]!r} and {second[0]!r} {second[1]!r}, which cannot be beside it"
    return PeerdError(Reason.COLLIDING_NAMES, what)
