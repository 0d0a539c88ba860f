"""Trio mechanisms that know nothing of LLMs: admission, relay, fan-out, groups, drain."""
