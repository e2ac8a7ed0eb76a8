"""What runs in the backup container on the database's host; it imports nothing of the deployer."""
