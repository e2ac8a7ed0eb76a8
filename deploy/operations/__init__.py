"""The operations of the deployer: one module for each, or for its parts. Tasks call them."""
