"""The simulated provider: for the demo, the tests and the benchmarks."""
