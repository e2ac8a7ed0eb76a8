"""Benchmarks that anyone can run: swaps under load, and how long a deploy takes."""
