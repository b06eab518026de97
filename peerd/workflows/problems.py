"""What can be wrong with a definition, and where.

A problem is data, not an exception: a definition is read to its end and everything wrong is listed at once. The
field is a path into the message (``jobs[2].inputs[0].from``), so that it means the same for a file and for a
message that came over the wire; line and column are known only for text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from peerd.errors import PeerdError, Reason, Violation
from peerd.v1 import workflows_pb2

FieldPath = tuple[str | int, ...]
"""``("jobs", 2, "inputs", 0, "from")``; the empty path is the whole definition."""

# More would tell nobody more, and the answer must fit a message.
MAX_PROBLEMS = 1000

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


class ProblemReason(Enum):
    """Stable reasons and what to do about each, unless the place knows better."""

    # The text
    BAD_YAML = "mend the YAML at this place"
    BAD_JSON = "mend the JSON at this place"
    TOO_LARGE = "make it smaller; move large files to a data service"
    TOO_DEEP = "nest less: no field of a definition needs it"
    DUPLICATE_KEY = "remove one of them"
    DEFINITION_TOO_NEW = "update peerd on this machine, or write the definition for the version that it knows"
    # The shape
    UNKNOWN_FIELD = "remove it or correct its name; docs/workflows.md lists every field"
    WRONG_TYPE = "write the kind of value that the message names"
    MISSING = "add it"
    CHOOSE_ONE = "keep exactly one of them"
    # The values
    BAD_NAME = "use letters, digits, '-', '_' and '.', starting with a letter, digit or '_', at most 63 characters"
    DUPLICATE_NAME = "rename one of them; names that differ only in case count as equal"
    BAD_PATH = "use a relative path without '..', links or control characters"
    BAD_DURATION = 'write a duration such as "90s", "10m" or "1h30m"'
    BAD_MEMORY = 'write a size such as "512M" or "2G"'
    BAD_EXIT_CODES = 'write a code such as "3", or a range such as "10-19"; a signal N counts as 128+N'
    BAD_EXPRESSION = "write params.NAME, jobs.NAME.status, success(), == and so on: docs/workflows.md lists all"
    OUT_OF_RANGE = "choose a value within the limits that the message names"
    BAD_CHOICE = "use one of the words that the message names"
    BAD_VALUE = "remove what the message names"
    BAD_ENV_NAME = "use letters, digits and '_', not starting with a digit"
    UNKNOWN_PARAM = "declare it under the workflow's params or parameters, or correct its name"
    BAD_PARAMETER_PATTERN = "write an RE2 expression: one without look-around and back references"
    BAD_DEFAULT = "make the default one of the values that the parameter takes"
    BAD_PARAM_REFERENCE = "write ${params.NAME}, or $${ for the characters ${"
    UNRESOLVED_SOURCE = "send it with peerctl, which reads the file beside the definition, or put it in text or content"
    DUPLICATE_PATH = "give each package file a path of its own"
    # The graph
    NO_JOBS = "add at least one job"
    TOO_MANY_JOBS = "split the workflow"
    TOO_MANY_EDGES = "let one job gather the files, and the others take them from there; or split the workflow"
    BAD_REFERENCE = "write JOB, JOB.output, JOB.output/PATH, JOB.stdout, JOB.stderr or JOB.mounts/PATH"
    UNKNOWN_JOB = "name a job of this workflow"
    SELF_REFERENCE = "take the files from another job"
    CYCLE = "remove one of these edges: a job can only wait for jobs that do not wait for it"
    ILLEGAL_PAIR = "connect output, stdout, stderr or mounts/PATH of one job to input, stdin or mounts/PATH of another"
    BAD_PATTERN = "write patterns such as '*.csv' or 'reports/**', relative and without '..'"
    BAD_RENAME = "write 'rename: NAME', or a list of {from: '*.txt', to: '*.csv'} with at most one * on each side"
    COLLIDING_DESTINATIONS = "give each of them a directory of its own with 'to'"
    MORE_PROBLEMS = "mend these first"

    @property
    def text(self) -> str:
        """The stable spelling, lower case."""
        return self.name.lower()


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing wrong. Line and column count from 1; 0 where there is no text."""

    reason: ProblemReason
    message: str
    path: FieldPath = ()
    line: int = 0
    column: int = 0
    next_action: str = ""

    @property
    def field(self) -> str:
        """The path as people write it."""
        return format_path(self.path)

    def to_proto(self) -> workflows_pb2.Problem:
        """As it goes over the wire."""
        return workflows_pb2.Problem(
            reason=self.reason.text,
            message=self.message,
            field=self.field,
            line=self.line,
            column=self.column,
            next_action=self.next_action or self.reason.value,
        )


def format_path(path: FieldPath) -> str:
    """``jobs[2].env.PATH``; keys that are no plain words are quoted."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif _PLAIN_KEY.fullmatch(step):
            text += f".{step}" if text else step
        else:
            text += f"[{json.dumps(step)}]"
    return text


def invalid_definition(problems: Iterable[Problem], file_name: str = "") -> PeerdError:
    """The problems as one refusal, for the calls that need a valid definition."""
    listed = tuple(problems)
    first = listed[0]
    where = ":".join(str(part) for part in (file_name, first.line, first.column) if part)
    place = " ".join(part for part in (where, first.field) if part)
    more = f" (and {len(listed) - 1} more)" if len(listed) > 1 else ""
    return PeerdError(
        Reason.INVALID_DEFINITION,
        f"{place + ': ' if place else ''}{first.message}{more}",
        next_action=first.next_action or first.reason.value,
        violations=[
            Violation(field=p.field, message=f"{p.reason.text}: {p.message}" + (f" (line {p.line})" if p.line else ""))
            for p in listed
        ],
        metadata={"problem": first.reason.text},
    )
