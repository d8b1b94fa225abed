"""Benchmarks: one workload, one file. `python -m benchmarks --help`."""
