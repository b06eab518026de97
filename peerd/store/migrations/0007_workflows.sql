-- Stored definitions. The same content gives the same version.
CREATE TABLE workflows (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE workflow_versions (
    workflow_id INTEGER NOT NULL REFERENCES workflows (id),
    version INTEGER NOT NULL,
    digest BLOB NOT NULL,
    definition BLOB NOT NULL,
    job_count INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (workflow_id, version),
    UNIQUE (workflow_id, digest)
) STRICT;

-- Rows of executions, jobs and edges are projections of the event log, written in the transaction of the events.
CREATE TABLE workflow_executions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    workflow_id INTEGER NOT NULL REFERENCES workflows (id),
    workflow_version INTEGER NOT NULL,
    params TEXT NOT NULL,
    job_count INTEGER NOT NULL,
    status TEXT NOT NULL,
    error TEXT NOT NULL DEFAULT '',
    cancel_reason TEXT,
    reason TEXT NOT NULL DEFAULT '',
    next_action TEXT NOT NULL DEFAULT '',
    since INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    ended_at INTEGER,
    -- Grows with every change of a row of this execution; what a watcher resumes from.
    version INTEGER NOT NULL DEFAULT 0,
    -- 1 once nothing is left to do, also on other peers.
    settled INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX workflow_executions_open ON workflow_executions (id) WHERE settled = 0;
CREATE INDEX workflow_executions_by_workflow ON workflow_executions (workflow_id, id);

CREATE TABLE workflow_jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    workflow_execution_id INTEGER NOT NULL REFERENCES workflow_executions (id),
    workflow_id INTEGER NOT NULL,
    node_id TEXT NOT NULL,
    job_name TEXT NOT NULL,
    -- Name or id of a service of the executor, as in the definition; '' for a command.
    service_id TEXT NOT NULL,
    executor_peer_id TEXT,
    remote_job_execution_id INTEGER,
    status TEXT NOT NULL,
    result TEXT,
    error TEXT,
    placement INTEGER NOT NULL DEFAULT 0,
    generation INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    message TEXT NOT NULL DEFAULT '',
    next_action TEXT NOT NULL DEFAULT '',
    since INTEGER NOT NULL,
    started_at INTEGER,
    ended_at INTEGER,
    attempt INTEGER NOT NULL DEFAULT 0,
    exit_code INTEGER,
    bytes_received INTEGER NOT NULL DEFAULT 0,
    bytes_sent INTEGER NOT NULL DEFAULT 0,
    changed INTEGER NOT NULL DEFAULT 0,
    UNIQUE (workflow_execution_id, node_id)
) STRICT;

CREATE INDEX workflow_jobs_by_change ON workflow_jobs (workflow_execution_id, changed);

CREATE TABLE execution_edges (
    workflow_execution_id INTEGER NOT NULL REFERENCES workflow_executions (id),
    edge_id INTEGER NOT NULL,
    -- '' is Local Peer.
    source_node_id TEXT NOT NULL,
    source_kind INTEGER NOT NULL,
    source_path TEXT NOT NULL,
    destination_node_id TEXT NOT NULL,
    destination_kind INTEGER NOT NULL,
    destination_path TEXT NOT NULL,
    directory TEXT NOT NULL,
    status TEXT NOT NULL,
    bytes INTEGER NOT NULL DEFAULT 0,
    bytes_total INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    changed INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (workflow_execution_id, edge_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX execution_edges_by_change ON execution_edges (workflow_execution_id, changed);

-- What happened, in order. Replaying it gives the execution.
CREATE TABLE execution_events (
    workflow_execution_id INTEGER NOT NULL REFERENCES workflow_executions (id),
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (workflow_execution_id, seq)
) STRICT, WITHOUT ROWID;

-- Events from other transactions (a request, a received transfer) until the execution's own writer takes them over
-- into the log: only it knows their place among the others.
CREATE TABLE execution_inbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    workflow_execution_id INTEGER NOT NULL REFERENCES workflow_executions (id),
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    body TEXT NOT NULL
) STRICT;
