-- What scans said. Ids of ports hold the host: host << 18 | transport (1 tcp, 2 udp, 3 sctp) << 16 | number, so that the
-- ports of a host lie together and nobody has to look an id up.
-- States: 1 open, 2 closed, 3 filtered, 4 open|filtered, 5 not shown by a later scan that must have shown it.

-- Who looks, and from where: of one viewpoint the latest statement counts.
CREATE TABLE inventory_viewpoints (
    id INTEGER PRIMARY KEY,
    scanner TEXT NOT NULL,
    vantage TEXT NOT NULL,
    UNIQUE (scanner, vantage)
) STRICT;

-- One for each ingest job that said anything. The id is the job's.
CREATE TABLE inventory_scans (
    id INTEGER PRIMARY KEY,
    viewpoint_id INTEGER NOT NULL REFERENCES inventory_viewpoints (id),
    scan_id TEXT NOT NULL,
    tool TEXT NOT NULL,
    tool_version TEXT NOT NULL,
    organization TEXT NOT NULL,
    -- What was looked at, in the submitter's words; '' when it was not said.
    scope TEXT NOT NULL,
    scanned_at INTEGER NOT NULL,
    -- NULL until all of it was stored: only then it can be said what it does not show.
    completed_at INTEGER,
    -- 1 << transport of every port that it shows.
    transports INTEGER NOT NULL DEFAULT 0,
    hosts INTEGER NOT NULL DEFAULT 0,
    ports INTEGER NOT NULL DEFAULT 0,
    -- 1 once observations of it were removed.
    thinned INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX inventory_scans_by_viewpoint ON inventory_scans (viewpoint_id, scanned_at);

CREATE TABLE inventory_hosts (
    id INTEGER PRIMARY KEY,
    -- 16 bytes, IPv4 as ::ffff:0:0/96: networks are ranges of it.
    key BLOB NOT NULL UNIQUE,
    address TEXT NOT NULL,
    up INTEGER NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen INTEGER NOT NULL,
    asn INTEGER,
    as_name TEXT,
    country TEXT
) STRICT;

-- Host names, hardware addresses, operating systems, organizations.
CREATE TABLE inventory_names (
    host_id INTEGER NOT NULL REFERENCES inventory_hosts (id),
    kind INTEGER NOT NULL, -- 1 hostname, 2 mac, 3 os, 4 organization
    value TEXT NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen INTEGER NOT NULL,
    PRIMARY KEY (host_id, kind, value)
) STRICT, WITHOUT ROWID;

CREATE INDEX inventory_names_by_value ON inventory_names (kind, value);

CREATE TABLE inventory_services (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    product TEXT NOT NULL,
    version TEXT NOT NULL,
    extra TEXT NOT NULL,
    -- JSON list.
    cpes TEXT NOT NULL,
    tls INTEGER NOT NULL,
    confidence INTEGER NOT NULL,
    -- Sorts as the version does.
    version_key TEXT NOT NULL,
    UNIQUE (name, product, version, extra, cpes, tls, confidence)
) STRICT;

CREATE TABLE inventory_banners (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    sample BLOB NOT NULL
) STRICT;

CREATE TABLE inventory_certificates (
    id INTEGER PRIMARY KEY,
    sha256 TEXT NOT NULL UNIQUE,
    common_name TEXT NOT NULL,
    -- JSON list.
    names TEXT NOT NULL,
    issuer TEXT NOT NULL,
    not_before INTEGER,
    not_after INTEGER
) STRICT;

-- What follows from all observations, so that lists need not ask them.
CREATE TABLE inventory_ports (
    id INTEGER PRIMARY KEY,
    state INTEGER NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen INTEGER NOT NULL,
    -- NULL: never.
    last_open INTEGER,
    service_id INTEGER,
    banner_id INTEGER,
    certificate_id INTEGER
) STRICT;

CREATE INDEX inventory_ports_by_service ON inventory_ports (service_id) WHERE service_id IS NOT NULL;
CREATE INDEX inventory_ports_by_certificate ON inventory_ports (certificate_id) WHERE certificate_id IS NOT NULL;

-- Which scan said what of which host.
CREATE TABLE inventory_sightings (
    scan_id INTEGER NOT NULL REFERENCES inventory_scans (id),
    host_id INTEGER NOT NULL REFERENCES inventory_hosts (id),
    state INTEGER NOT NULL, -- 1 up, 2 down, 5 not shown
    seen_at INTEGER NOT NULL,
    PRIMARY KEY (scan_id, host_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX inventory_sightings_by_host ON inventory_sightings (host_id);

-- Which scan said what of which port.
CREATE TABLE inventory_observations (
    port_id INTEGER NOT NULL,
    scan_id INTEGER NOT NULL,
    state INTEGER NOT NULL,
    seen_at INTEGER NOT NULL,
    service_id INTEGER,
    banner_id INTEGER,
    certificate_id INTEGER,
    PRIMARY KEY (port_id, scan_id)
) STRICT, WITHOUT ROWID;

-- What became known, in the order in which it did; for those who watch.
CREATE TABLE inventory_changes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    port_id INTEGER NOT NULL, -- number and transport 0: the host
    kind INTEGER NOT NULL, -- 1 appeared, 2 disappeared, 3 changed
    scan_id INTEGER NOT NULL,
    at INTEGER NOT NULL,
    state_before INTEGER,
    state_after INTEGER,
    service_before INTEGER,
    service_after INTEGER,
    certificate_before INTEGER,
    certificate_after INTEGER
) STRICT;
