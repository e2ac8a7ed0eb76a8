"""The deployer: facts → plan → steps. It knows images, hosts and proxies, and nothing of escrow."""
