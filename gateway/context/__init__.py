"""Context loaders and their fan-out: what is known before the model is asked."""
