"""What operators may do while the gateway runs: keys, usage, targets' health, and the trail of who did what."""
