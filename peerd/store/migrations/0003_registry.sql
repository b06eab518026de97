-- The newest advert of each peer, this one's own included.
CREATE TABLE adverts (
    peer_id TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    digest BLOB NOT NULL,
    envelope BLOB NOT NULL,
    stored_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
