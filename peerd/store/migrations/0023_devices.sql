-- USB-serial devices that nobody has onboarded.
CREATE TABLE unconfigured_devices (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    -- NULL while it is not plugged in.
    dev_path TEXT,
    port_path TEXT NOT NULL,
    vendor_id TEXT NOT NULL,
    product_id TEXT NOT NULL,
    serial_number TEXT NOT NULL,
    product TEXT NOT NULL,
    -- Differs after every plug; empty where nothing says so.
    plug_token TEXT NOT NULL,
    mac_address TEXT NOT NULL DEFAULT '',
    discovered_at INTEGER NOT NULL,
    last_seen_at INTEGER NOT NULL,
    status TEXT NOT NULL, -- inactive, initializing
    state TEXT NOT NULL,
    dumped_pool_url TEXT NOT NULL DEFAULT '',
    dumped_wallet_address TEXT NOT NULL DEFAULT '',
    dumped_firmware_version TEXT NOT NULL DEFAULT '',
    ignored INTEGER NOT NULL DEFAULT 0,
    -- How its last handshake ended: mining, not_a_miner, silent, stalled, refused, portal.
    outcome TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    next_action TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE UNIQUE INDEX unconfigured_devices_by_path ON unconfigured_devices (dev_path) WHERE dev_path IS NOT NULL;

-- Devices with a name.
CREATE TABLE miners (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    miner_id TEXT NOT NULL UNIQUE COLLATE NOCASE,
    currency TEXT NOT NULL,
    chipset TEXT NOT NULL,
    location_notes TEXT NOT NULL,
    -- Both NULL while it is not plugged in.
    dev_path TEXT,
    port_path TEXT,
    -- Where it was plugged in last.
    last_port_path TEXT NOT NULL,
    vendor_id TEXT NOT NULL,
    product_id TEXT NOT NULL,
    serial_number TEXT NOT NULL,
    product TEXT NOT NULL,
    plug_token TEXT NOT NULL,
    mac_address TEXT NOT NULL,
    status TEXT NOT NULL, -- inactive, initializing, active
    state TEXT NOT NULL,
    pool_url TEXT NOT NULL,
    wallet_address TEXT NOT NULL,
    firmware_version TEXT NOT NULL,
    outcome TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    next_action TEXT NOT NULL DEFAULT '',
    -- The peer it was promised to, until that one says that it has it.
    handed_to TEXT NOT NULL DEFAULT '',
    onboarded_at INTEGER NOT NULL,
    last_seen_at INTEGER NOT NULL,
    since INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX miners_by_path ON miners (dev_path) WHERE dev_path IS NOT NULL;

-- What happened to miners and devices.
CREATE TABLE device_history (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    miner_id INTEGER REFERENCES miners (id),
    device_id INTEGER,
    at INTEGER NOT NULL,
    event TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;

CREATE INDEX device_history_by_miner ON device_history (miner_id, id);
CREATE INDEX device_history_by_time ON device_history (at);

-- Who may have a port open now.
CREATE TABLE device_leases (
    dev_path TEXT PRIMARY KEY,
    owner TEXT NOT NULL, -- discovery, monitor
    taken_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- How miners mined: by the minute, and after a while by the hour.
CREATE TABLE miner_readings (
    miner_id INTEGER NOT NULL REFERENCES miners (id),
    -- How long one row is, in seconds: 60, 3600.
    resolution INTEGER NOT NULL,
    -- When it begins.
    at INTEGER NOT NULL,
    samples INTEGER NOT NULL,
    hash_rate_khs REAL,
    hash_rate_min_khs REAL,
    hash_rate_max_khs REAL,
    shares INTEGER,
    valid_blocks INTEGER,
    best_difficulty REAL,
    temperature_celsius REAL,
    mining_seconds INTEGER,
    PRIMARY KEY (miner_id, resolution, at)
) STRICT, WITHOUT ROWID;

CREATE INDEX miner_readings_by_age ON miner_readings (resolution, at);
