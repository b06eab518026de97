"""Signed scans: taken, read, and put into the inventory."""
