"""Sans-I/O wire formats: bytes in, events out. Imports neither trio nor httpx."""
