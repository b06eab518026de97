-- Files go before rows do. present, removing (condemned, being deleted), removed.
ALTER TABLE workflow_executions ADD COLUMN kept INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workflow_executions ADD COLUMN files TEXT NOT NULL DEFAULT 'present';
-- 1 once every executor was told that the execution is over, and whether it is kept.
ALTER TABLE workflow_executions ADD COLUMN told INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workflow_jobs ADD COLUMN told INTEGER NOT NULL DEFAULT 0;

-- 0 for a definition that only came along with a run: it goes when no execution is left that has it.
ALTER TABLE workflow_versions ADD COLUMN stored INTEGER NOT NULL DEFAULT 1;

CREATE INDEX workflow_executions_untold ON workflow_executions (id) WHERE settled = 1 AND told = 0;
CREATE INDEX workflow_executions_by_end ON workflow_executions (ended_at) WHERE settled = 1;

-- When its orchestrator said that the execution is over; nothing is sent again after that.
ALTER TABLE job_executions ADD COLUMN released_at INTEGER;
ALTER TABLE job_executions ADD COLUMN kept INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job_executions ADD COLUMN files TEXT NOT NULL DEFAULT 'present';
-- What its directory took on the disk when its last process had ended.
ALTER TABLE job_executions ADD COLUMN disk_bytes INTEGER NOT NULL DEFAULT 0;

CREATE INDEX job_executions_by_end ON job_executions (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX job_executions_on_disk ON job_executions (orchestrator_peer_id, status) WHERE files = 'present';
