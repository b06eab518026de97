"""What can be wrong with the files that a definition brings along. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from peerd.v1 import workflows_pb2
from peerd.workflows.graph import path_flaw
from peerd.workflows.problems import FieldPath, Problem, ProblemReason

# They travel inside the definition, which is stored whole and sent in one message.
MAX_PACKAGE_BYTES = 2 * 1024 * 1024


def package_problems(job: workflows_pb2.JobDefinition, path: FieldPath) -> Iterator[Problem]:
    """What is wrong with the files that one job brings along."""
    files: dict[str, int] = {}
    for index, file in enumerate(job.package):
        here = (*path, "package", index)
        if not file.path:
            yield Problem(reason=ProblemReason.MISSING, message="a package file needs a path", path=(*here, "path"))
            continue
        if flaw := path_flaw(file.path):
            yield Problem(reason=ProblemReason.BAD_PATH, message=flaw, path=(*here, "path"))
            continue
        first = files.setdefault(file.path.casefold(), index)
        if first != index:
            message = f"package[{first}] is already at {job.package[first].path!r}"
            yield Problem(reason=ProblemReason.DUPLICATE_PATH, message=message, path=(*here, "path"))
        body = file.WhichOneof("body")
        if body is None:
            hint = "add 'text', 'content' (base64), or 'source' with a file beside the definition"
            message = f"{file.path!r} has no content"
            yield Problem(reason=ProblemReason.MISSING, message=message, path=here, next_action=hint)
        elif body == "source":
            message = f"{file.source!r} is a file of whoever wrote the definition, which this daemon does not read"
            yield Problem(reason=ProblemReason.UNRESOLVED_SOURCE, message=message, path=(*here, "source"))
    for file_path, index in files.items():
        parts = file_path.split("/")
        for depth in range(1, len(parts)):
            if (other := files.get("/".join(parts[:depth]))) is not None:
                message = f"package[{other}] is a file where this needs a directory"
                where = (*path, "package", index, "path")
                yield Problem(reason=ProblemReason.DUPLICATE_PATH, message=message, path=where)
                break


def package_sizes(definition: workflows_pb2.WorkflowDefinition) -> Iterator[Problem]:
    """Whether those of all jobs are too large."""
    total = 0
    for index, job in enumerate(definition.jobs):
        for at, file in enumerate(job.package):
            total += len(file.content) or len(file.text.encode())
            if total > MAX_PACKAGE_BYTES:
                message = f"package files are larger than {MAX_PACKAGE_BYTES >> 20} MiB in all, from this one on"
                hint = "offer large files as a data service and take them as input"
                path = ("jobs", index, "package", at)
                yield Problem(reason=ProblemReason.TOO_LARGE, message=message, path=path, next_action=hint)
                return
