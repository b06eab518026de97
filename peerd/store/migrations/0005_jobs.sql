-- The executor's record of the jobs that others (and this peer itself) ordered here.
CREATE TABLE job_executions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,

    -- The key: who ordered it, and what it is there. Ids of another store mean nothing without that store.
    orchestrator_peer_id TEXT NOT NULL,
    store_id TEXT NOT NULL,
    workflow_execution_id INTEGER NOT NULL,
    workflow_job_id INTEGER NOT NULL,
    placement INTEGER NOT NULL,

    -- What was ordered.
    request_digest BLOB NOT NULL, -- the same key with other content is refused
    workflow_id TEXT NOT NULL,
    node_id TEXT NOT NULL,
    job_name TEXT NOT NULL,
    service_id INTEGER REFERENCES services (id), -- NULL for an ad-hoc command
    work TEXT NOT NULL, -- JSON: what to run, resolved when the job was created
    is_data INTEGER NOT NULL CHECK (is_data IN (0, 1)), -- offers a path: starts no process and needs no place to run
    timeout_seconds REAL, -- of one attempt
    retry TEXT NOT NULL, -- JSON
    waits_for_inputs INTEGER NOT NULL CHECK (waits_for_inputs IN (0, 1)),
    stop_without_lease INTEGER NOT NULL CHECK (stop_without_lease IN (0, 1)),
    lease_seconds REAL NOT NULL,

    -- How it is.
    status TEXT NOT NULL,
    reason TEXT NOT NULL,
    message TEXT NOT NULL,
    since INTEGER NOT NULL,
    generation INTEGER NOT NULL, -- of its interfaces; 0 before the first
    attempt INTEGER NOT NULL,
    next_try_at INTEGER, -- while ready: not before
    stop TEXT, -- the durable wish to end it: cancel, lease
    stop_message TEXT NOT NULL,
    exit_code INTEGER,
    isolation INTEGER NOT NULL, -- in force for its last process
    bytes_received INTEGER NOT NULL,
    bytes_sent INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    ended_at INTEGER,
    contact_at INTEGER NOT NULL, -- when its orchestrator was last heard from; the lease counts from here

    -- The outbox: grows with each change / what the orchestrator has stored.
    revision INTEGER NOT NULL,
    acknowledged_revision INTEGER NOT NULL,

    UNIQUE (orchestrator_peer_id, store_id, workflow_execution_id, workflow_job_id, placement)
) STRICT;

CREATE INDEX job_executions_open ON job_executions (status, id)
    WHERE status IN ('created', 'waiting_inputs', 'ready', 'running');
CREATE INDEX job_executions_to_report ON job_executions (orchestrator_peer_id, id)
    WHERE revision > acknowledged_revision;

-- Keys that were cancelled before they came.
CREATE TABLE job_tombstones (
    orchestrator_peer_id TEXT NOT NULL,
    store_id TEXT NOT NULL,
    workflow_execution_id INTEGER NOT NULL,
    workflow_job_id INTEGER NOT NULL,
    placement INTEGER NOT NULL,
    cancelled_at INTEGER NOT NULL,
    PRIMARY KEY (orchestrator_peer_id, store_id, workflow_execution_id, workflow_job_id, placement)
) STRICT, WITHOUT ROWID;

-- One row for each try of a process. Its id names the private directory in which daemon and wrapper talk.
CREATE TABLE job_attempts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    job_execution_id INTEGER NOT NULL REFERENCES job_executions (id),
    attempt INTEGER NOT NULL,
    outcome TEXT, -- NULL while it runs; never_started: the daemon died before, the number was used again
    exit_code INTEGER,
    started_at INTEGER NOT NULL,
    ended_at INTEGER
) STRICT;

CREATE INDEX job_attempts_by_job ON job_attempts (job_execution_id, id);

-- The edges of a job, from its side. Incoming: waiting, clearing (an older producer's files are being removed),
-- received. Outgoing: waiting, sending, delivered, failed.
CREATE TABLE job_edges (
    job_execution_id INTEGER NOT NULL REFERENCES job_executions (id),
    edge_id INTEGER NOT NULL,
    incoming INTEGER NOT NULL CHECK (incoming IN (0, 1)),
    kind TEXT NOT NULL,
    path TEXT NOT NULL, -- of a mount
    peer_id TEXT NOT NULL,
    peer_workflow_job_id INTEGER NOT NULL,
    peer_job_execution_id INTEGER NOT NULL,
    destination TEXT NOT NULL, -- incoming: directory below the interface's own
    position INTEGER NOT NULL, -- incoming: in the concatenation of stdin
    status TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    reason TEXT NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (job_execution_id, edge_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX job_edges_clearing ON job_edges (job_execution_id) WHERE status = 'clearing';

-- Files of a job, by path relative to its directory: received along an edge, or made by it (edge 0).
CREATE TABLE job_files (
    job_execution_id INTEGER NOT NULL REFERENCES job_executions (id),
    edge_id INTEGER NOT NULL,
    path TEXT NOT NULL,
    size INTEGER NOT NULL,
    PRIMARY KEY (job_execution_id, edge_id, path)
) STRICT, WITHOUT ROWID;
