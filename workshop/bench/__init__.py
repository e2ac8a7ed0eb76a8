"""Benchmarks of the service and of the deployer; `./inv bench.NAME` runs each."""
