"""Checks and builds this repository: nothing here is part of the service or of the deployer."""
