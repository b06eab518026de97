"""Several targets in one program: a bounded number at once, which share what one may do; each with its own result."""

from __future__ import annotations

import asyncio
import dataclasses
import traceback
from collections.abc import Sequence

from peerd.nodes.examining import LEAST_PER_SECOND, Outside, probe
from peerd.nodes.message_json import to_json
from peerd.nodes.messages import BatchLine, BatchRequest, FailureReason, Outcome, Owner, ProbeRequest, ProbeResult
from peerd.nodes.scanning.report import markdown_report


async def probe_all(batch: BatchRequest, owner: Owner, outside: Outside) -> Sequence[BatchLine]:
    """One line for each node, in their order. A fault of ours with one of them is its result, and keeps no other."""
    share = max(1, int(min(batch.at_once, len(batch.nodes), owner.connects_per_second / LEAST_PER_SECOND)))
    outside = dataclasses.replace(outside, share=share)
    turns = asyncio.Semaphore(share)

    async def line(request: ProbeRequest) -> BatchLine:
        async with turns:
            try:
                result = await probe(request, owner, outside)
            except Exception as error:  # noqa: BLE001 - whatever it is, the others have their answers
                traceback.print_exc()
                message = f"the prober failed: {type(error).__name__}: {error}"[:500]
                result = ProbeResult(
                    kind=request.kind, outcome=Outcome.FAILED, reason=FailureReason.INTERNAL, message=message
                )
        return answer_of(request, result)

    return await asyncio.gather(*(line(request) for request in batch.requests()))


def answer_of(request: ProbeRequest, result: ProbeResult) -> BatchLine:
    """The result and, of a scan, the report, as they are written."""
    report = markdown_report(request, result, result.scan) if result.scan is not None else ""
    return BatchLine(node_id=request.node_id, result=to_json(result), report=report)
