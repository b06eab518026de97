"""Workflows and executions as Markdown and HTML, for notebooks: a table of jobs and the graph as Mermaid.

Nothing of what a peer or a job says becomes markup.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from peerd.errors import PeerdError
from peerd.v1 import workflows_pb2

if TYPE_CHECKING:
    from peerd.client.workflow import Workflow

_MARKUP = frozenset("\\`*_{}[]<>()#+-.!|~&$\"':=@^")
_SHOWN = 200
"""Jobs; nobody reads more of them in a notebook."""


def execution_markdown(execution: workflows_pb2.Execution) -> str:
    """One execution as it is known."""
    return _markdown(_title(execution), _notes(execution), _HEADINGS, _rows(execution), _graph(execution))


def execution_html(execution: workflows_pb2.Execution) -> str:
    """The same as HTML."""
    return _html(_title(execution), _notes(execution), _HEADINGS, _rows(execution), _graph(execution))


def workflow_markdown(workflow: Workflow) -> str:
    """A definition, with what is wrong with it."""
    return _markdown(*_workflow(workflow))


def workflow_html(workflow: Workflow) -> str:
    """The same as HTML."""
    return _html(*_workflow(workflow))


_HEADINGS = ("job", "peer", "state", "took", "why")


def _title(execution: workflows_pb2.Execution) -> str:
    status = _word(workflows_pb2.ExecutionStatus.Name(execution.status))
    return f"execution {execution.workflow_execution_id} of {execution.workflow_name}: {status}"


def _notes(execution: workflows_pb2.Execution) -> list[str]:
    unseen = f"{execution.job_count} jobs, not looked at yet: refresh() does" if not execution.jobs else ""
    return [note for note in (execution.error, execution.reason, execution.next_action, unseen) if note]


def _rows(execution: workflows_pb2.Execution) -> list[tuple[str, ...]]:
    from peerd.workflows.drawing import state_of

    rows = [
        (
            job.node_id,
            job.executor_name,
            state_of(job).replace("_", " "),
            _took(job),
            ": ".join(word for word in (job.reason, job.message) if word),
        )
        for job in execution.jobs[:_SHOWN]
    ]
    return rows + _rest(len(execution.jobs), len(_HEADINGS))


def _rest(count: int, columns: int) -> list[tuple[str, ...]]:
    return [(f"and {count - _SHOWN} more", *[""] * (columns - 1))] if count > _SHOWN else []


def _took(job: workflows_pb2.WorkflowJob) -> str:
    if not job.HasField("started_at") or not job.HasField("ended_at"):
        return ""
    seconds = (job.ended_at.ToMilliseconds() - job.started_at.ToMilliseconds()) / 1000
    return f"{seconds:.1f} s"


def _graph(execution: workflows_pb2.Execution) -> str:
    from peerd.workflows.drawing import mermaid, of_execution

    return mermaid(of_execution(execution)) if 0 < len(execution.jobs) <= _SHOWN else ""


def _workflow(workflow: Workflow) -> tuple[str, list[str], tuple[str, ...], list[tuple[str, ...]], str]:
    rows = [
        (job.name, job.definition.service or " ".join(job.definition.run.argv), job.definition.on.peer, edges)
        for job in workflow.jobs[:_SHOWN]
        for edges in [", ".join(getattr(item, "from") for item in job.definition.inputs)]
    ]
    headings = ("job", "work", "peer", "takes")
    rows_and_rest = [*rows, *_rest(len(workflow.jobs), len(headings))]
    notes = [f"{problem.field}: {problem.message}" for problem in workflow.problems()]
    try:
        graph = workflow.to_mermaid() if len(rows) == len(workflow.jobs) else ""
    except PeerdError:  # what is wrong stands in the notes
        graph = ""
    return f"workflow {workflow.name}", notes, headings, rows_and_rest, graph


def _word(name: str) -> str:
    return name.removeprefix("EXECUTION_STATUS_").lower().replace("_", " ")


def _markdown(
    title: str, notes: Iterable[str], headings: Sequence[str], rows: Iterable[Sequence[str]], graph: str
) -> str:
    lines = [f"**{_escaped(title)}**", ""]
    for note in notes:
        lines += [_escaped(note), ""]
    lines += [f"| {' | '.join(headings)} |", f"|{'---|' * len(headings)}"]
    lines += [f"| {' | '.join(_escaped(cell) for cell in row)} |" for row in rows]
    if graph:
        lines += ["", "```mermaid", graph.rstrip("\n"), "```"]
    return "\n".join(lines) + "\n"


def _html(title: str, notes: Iterable[str], headings: Sequence[str], rows: Iterable[Sequence[str]], graph: str) -> str:
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    said = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    drawn = f'<pre class="mermaid">{html.escape(graph)}</pre>' if graph else ""
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div><p><b>{html.escape(title)}</b></p>{said}{table}{drawn}</div>"


def _escaped(text: str) -> str:
    return "".join(f"&#{ord(c)};" if c in _MARKUP else " " if c in "\r\n" else c for c in text)
