CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- Names this store for other peers; ids of rows mean nothing without it. Renewed by restore.
INSERT INTO meta (key, value) VALUES ('store_id', lower(hex(randomblob(16))));

-- Answers to requests that changed something, written in the same transaction as the change.
CREATE TABLE requests (
    caller TEXT NOT NULL,
    request_id TEXT NOT NULL,
    digest BLOB NOT NULL,
    answer BLOB NOT NULL,
    answered_at INTEGER NOT NULL,
    PRIMARY KEY (caller, request_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX requests_by_age ON requests (answered_at);
