"""Copies of this peer's store, while it runs."""
