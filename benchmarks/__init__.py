"""Benchmarks beside the peers: one workload, one file. `python -m benchmarks --help`."""
