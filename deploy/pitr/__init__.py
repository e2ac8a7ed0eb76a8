"""Point-in-time recovery of a PostgreSQL on a machine of one's own, by pgBackRest."""
