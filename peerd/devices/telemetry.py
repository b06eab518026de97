"""How miners mined, in the store: by the minute for a while, by the hour for longer, then no more."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from peerd.clock import DAY_MS, Millis
from peerd.config import DevicesConfig
from peerd.devices.watching import Window
from peerd.store import Store, Tx

MINUTE, HOUR = 60, 3600
HOUR_MS = 3_600_000


def record(tx: Tx, miner_id: int, window: Window) -> None:
    """One row for what was said since the last one; what comes within the same minute again is added to it."""
    newest, rates = window.newest, window.rates
    tx.execute(
        "INSERT INTO miner_readings (miner_id, resolution, at, samples, hash_rate_khs, hash_rate_min_khs,"
        " hash_rate_max_khs, shares, valid_blocks, best_difficulty, temperature_celsius, mining_seconds)"
        " SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ? WHERE EXISTS (SELECT 1 FROM miners WHERE id = ?)"
        " ON CONFLICT DO UPDATE SET"
        " hash_rate_khs = (samples * coalesce(hash_rate_khs, 0)"
        " + excluded.samples * coalesce(excluded.hash_rate_khs, 0))"
        " / nullif(samples + excluded.samples, 0), samples = samples + excluded.samples,"
        " hash_rate_min_khs = min(coalesce(hash_rate_min_khs, excluded.hash_rate_min_khs),"
        " coalesce(excluded.hash_rate_min_khs, hash_rate_min_khs)),"
        " hash_rate_max_khs = max(coalesce(hash_rate_max_khs, excluded.hash_rate_max_khs),"
        " coalesce(excluded.hash_rate_max_khs, hash_rate_max_khs)),"
        " shares = coalesce(excluded.shares, shares), valid_blocks = coalesce(excluded.valid_blocks, valid_blocks),"
        " best_difficulty = coalesce(excluded.best_difficulty, best_difficulty),"
        " temperature_celsius = coalesce(excluded.temperature_celsius, temperature_celsius),"
        " mining_seconds = coalesce(excluded.mining_seconds, mining_seconds)",
        (
            miner_id,
            MINUTE,
            tx.now - tx.now % (MINUTE * 1000),
            window.samples,
            sum(rates) / len(rates) if rates else None,
            min(rates, default=None),
            max(rates, default=None),
            newest.shares,
            newest.valid_blocks,
            newest.best_difficulty,
            newest.temperature_celsius,
            newest.mining_seconds,
            miner_id,
        ),
    )


def down_sample(tx: Tx, config: DevicesConfig, now: int) -> None:
    """Minutes that are old become hours, old hours go. Repeatable: an hour is made from its minutes, which then go."""
    whole = now - round(config.detail_hours * HOUR_MS)
    whole -= whole % HOUR_MS
    tx.execute(
        "INSERT OR REPLACE INTO miner_readings (miner_id, resolution, at, samples, hash_rate_khs, hash_rate_min_khs,"
        " hash_rate_max_khs, shares, valid_blocks, best_difficulty, temperature_celsius, mining_seconds)"
        " SELECT miner_id, ?, at - at % ?, sum(samples),"
        " sum(samples * hash_rate_khs) / max(1, sum(CASE WHEN hash_rate_khs IS NULL THEN 0 ELSE samples END)),"
        " min(hash_rate_min_khs), max(hash_rate_max_khs), max(shares), max(valid_blocks), max(best_difficulty),"
        " avg(temperature_celsius), max(mining_seconds)"
        " FROM miner_readings WHERE resolution = ? AND at < ? GROUP BY miner_id, at - at % ?",
        (HOUR, HOUR_MS, MINUTE, whole, HOUR_MS),
    )
    tx.execute("DELETE FROM miner_readings WHERE resolution = ? AND at < ?", (MINUTE, whole))
    old = now - round(config.history_days * DAY_MS)
    tx.execute("DELETE FROM miner_readings WHERE resolution = ? AND at < ?", (HOUR, old))
    tx.execute("DELETE FROM device_history WHERE at < ?", (old,))


async def page(store: Store, miner_id: int, resolution: int, *, before: int, limit: int) -> list[sqlite3.Row]:
    """Rows of a miner, newest first."""
    return await store.all(
        "SELECT * FROM miner_readings WHERE miner_id = ? AND resolution = ? AND at < ? ORDER BY at DESC LIMIT ?",
        (miner_id, resolution, before, limit),
    )


def record_all(tx: Tx, windows: Mapping[int, Window], seen_at: Millis) -> None:
    """Of all miners that are watched."""
    for miner_id, window in windows.items():
        if window.samples or window.newest != type(window.newest)():
            record(tx, miner_id, window)
            tx.execute("UPDATE miners SET last_seen_at = ? WHERE id = ?", (seen_at, miner_id))
