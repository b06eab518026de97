-- What started an execution, if no person did.
ALTER TABLE workflow_executions ADD COLUMN started_by TEXT NOT NULL DEFAULT '';

-- At most group_limit executions with the same group_name have begun and not ended; '' is no group.
ALTER TABLE workflow_executions ADD COLUMN group_name TEXT NOT NULL DEFAULT '';
ALTER TABLE workflow_executions ADD COLUMN group_limit INTEGER NOT NULL DEFAULT 0;
-- When its turn came; NULL while it waits, and for those without a group.
ALTER TABLE workflow_executions ADD COLUMN turn_at INTEGER;

CREATE INDEX workflow_executions_in_groups ON workflow_executions (group_name, id)
    WHERE group_name <> '' AND status IN ('pending', 'running');
