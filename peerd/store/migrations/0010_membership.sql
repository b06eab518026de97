-- Whether a service is offered because a profile says so; its origin then reads 'profile'.
ALTER TABLE services ADD COLUMN by_profile INTEGER NOT NULL DEFAULT 0 CHECK (by_profile IN (0, 1));

-- The incarnation that this peer last spoke with.
CREATE TABLE detector (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    incarnation INTEGER NOT NULL
) STRICT;

-- What other peers said of themselves in signed documents of one topic each: notes, profiles, external peers.
CREATE TABLE documents (
    topic TEXT NOT NULL,
    key TEXT NOT NULL,
    version INTEGER NOT NULL,
    digest BLOB NOT NULL,
    envelope BLOB NOT NULL,
    stored_at INTEGER NOT NULL,
    PRIMARY KEY (topic, key, version)
) STRICT, WITHOUT ROWID;

-- Numbers for peer ids, so that a heartbeat takes a few bytes.
CREATE TABLE heartbeat_peers (
    number INTEGER PRIMARY KEY,
    peer_id TEXT NOT NULL UNIQUE
) STRICT;

-- One probe of one peer. Times in milliseconds since 1970, latency in microseconds, shares in thousandths.
CREATE TABLE heartbeats (
    peer INTEGER NOT NULL REFERENCES heartbeat_peers (number) ON DELETE CASCADE,
    at INTEGER NOT NULL,
    status INTEGER NOT NULL,
    latency_us INTEGER,
    clock_offset_ms INTEGER,
    running_jobs INTEGER,
    cpu_permille INTEGER,
    memory_permille INTEGER,
    disk_permille INTEGER,
    PRIMARY KEY (peer, at)
) STRICT, WITHOUT ROWID;
