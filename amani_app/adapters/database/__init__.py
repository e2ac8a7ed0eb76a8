"""The database: PostgreSQL, or SQLite if `DATABASE_URL` is not set."""
