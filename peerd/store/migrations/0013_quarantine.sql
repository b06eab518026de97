-- Rows that could not be read when they were needed: their content, for whoever wants to save something.
CREATE TABLE quarantine (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    source TEXT NOT NULL, -- the table
    key TEXT NOT NULL, -- JSON: the columns that name the row there
    content BLOB NOT NULL,
    digest BLOB NOT NULL,
    error TEXT NOT NULL,
    at INTEGER NOT NULL,
    UNIQUE (source, key, digest)
) STRICT;
