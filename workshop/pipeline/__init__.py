"""What the pipeline runs: the suites, the scanners, and the workflows that call them."""
