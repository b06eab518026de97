-- Scans that jobs here made, which this peer signs and hands in to another one.
CREATE TABLE scan_hand_ins (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    -- Made of the store, the job and the number of the file: what is handed in again is the same scan.
    scan_id TEXT NOT NULL UNIQUE,
    job_execution_id INTEGER NOT NULL,
    service TEXT NOT NULL,
    -- Of the file: the job's directory relative to the data directory, and the path below its output/.
    directory TEXT NOT NULL,
    path TEXT NOT NULL,
    to_peer_id TEXT NOT NULL,
    format TEXT NOT NULL,
    vantage TEXT NOT NULL,
    -- When the job ended.
    scanned_at INTEGER NOT NULL,
    state TEXT NOT NULL, -- waiting, handed_in, refused
    -- There, once it was handed in.
    ingest_job_id INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    -- By the steady clock.
    next_attempt_at INTEGER NOT NULL DEFAULT 0,
    waiting_since INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    message TEXT NOT NULL DEFAULT '',
    next_action TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE INDEX scan_hand_ins_waiting ON scan_hand_ins (next_attempt_at) WHERE state = 'waiting';
CREATE INDEX scan_hand_ins_of_job ON scan_hand_ins (job_execution_id) WHERE state = 'waiting';

-- 1 while files of the job are to be handed in: until then retention leaves them.
ALTER TABLE job_executions ADD COLUMN handing_in INTEGER NOT NULL DEFAULT 0;

-- 0: the statement does not say when the scan was made, so the file may.
ALTER TABLE ingest_jobs ADD COLUMN time_stated INTEGER NOT NULL DEFAULT 1;

-- Services, banners and certificates that a port pointed at once: perhaps nothing does any more.
CREATE TABLE inventory_dropped (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    kind INTEGER NOT NULL, -- 1 service, 2 banner, 3 certificate
    id INTEGER NOT NULL,
    -- The last change that speaks of it, if that alone is known to: nothing is to be done before that is forgotten.
    until_change INTEGER NOT NULL DEFAULT 0,
    UNIQUE (kind, id)
) STRICT;

-- What was left before this was written down: all of them are looked at once.
INSERT INTO inventory_dropped (kind, id) SELECT 1, id FROM inventory_services;
INSERT INTO inventory_dropped (kind, id) SELECT 2, id FROM inventory_banners;
INSERT INTO inventory_dropped (kind, id) SELECT 3, id FROM inventory_certificates;
