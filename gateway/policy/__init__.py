"""Pure decisions with the clock passed in. Imports neither trio nor httpx."""
