-- What is kept of results is bounded in sum, so it is counted: bytes of a run's result and report, and of all of an
-- organization's.
ALTER TABLE node_runs ADD COLUMN kept_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE organizations ADD COLUMN kept_bytes INTEGER NOT NULL DEFAULT 0;

UPDATE node_runs SET kept_bytes = length(CAST(result AS BLOB)) + length(CAST(report AS BLOB)) WHERE result != '' OR report != '';
UPDATE organizations SET kept_bytes = (SELECT ifnull(sum(kept_bytes), 0) FROM node_runs r WHERE r.org_id = organizations.org_id);

CREATE INDEX node_runs_kept ON node_runs (org_id, id) WHERE kept_bytes > 0;

CREATE TRIGGER node_runs_kept_changed AFTER UPDATE OF kept_bytes ON node_runs BEGIN
    UPDATE organizations SET kept_bytes = kept_bytes + NEW.kept_bytes - OLD.kept_bytes WHERE org_id = NEW.org_id;
END;

CREATE TRIGGER node_runs_kept_deleted AFTER DELETE ON node_runs WHEN OLD.kept_bytes > 0 BEGIN
    UPDATE organizations SET kept_bytes = kept_bytes - OLD.kept_bytes WHERE org_id = OLD.org_id;
END;

-- How long the job of a run may take: it may probe several nodes. That of one node alone depends on its level.
ALTER TABLE node_runs ADD COLUMN longest_seconds INTEGER NOT NULL DEFAULT 0;
UPDATE node_runs SET longest_seconds = CASE level WHEN 0 THEN 105 WHEN 1 THEN 120 WHEN 2 THEN 240 ELSE 300 END
WHERE status = 'running';
