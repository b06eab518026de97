-- Where the audit log begins: what its oldest row follows. Rows are pruned from the front, and nothing else explains
-- that the oldest one is not the first ever.
CREATE TABLE audit_anchor (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    -- Of the newest pruned row; 0 when none was.
    id INTEGER NOT NULL,
    digest BLOB NOT NULL
) STRICT;

INSERT INTO audit_anchor
SELECT
    1,
    coalesce(
        (SELECT min(id) - 1 FROM audit_log),
        (SELECT seq FROM sqlite_sequence WHERE name = 'audit_log'),
        0
    ),
    coalesce((SELECT previous FROM audit_log ORDER BY id LIMIT 1), zeroblob(32));
