"""Output of the deployer: consoles, results, and files and outputs for CI."""
