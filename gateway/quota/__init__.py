"""Rate limits, budgets, and the slices of them that this process holds."""
