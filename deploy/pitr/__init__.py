"""Point-in-time recovery (PITR) of a self-hosted PostgreSQL, with pgBackRest."""
