"""Sluice, a gateway between a product and the LLM APIs it pays for.

The tour starts in :mod:`gateway.exchange`: one request, read top to bottom. Each room (sub-package) says in its own
``__init__`` what it is for and what it may import; ``tests/arch`` holds the rooms to it.
"""

__version__ = "0.1.0"
