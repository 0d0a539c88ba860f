"""Frozen values everybody speaks of: calls, errors, usage, facts. Imports no other room and no I/O library."""
