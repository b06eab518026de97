-- What a job reserves while it runs, and which of those that are ready comes first.
ALTER TABLE job_executions ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job_executions ADD COLUMN cpus REAL NOT NULL DEFAULT 0;
ALTER TABLE job_executions ADD COLUMN memory_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job_executions ADD COLUMN disk_limit_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job_executions ADD COLUMN gpus INTEGER NOT NULL DEFAULT 0;
-- Jobs of its service at once; 0 is no limit.
ALTER TABLE job_executions ADD COLUMN max_concurrent INTEGER NOT NULL DEFAULT 0;
-- The row of its newest attempt, 0 before the first: whose turn was when.
ALTER TABLE job_executions ADD COLUMN last_attempt_id INTEGER NOT NULL DEFAULT 0;
-- JSON: the limits in force for its last process; and which of them it hit.
ALTER TABLE job_executions ADD COLUMN limits TEXT NOT NULL DEFAULT '';
ALTER TABLE job_executions ADD COLUMN limit_hit TEXT NOT NULL DEFAULT '';

UPDATE job_executions SET last_attempt_id =
    coalesce((SELECT max(id) FROM job_attempts a WHERE a.job_execution_id = job_executions.id), 0);

CREATE INDEX job_executions_queue ON job_executions (orchestrator_peer_id, service_id, priority DESC, id)
    WHERE status = 'ready' AND is_data = 0;
CREATE INDEX job_executions_turns ON job_executions (orchestrator_peer_id, last_attempt_id) WHERE last_attempt_id > 0;
