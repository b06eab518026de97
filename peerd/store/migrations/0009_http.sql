-- Tokens for HTTP. Only the digest of the secret is kept.
CREATE TABLE http_tokens (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    token_id TEXT NOT NULL UNIQUE,
    scope INTEGER NOT NULL,
    name TEXT NOT NULL,
    digest BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER,
    last_used_at INTEGER
) STRICT;

-- The last heartbeat of each external machine that beats to this peer; all else is in its signed document.
CREATE TABLE external_heartbeats (
    node_id TEXT PRIMARY KEY,
    at INTEGER NOT NULL,
    status TEXT NOT NULL,
    -- JSON
    metrics TEXT NOT NULL
) STRICT, WITHOUT ROWID;
