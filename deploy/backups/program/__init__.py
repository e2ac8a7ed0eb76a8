"""The program in the backup container. It imports nothing else of the deployer."""
