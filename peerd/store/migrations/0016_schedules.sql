-- Workflows that run at planned times. Every planned time up to decided_until has been decided on.
CREATE TABLE schedules (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    origin TEXT NOT NULL, -- definition, request
    workflow_id INTEGER NOT NULL,
    workflow_name TEXT NOT NULL,
    -- 0: the newest that is stored.
    workflow_version INTEGER NOT NULL,
    -- A ScheduleDefinition with its defaults.
    definition BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    -- NULL: it is not paused.
    paused_at INTEGER,
    pause_reason TEXT NOT NULL DEFAULT '',
    -- The last pause that is over.
    pause_began INTEGER NOT NULL DEFAULT 0,
    pause_ended INTEGER NOT NULL DEFAULT 0,
    -- Of what was missed until then nothing runs.
    skip_until INTEGER NOT NULL DEFAULT 0,
    decided_until INTEGER NOT NULL,
    -- When the next planned time begins, jitter included; NULL: never.
    next_at INTEGER
) STRICT;

CREATE INDEX schedules_by_next ON schedules (next_at) WHERE paused_at IS NULL AND next_at IS NOT NULL;

-- What became of planned times. One row for each that was decided on, written with the execution that it led to.
CREATE TABLE schedule_firings (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    schedule_id INTEGER NOT NULL REFERENCES schedules (id),
    -- NULL for one that somebody triggered.
    planned_at INTEGER,
    cause TEXT NOT NULL, -- schedule, catch_up, trigger
    started_by TEXT NOT NULL,
    status TEXT NOT NULL, -- fired, queued, retrying, skipped_overlap, missed, failed
    reason TEXT NOT NULL DEFAULT '',
    message TEXT NOT NULL DEFAULT '',
    next_action TEXT NOT NULL DEFAULT '',
    since INTEGER NOT NULL,
    workflow_execution_id INTEGER,
    -- 1 until its execution is known to have ended.
    running INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_attempt_at INTEGER,
    -- For a row that stands for many missed times: the first of them.
    missed_since INTEGER,
    UNIQUE (schedule_id, planned_at)
) STRICT;

CREATE INDEX schedule_firings_by_schedule ON schedule_firings (schedule_id, id);
CREATE INDEX schedule_firings_running ON schedule_firings (schedule_id) WHERE running = 1;
CREATE INDEX schedule_firings_waiting ON schedule_firings (schedule_id, id) WHERE status IN ('queued', 'retrying');
