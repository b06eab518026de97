"""The audit log as operators see it. It is written by :mod:`peerd.store.audit`."""
