-- Keys that sign scans beside those of peers. Rows stay: a revoked key must be known for ever.
CREATE TABLE scanner_keys (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    scanner TEXT NOT NULL UNIQUE, -- the public key, spelled as a peer id
    name TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    revoked_at INTEGER,
    revoke_reason TEXT NOT NULL DEFAULT '',
    replaced_by TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE UNIQUE INDEX scanner_keys_by_name ON scanner_keys (name) WHERE revoked_at IS NULL;

-- The bytes of a scan, in pieces: a backup has them, and they are stored in the transaction of their job.
CREATE TABLE scan_data (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    created_at INTEGER NOT NULL,
    -- 1 once a job owns them; others are of a stream that has not ended, or never will.
    owned INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE scan_pieces (
    scan_data_id INTEGER NOT NULL REFERENCES scan_data (id),
    piece INTEGER NOT NULL,
    -- zlib, of at most 256 KiB.
    content BLOB NOT NULL,
    PRIMARY KEY (scan_data_id, piece)
) STRICT;

-- One for each scan that was accepted. Rows stay: (scanner, scan_id) is unique for ever.
CREATE TABLE ingest_jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    job_uuid TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL, -- pending, processing, completed, failed, cancelled
    scanner TEXT NOT NULL,
    scan_id TEXT NOT NULL,
    -- BLAKE3 of what the statement says of the scan, its bytes included: what makes two submissions the same.
    content BLOB NOT NULL,
    format TEXT NOT NULL,
    tool TEXT NOT NULL,
    tool_version TEXT NOT NULL,
    organization TEXT NOT NULL,
    vantage TEXT NOT NULL,
    scope TEXT NOT NULL,
    issued_at INTEGER NOT NULL,
    scanned_at INTEGER NOT NULL,
    data_sha256 BLOB NOT NULL,
    data_size INTEGER NOT NULL,
    -- NULL once the bytes were removed.
    scan_data_id INTEGER,
    submitted_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    completed_at INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0,
    -- By the steady clock.
    next_attempt_at INTEGER NOT NULL DEFAULT 0,
    -- By the steady clock: when what fails now first failed; 0 for never.
    failing_since INTEGER NOT NULL DEFAULT 0,
    -- How many of the reader's items are stored: written in the transaction that stores them.
    items INTEGER NOT NULL DEFAULT 0,
    records INTEGER NOT NULL DEFAULT 0,
    skipped INTEGER NOT NULL DEFAULT 0,
    hosts INTEGER NOT NULL DEFAULT 0,
    ports INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    message TEXT NOT NULL DEFAULT '',
    next_action TEXT NOT NULL DEFAULT '',
    UNIQUE (scanner, scan_id)
) STRICT;

CREATE INDEX ingest_jobs_open ON ingest_jobs (id) WHERE state IN ('pending', 'processing');
CREATE INDEX ingest_jobs_by_state ON ingest_jobs (state, id);
CREATE INDEX ingest_jobs_by_creation ON ingest_jobs (created_at, id);
CREATE INDEX ingest_jobs_by_update ON ingest_jobs (updated_at, id);
CREATE INDEX ingest_jobs_with_data ON ingest_jobs (completed_at) WHERE scan_data_id IS NOT NULL;

-- What was skipped of a scan; the first thousand.
CREATE TABLE ingest_skipped (
    ingest_job_id INTEGER NOT NULL REFERENCES ingest_jobs (id),
    number INTEGER NOT NULL,
    line INTEGER NOT NULL,
    reason TEXT NOT NULL,
    excerpt TEXT NOT NULL,
    PRIMARY KEY (ingest_job_id, number)
) STRICT, WITHOUT ROWID;

-- Nonces of statements, until no statement with them could be accepted any more.
CREATE TABLE scan_nonces (
    scanner TEXT NOT NULL,
    nonce BLOB NOT NULL,
    kept_until INTEGER NOT NULL,
    PRIMARY KEY (scanner, nonce)
) STRICT, WITHOUT ROWID;

CREATE INDEX scan_nonces_by_end ON scan_nonces (kept_until);
