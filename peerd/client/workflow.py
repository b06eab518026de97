"""Workflows written in Python. What is built is the message that a YAML file is, and nothing besides.

::

    wf = Workflow("count", params={"top": "15"})
    texts = wf.job("texts", service="texts", on={"peer": "alpha"})
    count = wf.job("count", run=["wc", "-w"], inputs=[texts.stdout.into("stdin")])
    wf.deliver(count.stdout)

Every field of a definition is an argument of the same name (docs/workflows.md has them all), read by the reader of
YAML files: what it would refuse there it refuses here, with the same reason and field.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peerd.client.values import read_values
from peerd.v1 import workflows_pb2


@dataclass(frozen=True)
class Output:
    """Something that a job gives, as ``from`` names it."""

    reference: str

    def __truediv__(self, path: str) -> Output:
        """A directory or file of it: ``job.output / "tables"``."""
        return Output(f"{self.reference}/{path}")

    def __str__(self) -> str:
        return self.reference

    def into(self, place: str = "input", **fields: Any) -> dict[str, Any]:
        """An edge to that place of the job that lists it: ``to``, ``files``, ``rename``, ``optional`` as in a file."""
        return {"from": self.reference, "into": place, **fields}


class Job:
    """One job of a workflow; its outputs make edges."""

    def __init__(self, message: workflows_pb2.JobDefinition) -> None:
        self.definition = message

    @property
    def name(self) -> str:
        """Its name, unique in the workflow."""
        return self.definition.name

    @property
    def output(self) -> Output:
        """The files under its output/."""
        return Output(f"{self.name}.output")

    @property
    def stdout(self) -> Output:
        """What it writes to stdout."""
        return Output(f"{self.name}.stdout")

    @property
    def stderr(self) -> Output:
        """What it writes to stderr."""
        return Output(f"{self.name}.stderr")

    def mount(self, path: str) -> Output:
        """The files of one of its mounts."""
        return Output(f"{self.name}.mounts/{path}")

    def into(self, place: str = "input", **fields: Any) -> dict[str, Any]:
        """An edge of its output."""
        return Output(self.name).into(place, **fields)

    def __repr__(self) -> str:
        return f"<job {self.name}>"


Source = Job | Output | str | Mapping[str, Any]
"""What stands for an edge: a job (its output), an output, ``"JOB.stdout"``, or the fields of the edge."""


class Workflow:
    """A definition in the making."""

    def __init__(self, name: str, **fields: Any) -> None:
        """``fields`` are those of a workflow: ``description``, ``params`` and so on."""
        self.definition = read_values({"name": name, **fields})

    # From and to text

    @classmethod
    def from_definition(cls, definition: workflows_pb2.WorkflowDefinition) -> Workflow:
        """A copy of a message, as it is."""
        made = cls(definition.name)
        made.definition.CopyFrom(definition)
        return made

    @classmethod
    def from_yaml(cls, text: str, *, file_name: str = "") -> Workflow:
        """What a YAML or JSON text says. Raises INVALID_DEFINITION with every field and line."""
        from peerd.workflows.definition import accept_definition

        reading = accept_definition(workflows_pb2.DefinitionSource(text=text, file_name=file_name))
        assert reading.definition is not None  # noqa: S101  # accepted
        return cls.from_definition(reading.definition)

    @classmethod
    def from_file(cls, path: str | Path) -> Workflow:
        """The same for a file, with the package files that it names."""
        from peerd.client.definition_file import read_definition

        source = read_definition(Path(path))
        return cls.from_yaml(source.text, file_name=source.file_name)

    def to_yaml(self) -> str:
        """The text that :meth:`from_yaml` and ``peerctl`` read back as the same definition."""
        import yaml
        from google.protobuf.json_format import MessageToDict

        content = MessageToDict(self.definition, preserving_proto_field_name=True)
        text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
        return text

    def to_file(self, path: str | Path) -> None:
        """Write :meth:`to_yaml` to a file."""
        Path(path).write_text(self.to_yaml(), encoding="utf-8")

    # Building

    def job(self, name: str, *, inputs: Iterable[Source] = (), **fields: Any) -> Job:
        """Add a job. ``run`` may be a list of words, ``package`` names with texts or bytes, ``map`` an output.

        All else is as in a file.
        """
        values: dict[str, Any] = {"name": name, **fields}
        if isinstance(values.get("run"), list | tuple):
            values["run"] = {"argv": values["run"]}
        if isinstance(values.get("package"), Mapping):
            values["package"] = [_package_file(path, body) for path, body in values["package"].items()]
        if "map" in values:
            values["map"] = _map(values["map"])
        values["inputs"] = [_edge(source) for source in inputs]
        index = len(self.definition.jobs)
        self.definition.jobs.extend(read_values(values, list_name="jobs", index=index).jobs)
        return Job(self.definition.jobs[index])

    def deliver(self, source: Source, **fields: Any) -> None:
        """Bring files home to Local Peer: ``to``, ``files``, ``rename``, ``optional`` as in a file."""
        values = {**_edge(source), **fields}
        index = len(self.definition.deliver)
        self.definition.deliver.extend(read_values(values, list_name="deliver", index=index).deliver)

    @property
    def name(self) -> str:
        """Its name."""
        return self.definition.name

    @property
    def jobs(self) -> list[Job]:
        """Its jobs, in order."""
        return [Job(job) for job in self.definition.jobs]

    def __getitem__(self, name: str) -> Job:
        for job in self.jobs:
            if job.name == name:
                return job
        raise KeyError(name)

    def __iter__(self) -> Iterator[Job]:
        return iter(self.jobs)

    # Judging and showing

    def problems(self) -> list[workflows_pb2.Problem]:
        """Everything that is wrong with it, as every daemon of this version would say."""
        from peerd.workflows.definition import read_definition

        return [problem.to_proto() for problem in read_definition(self.source).problems]

    def check(self) -> None:
        """Raises INVALID_DEFINITION, as a daemon would, if anything is wrong with it."""
        from peerd.workflows.definition import accept_definition

        accept_definition(self.source)

    @property
    def source(self) -> workflows_pb2.DefinitionSource:
        """As calls of the client take it."""
        return workflows_pb2.DefinitionSource(definition=self.definition)

    def to_mermaid(self) -> str:
        """Its graph. Raises INVALID_DEFINITION: half a graph would mislead."""
        from peerd.workflows.drawing import mermaid, of_definition

        self.check()
        return mermaid(of_definition(self.definition))

    def _repr_markdown_(self) -> str:
        from peerd.client.notebook import workflow_markdown

        return workflow_markdown(self)

    def _repr_html_(self) -> str:
        from peerd.client.notebook import workflow_html

        return workflow_html(self)

    def __repr__(self) -> str:
        return f"<workflow {self.name}, {len(self.definition.jobs)} jobs>"


def _map(source: Source) -> dict[str, Any]:
    """Where the list comes from, alone or with the name of its items."""
    if not isinstance(source, Mapping):
        return {"from": _edge(source)["from"]}
    given = source.get("from")
    return {**source, "from": _edge(given)["from"]} if isinstance(given, Job | Output) else dict(source)


def _edge(source: Source) -> dict[str, Any]:
    match source:
        case Job():
            return {"from": source.name}
        case Mapping():
            return dict(source)
        case _:
            return {"from": str(source)}


def _package_file(path: str, body: object) -> dict[str, object]:
    if isinstance(body, Path):
        mode = body.stat().st_mode
        return {"path": path, "content": body.read_bytes(), "executable": bool(mode & 0o100)}
    return {"path": path, "content" if isinstance(body, bytes) else "text": body}
