-- The execution that this one runs again; NULL for any other.
ALTER TABLE workflow_executions ADD COLUMN rerun_of INTEGER;

-- Of a job of such an execution that is not run again: where and in which execution it completed.
ALTER TABLE workflow_jobs ADD COLUMN reused_execution_id INTEGER;
ALTER TABLE workflow_jobs ADD COLUMN reused_peer_id TEXT;
ALTER TABLE workflow_jobs ADD COLUMN reused_job_execution_id INTEGER;

-- On an executor: the job of the same orchestrator whose files this one sends again; it starts no process.
ALTER TABLE job_executions ADD COLUMN reused_id INTEGER;

-- The GPUs of its present or last attempt, by number: "0,2".
ALTER TABLE job_executions ADD COLUMN gpu_indices TEXT NOT NULL DEFAULT '';

CREATE INDEX job_executions_that_reuse ON job_executions (reused_id) WHERE reused_id IS NOT NULL;
