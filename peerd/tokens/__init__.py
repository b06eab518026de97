"""Tokens for this peer's HTTP surface: scoped, expiring, revocable, shown once."""
