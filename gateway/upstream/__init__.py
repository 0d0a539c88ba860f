"""Providers: the transport seam, targets, one attempt."""
