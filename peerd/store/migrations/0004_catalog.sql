-- What this peer offers. A row outlives its service (offered = 0), so that a name keeps its id for ever.
CREATE TABLE services (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    origin TEXT NOT NULL CHECK (origin IN ('config', 'added')),
    offered INTEGER NOT NULL CHECK (offered IN (0, 1)),
    active INTEGER NOT NULL CHECK (active IN (0, 1)),
    declaration BLOB NOT NULL, -- peerd.v1.ServiceDeclaration
    changed_at INTEGER NOT NULL
) STRICT;
