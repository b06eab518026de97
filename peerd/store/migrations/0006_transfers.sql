CREATE TABLE outgoing_transfers (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    orchestrator_peer_id TEXT NOT NULL,
    store_id TEXT NOT NULL,
    workflow_execution_id INTEGER NOT NULL,
    edge_id INTEGER NOT NULL,
    source_job_execution_id INTEGER NOT NULL,
    destination_peer_id TEXT NOT NULL,
    destination_job_execution_id INTEGER NOT NULL,
    root TEXT NOT NULL,
    only_name TEXT,
    status TEXT NOT NULL,
    bytes_total INTEGER NOT NULL DEFAULT 0,
    file_count INTEGER NOT NULL DEFAULT 0,
    tries INTEGER NOT NULL DEFAULT 0,
    next_try_at INTEGER NOT NULL DEFAULT 0,
    deadline_at INTEGER,
    reason TEXT NOT NULL DEFAULT '',
    message TEXT NOT NULL DEFAULT '',
    created_at INTEGER NOT NULL,
    ended_at INTEGER,
    UNIQUE (orchestrator_peer_id, store_id, workflow_execution_id, edge_id, source_job_execution_id,
            destination_peer_id, destination_job_execution_id)
) STRICT;

CREATE INDEX outgoing_transfers_open ON outgoing_transfers (next_try_at) WHERE ended_at IS NULL;

CREATE TABLE incoming_transfers (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    orchestrator_peer_id TEXT NOT NULL,
    store_id TEXT NOT NULL,
    workflow_execution_id INTEGER NOT NULL,
    edge_id INTEGER NOT NULL,
    source_peer_id TEXT NOT NULL,
    source_job_execution_id INTEGER NOT NULL,
    destination_job_execution_id INTEGER NOT NULL,
    manifest_digest BLOB NOT NULL,
    bytes_total INTEGER NOT NULL,
    file_count INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    UNIQUE (orchestrator_peer_id, store_id, workflow_execution_id, edge_id, source_peer_id, source_job_execution_id,
            destination_job_execution_id, manifest_digest)
) STRICT;
