"""What scanners write, read into the records of the inventory. Pure: bytes in, records out; no store and no network."""

from peerd.scans.formats.detection import detect
from peerd.scans.formats.items import Format, Item, Limits, Notes, Skipped, SkipReason
from peerd.scans.formats.reading import Reading, read_scan

__all__ = ["Format", "Item", "Limits", "Notes", "Reading", "SkipReason", "Skipped", "detect", "read_scan"]
