"""The workshop: benchmarks, practice hosts, CI jobs and linters. The deployer never imports it."""
