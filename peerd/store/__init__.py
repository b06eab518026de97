"""The local store: one SQLite file, one writer, group commit, forward migrations. No domain words here."""

from peerd.store.store import Store, open_store
from peerd.store.writer import Tx

__all__ = ["Store", "Tx", "open_store"]
