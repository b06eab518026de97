-- How many nodes of a sweep are probed at once; 0: as many as its organization allowed then.
ALTER TABLE node_sweeps ADD COLUMN lanes INTEGER NOT NULL DEFAULT 0;

CREATE INDEX node_runs_running ON node_runs (org_id, sweep_id) WHERE status = 'running';
-- A node is looked for by its target alone, too.
CREATE INDEX nodes_by_target ON nodes (target);
