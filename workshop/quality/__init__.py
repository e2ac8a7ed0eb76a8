"""Static checks, test suites and lock files."""
