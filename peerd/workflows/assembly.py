"""STUB - replaced once the orchestrator's shell is there."""
import asyncio
from typing import Any
class _Orch:
    async def run(self): await asyncio.Event().wait()
class Workflows:
    delivery: Any = None; servicer: Any = None; reports: Any=None; active_executions=0
    def __init__(self):
        from peerd.v1 import workflows_pb2_grpc as w, jobs_pb2_grpc as j
        self.servicer=w.WorkflowServiceServicer(); self.reports=j.JobReportServiceServicer(); self.orchestrator=_Orch()
    def use_sender(self, s): pass
def assemble_workflows(**k): return Workflows()
