"""Machines without peerd: they register and beat over HTTP, are listed by every peer, and trusted with nothing."""
