"""The measuring instrument: what Sluice costs next to Go, raw Trio, the plain stack and other gateways.

``python -m benchmarks`` runs it; README.md says how to read the figures. Nothing in ``gateway`` imports this.
"""
