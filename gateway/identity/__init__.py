"""Keys become principals."""
