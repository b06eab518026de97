"""Hostile traffic: what nobody who keeps to the protocols sends, at both sockets of a peer."""
