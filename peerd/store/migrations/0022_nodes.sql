-- Organizations, their nodes, and the discoveries and scans of these.
CREATE TABLE organizations (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    org_id TEXT NOT NULL UNIQUE, -- UUID, lower case
    slug TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    description TEXT NOT NULL DEFAULT '',
    contact_email TEXT NOT NULL DEFAULT '',
    active INTEGER NOT NULL DEFAULT 1,
    -- An OrganizationPolicy with its defaults.
    policy BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    created_by TEXT NOT NULL
) STRICT;

CREATE TABLE nodes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    node_id TEXT NOT NULL UNIQUE, -- UUID, lower case
    org_id TEXT NOT NULL REFERENCES organizations (org_id),
    target TEXT NOT NULL, -- normalised
    host TEXT NOT NULL,
    is_ip INTEGER NOT NULL,
    port INTEGER, -- NULL: none
    status TEXT NOT NULL, -- new, discovered, scanned, error
    protocol TEXT NOT NULL DEFAULT '',
    version TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    message TEXT NOT NULL DEFAULT '',
    since INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    -- Of the newest scan that went well.
    score INTEGER,
    risk TEXT NOT NULL DEFAULT '',
    scanned_at INTEGER,
    scan_run_id INTEGER,
    -- One node for one target, whoever asks at the same time.
    UNIQUE (org_id, target)
) STRICT;

CREATE INDEX nodes_by_org ON nodes (org_id, id);
CREATE INDEX nodes_by_scan ON nodes (org_id, scanned_at);

CREATE TABLE node_transitions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    node_id TEXT NOT NULL REFERENCES nodes (node_id),
    at INTEGER NOT NULL,
    from_status TEXT NOT NULL, -- '': it was made
    to_status TEXT NOT NULL,
    event TEXT NOT NULL,
    detail TEXT NOT NULL DEFAULT '',
    caller TEXT NOT NULL,
    run_id INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX node_transitions_by_node ON node_transitions (node_id, id);

CREATE TABLE node_sweeps (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    org_id TEXT NOT NULL REFERENCES organizations (org_id),
    workflow_execution_id INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    left_out INTEGER NOT NULL DEFAULT 0,
    left_out_reason TEXT NOT NULL DEFAULT '',
    caller TEXT NOT NULL
) STRICT;

-- One discovery or scan. What comes of it is applied in the transaction that ends the row, so once.
CREATE TABLE node_runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    node_id TEXT NOT NULL REFERENCES nodes (node_id),
    org_id TEXT NOT NULL,
    kind TEXT NOT NULL, -- discover, scan
    status TEXT NOT NULL, -- running, ok, failed
    protocol TEXT NOT NULL DEFAULT '',
    level INTEGER NOT NULL DEFAULT 0,
    workflow_execution_id INTEGER NOT NULL,
    job TEXT NOT NULL,
    peer_id TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    message TEXT NOT NULL DEFAULT '',
    started_at INTEGER NOT NULL,
    ended_at INTEGER,
    score INTEGER,
    risk TEXT NOT NULL DEFAULT '',
    version TEXT NOT NULL DEFAULT '',
    sweep_id INTEGER NOT NULL DEFAULT 0,
    caller TEXT NOT NULL,
    -- The prober's result.json and report.md.
    result TEXT NOT NULL DEFAULT '',
    report TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE INDEX node_runs_by_node ON node_runs (node_id, id);
CREATE INDEX node_runs_by_start ON node_runs (org_id, started_at);
CREATE INDEX node_runs_by_sweep ON node_runs (sweep_id) WHERE sweep_id > 0;
-- Nothing is discovered or scanned twice at once.
CREATE UNIQUE INDEX node_runs_open ON node_runs (node_id) WHERE status = 'running';
