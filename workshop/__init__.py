"""Benchmarks, practice hosts, CI jobs and linters. The deployer never imports this package."""
