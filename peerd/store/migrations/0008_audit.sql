-- Every state-changing call. Each row's digest covers the digest of the row before.
CREATE TABLE audit_log (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    caller TEXT NOT NULL,
    method TEXT NOT NULL,
    target TEXT NOT NULL,
    -- "ok" or the reason of the refusal.
    result TEXT NOT NULL,
    request_id TEXT NOT NULL,
    previous BLOB NOT NULL,
    digest BLOB NOT NULL
) STRICT;
