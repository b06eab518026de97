-- A job that has all it needs and may not start yet: its orchestrator says when (max_parallel).
ALTER TABLE job_executions ADD COLUMN hold INTEGER NOT NULL DEFAULT 0;

DROP INDEX job_executions_queue;
CREATE INDEX job_executions_queue ON job_executions (orchestrator_peer_id, service_id, priority DESC, id)
    WHERE status = 'ready' AND is_data = 0 AND hold = 0;

-- Lists that were made by jobs, and have become jobs.
CREATE TABLE workflow_maps (
    workflow_execution_id INTEGER NOT NULL REFERENCES workflow_executions (id),
    -- The job that has the map.
    node_id TEXT NOT NULL,
    -- JSON: for each instance what ${each.NAME} stands for.
    items TEXT NOT NULL,
    PRIMARY KEY (workflow_execution_id, node_id)
) STRICT, WITHOUT ROWID;

-- 1: what comes along the edge is such a list, and is read here instead of being brought home.
ALTER TABLE execution_edges ADD COLUMN is_list INTEGER NOT NULL DEFAULT 0;
