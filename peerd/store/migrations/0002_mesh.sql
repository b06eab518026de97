-- The mesh this peer belongs to; at most one row.
CREATE TABLE mesh (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    mesh_id TEXT NOT NULL,
    since INTEGER NOT NULL
) STRICT;

-- Counts the member records this key ever signed, whatever mesh they were for.
CREATE TABLE mesh_signer (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    sequence INTEGER NOT NULL
) STRICT;

INSERT INTO mesh_signer (one, sequence) VALUES (1, 0);

-- Every member record that stands, and those it was built on.
CREATE TABLE member_records (
    digest BLOB PRIMARY KEY,
    subject TEXT NOT NULL,
    version INTEGER NOT NULL,
    envelope BLOB NOT NULL,
    stored_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE invites (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    -- The invite's public key. Its seed is never stored: it is derived from the nonce with the identity key.
    invite_id TEXT NOT NULL UNIQUE,
    nonce BLOB NOT NULL,
    roles TEXT NOT NULL,
    grants TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    revoked_at INTEGER,
    used_at INTEGER,
    joiner TEXT,
    CHECK ((used_at IS NULL) = (joiner IS NULL))
) STRICT;

-- Where a peer was said to be, until its own advert says so.
CREATE TABLE address_hints (
    peer_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    address TEXT NOT NULL,
    PRIMARY KEY (peer_id, position)
) STRICT, WITHOUT ROWID;
