"""Workflows that run at planned times: never twice for one, however often the daemon starts anew."""
