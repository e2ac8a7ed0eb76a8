"""The machine that runs the deployer."""
