"""The jobs of the pipeline: test suites with coverage, scanners, image checks, compatibility."""
