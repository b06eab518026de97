"""The detector's one row: the incarnation that this peer last used, so that a restart speaks with a higher one."""

from __future__ import annotations

from peerd.store import Store, Tx


async def next_incarnation(store: Store) -> int:
    """An incarnation above all that were used, durable before it is spoken.

    Milliseconds since 1970 make it outrank those of a store that was lost; a clock that was set back does not matter.
    """

    def write(tx: Tx) -> int:
        row = tx.one("SELECT incarnation FROM detector WHERE one = 1")
        incarnation = max(int(tx.now), row["incarnation"] + 1 if row is not None else 1)
        tx.execute(
            "INSERT INTO detector (one, incarnation) VALUES (1, ?)"
            " ON CONFLICT (one) DO UPDATE SET incarnation = excluded.incarnation",
            (incarnation,),
        )
        return incarnation

    return await store.write(write)
