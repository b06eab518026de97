"""Every Prometheus instrument of the daemon, in one place. https://prometheus.io/docs/practices/naming/

Base units; no label whose values grow without bound: no peer, job, token or request ids.
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which nothing asks for

REGISTRY = CollectorRegistry()
"""Of this process."""

_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_SLOW = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)

ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

build = Gauge("peerd_build_info", "Always 1; what runs is in the labels.", ["version"], registry=REGISTRY)
start_time = Gauge("peerd_start_time_seconds", "When the daemon started, since 1970.", registry=REGISTRY)
peers = Gauge(
    "peerd_peers", "Peers by role and status; one with two roles counts twice.", ["role", "status"], registry=REGISTRY
)
heartbeat_latency = Histogram(
    "peerd_heartbeat_latency_seconds", "Round trip of a probe that was answered.", buckets=_FAST, registry=REGISTRY
)
heartbeats_missed = Counter("peerd_heartbeats_missed_total", "Probes without an answer.", registry=REGISTRY)
clock_offset = Gauge(
    "peerd_clock_offset_max_seconds", "Largest distance of a peer's clock from this one's.", registry=REGISTRY
)
local_health = Gauge(
    "peerd_local_health", "Lifeguard's multiplier: 0 is well, above that this machine doubts itself.", registry=REGISTRY
)
registrations = Counter(
    "peerd_registrations_total",
    "Machines that came: members by invite or admission, and external ones.",
    ["kind"],
    registry=REGISTRY,
)
jobs_running = Gauge("peerd_jobs_running", "Processes of jobs that run here now.", registry=REGISTRY)
jobs_queued = Gauge("peerd_jobs_queued", "Jobs here that are not final and do not run.", registry=REGISTRY)
jobs_finished = Counter("peerd_jobs_finished_total", "Jobs that ended here.", ["result"], registry=REGISTRY)
job_duration = Histogram(
    "peerd_job_duration_seconds", "From the start of a job's process to its end.", buckets=_SLOW, registry=REGISTRY
)
ingest_jobs = Gauge("peerd_ingest_jobs", "Ingest jobs that are not final.", ["state"], registry=REGISTRY)
ingest_jobs_finished = Counter(
    "peerd_ingest_jobs_finished_total", "Ingest jobs that ended.", ["result"], registry=REGISTRY
)
scan_submissions = Counter("peerd_scan_submissions_total", "Scans handed in.", ["result"], registry=REGISTRY)
scan_records = Counter("peerd_scan_records_total", "Records of scans that were stored.", registry=REGISTRY)
scan_skipped = Counter("peerd_scan_skipped_total", "Records and lines of scans that were skipped.", registry=REGISTRY)
schedule_firings = Counter(
    "peerd_schedule_firings_total",
    "Planned times of schedules by what became of them: fired, skipped_overlap, missed, failed.",
    ["status"],
    registry=REGISTRY,
)
transfers_active = Gauge("peerd_transfers_active", "Transfers that are being sent now.", registry=REGISTRY)
transfers_finished = Counter(
    "peerd_transfers_finished_total", "Transfers that ended.", ["direction", "result"], registry=REGISTRY
)
transfer_bytes = Counter(
    "peerd_transfer_bytes_total", "Bytes of files that arrived whole.", ["direction"], registry=REGISTRY
)
transfer_pushed_bytes = Counter(
    "peerd_transfer_pushed_bytes_total",
    "Bytes of files handed to connections to other peers; what had to be sent again counts again.",
    registry=REGISTRY,
)
transfer_duration = Histogram(
    "peerd_transfer_duration_seconds", "Sending all files of one transfer.", buckets=_SLOW, registry=REGISTRY
)
miners = Gauge("peerd_miners", "Onboarded miners of this peer by status.", ["status"], registry=REGISTRY)
miners_unwell = Gauge(
    "peerd_miners_unwell", "Active miners of this peer that do not work as they should.", registry=REGISTRY
)
miners_hash_rate = Gauge(
    "peerd_miners_hash_rate_hashes_per_second", "Hash rate of this peer's miners together.", registry=REGISTRY
)
devices_unconfigured = Gauge(
    "peerd_devices_unconfigured", "USB-serial devices of this peer that nobody has onboarded.", registry=REGISTRY
)
grpc_handled = Counter(
    "grpc_server_handled_total",
    "RPCs that were completed on the server, regardless of success or failure.",
    ["grpc_service", "grpc_method", "grpc_code"],
    registry=REGISTRY,
)
grpc_handling = Histogram(
    "grpc_server_handling_seconds",
    "How long the server took for an RPC.",
    ["grpc_service", "grpc_method"],
    buckets=_FAST,
    registry=REGISTRY,
)
http_requests = Counter(
    "peerd_http_requests_total", "HTTP requests answered.", ["route", "method", "code"], registry=REGISTRY
)
commit_duration = Histogram(
    "peerd_store_commit_duration_seconds",
    "One transaction of the store, its sync included.",
    buckets=_FAST,
    registry=REGISTRY,
)
loop_lag = Gauge("peerd_event_loop_lag_seconds", "How late the event loop was when last looked at.", registry=REGISTRY)
