"""Benchmarks: ratios measured in one process, printed as a table."""
