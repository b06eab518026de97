-- Which files an edge takes, and what they are called then: JSON, or '' for all of them as they are.
ALTER TABLE job_edges ADD COLUMN selection TEXT NOT NULL DEFAULT '';
ALTER TABLE outgoing_transfers ADD COLUMN selection TEXT NOT NULL DEFAULT '';
