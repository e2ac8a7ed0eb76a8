"""Output for terminals, pipelines and machines."""
